#!/usr/bin/env python
"""Measures the speeds of docs/performance.md, in turns, and adds them to those of other hours."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("speed", sys.argv[1:], "speed.py"))
