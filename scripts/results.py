#!/usr/bin/env python
"""Trains the rows of benchmarks/results/rows.yml one after the other and writes their tables in docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("results", sys.argv[1:], "results.py"))
