#!/usr/bin/env python
"""Predicts the speed of many GPUs from the counts of a profile; it measures nothing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("scale", sys.argv[1:], "scale.py"))
