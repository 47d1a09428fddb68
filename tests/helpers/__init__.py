"""What several tests use: made-up environments, runs, films and logs; and where the project lies."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
