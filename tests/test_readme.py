"""Tests of the README: its examples run as they stand, and it names what exists."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from envs import ENVS
from src.agents import AGENTS
from src.agents.crl import CRLConfig
from utils import Config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TINY = [
    *(
        "--num_envs",
        "4",
        "--num_eval_envs",
        "2",
        "--episode_length",
        "20",
        "--unroll_length",
        "10",
        "--batch_size",
        "8",
    ),
    *("--min_replay_size", "20", "--max_replay_size", "40", "--num_timesteps", "160", "--num_evals", "2"),
    *("--h_dim", "8", "--repr_dim", "8", "--vis_length", "0"),
]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with all the examples of the README put where they say."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("envs", "src", "training.py", "utils.py"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    blocks = re.findall(r"```python\n# ([\w/]+\.py)(?:, (at the end|in LAYOUTS))?\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == README.count("```python") == 4
    for path, where, code in blocks:
        if where == "in LAYOUTS":
            text = (folder / path).read_text()
            code = text.replace("\nLAYOUTS = {\n", f"\nLAYOUTS = {{\n{code}")
            assert code != text
        with (folder / path).open({"": "x", "at the end": "a", "in LAYOUTS": "w"}[where]) as file:
            file.write(code)
    return folder


def run(folder, *argv):
    command = [sys.executable, "training.py", *argv]
    environment = {**os.environ, "PYTHONPATH": ""}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_examples_train_together(extended):
    command = re.search(r"`python training.py (--env_name line [^`]*)`", README)[1]
    assert "Finished" in run(extended, *command.split(), *TINY)
    assert (extended / "runs" / "line_noisy_crl_s0" / "metrics.csv").exists()


def test_the_maze_example_trains_and_shows_up(extended):
    assert "Finished" in run(extended, "--env_name", "simple_cross_maze", *TINY)
    words = run(extended, "--help")
    mazes = re.findall(r"\w+_cross_maze", README)
    assert len(mazes) == 3
    assert all(name in words for name in (*mazes, "line", "noisy_crl", "l4", "margin"))


def test_every_name_and_flag_is_mentioned():
    names = [*ENVS, *AGENTS, *(f"--{name}" for config in (Config, CRLConfig) for name in config.__dataclass_fields__)]
    missing = [name for name in names if not name.startswith("toy") and f"`{name}" not in README and name not in README]
    assert missing == []


def test_pictures_exist():
    for name in re.findall(r'src="([^"]+)"', README):
        assert (ROOT / name).is_file(), name


def test_paths_exist():
    for name in re.findall(r"`((?:src|envs|scripts|tests)/[\w/.]*)`", README):
        assert (ROOT / name).exists(), name
