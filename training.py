#!/usr/bin/env python
"""Trains an agent: `python training.py --env_name ant`; `--help` lists the flags, `--agent NAME --help` an agent's."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("train", sys.argv[1:], "training.py"))

from goalax.commands.train import main, train

__all__ = ["main", "train"]
