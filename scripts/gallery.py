#!/usr/bin/env python
"""Draws pictures of all environments and writes their tables into docs/environments.md and docs/performance.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a checkout needs no install

from goalax.cli import run

if __name__ == "__main__":
    sys.exit(run("gallery", sys.argv[1:], "gallery.py"))
