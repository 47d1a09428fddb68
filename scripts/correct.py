#!/usr/bin/env python
"""Correctors of speculative execution: `goalax correct`, from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("correct", sys.argv[1:], "correct.py"))
