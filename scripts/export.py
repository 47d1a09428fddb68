#!/usr/bin/env python
"""Writes the policy of a run as a file that runs with JAX alone: `goalax export`, from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("export", sys.argv[1:], "export.py"))
