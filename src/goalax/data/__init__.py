"""Datasets: files in OGBench's format, read as a ring of the loop, written from one, and collected by a script."""
