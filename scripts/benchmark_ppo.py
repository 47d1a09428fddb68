#!/usr/bin/env python
"""Compares the speed of --agent ppo with Brax's trainer called directly, in turns."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("benchmark_ppo", sys.argv[1:], "benchmark_ppo.py"))
