#!/usr/bin/env python
"""Writes a dataset of a run or of scripted walks: `goalax dataset`, from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("dataset", sys.argv[1:], "dataset.py"))
