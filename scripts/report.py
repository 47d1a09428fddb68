#!/usr/bin/env python
"""Writes one page about many runs: `goalax report`, from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("report", sys.argv[1:], "report.py"))
