#!/usr/bin/env python
"""Writes the tables of docs/baselines.md, or prints the commands of rows that no run has finished."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("baselines", sys.argv[1:], "baselines.py"))
