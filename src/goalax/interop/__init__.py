"""Doors to other libraries: environments for Gymnasium, policies that run without Goalax."""
