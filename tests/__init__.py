"""Tests of Goalax; what several of them use lies in `tests.helpers`."""
