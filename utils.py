"""The names that users look for here: flags and what they stand for, environments, runs. They live in `goalax`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # a checkout needs no install

from goalax.envs import ENVS, GoalEnv, create_env
from goalax.host.cache import enable_compilation_cache
from goalax.host.config import Config, Flags, read_flags
from goalax.host.make import Run, make, make_run
from goalax.host.stored import read_resumed_flags, read_run

__all__ = [
    "ENVS",
    "Config",
    "Flags",
    "GoalEnv",
    "Run",
    "create_env",
    "enable_compilation_cache",
    "make",
    "make_run",
    "read_flags",
    "read_resumed_flags",
    "read_run",
]
