"""Tests of README, documents and notebook: their examples run as they stand, and they name what exists."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from goalax.agents import AGENTS
from goalax.agents.crl import CRLConfig
from goalax.envs import ENVS
from goalax.host.config import Flags
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text()
ENVIRONMENTS = (ROOT / "docs" / "environments.md").read_text()
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
FROM_PYTHON = "from_python.py"
# (file, "in LAYOUTS" or nothing, text) of every block of Python.
EXTENDING = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n# ([\w/]+\.py)(?:, (in LAYOUTS))?\n(.*?)```", README + EXTENDING, re.DOTALL)
MAX_LINES = 250

TINY = {"num_envs": 4, "num_eval_envs": 2, "episode_length": 20, "unroll_length": 10, "batch_size": 8}
TINY |= {"min_replay_size": 20, "max_replay_size": 40, "num_timesteps": 160, "num_evals": 2, "vis_length": 0}
TINY |= {"h_dim": 8, "repr_dim": 8}
TINY_FLAGS = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]

# What stands in for the one thing of IPython that the notebook uses.
BEFORE = """
import sys, types
display = sys.modules["IPython.display"] = types.ModuleType("IPython.display")
display.HTML = str
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with all the examples of the README put where they say."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("envs", "src"):  # src/goalax/envs stays a link
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    for name in ("training.py", "utils.py"):
        shutil.copy(ROOT / name, folder / name)
    for path, where, code in BLOCKS:
        if where == "in LAYOUTS":
            text = (folder / path).read_text()
            code = text.replace("\nLAYOUTS = {\n", f"\nLAYOUTS = {{\n{code}")
            assert code != text
        if path != FROM_PYTHON:
            with (folder / path).open("w" if where else "x") as file:
                file.write(code)
    return folder


def python(folder, *argv, path=""):
    """What a program prints; path: where it finds modules besides those that are installed."""
    environment = {**os.environ, "PYTHONPATH": str(path), "MPLBACKEND": "agg"}
    result = subprocess.run([sys.executable, *argv], cwd=folder, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_block_of_python_is_run_here():
    assert len(BLOCKS) == (README + EXTENDING).count("```python") == 8
    assert [path for path, _, _ in BLOCKS].count(FROM_PYTHON) == 1
    assert all(where or code.startswith('"""') for _, where, code in BLOCKS)


@pytest.mark.slow
def test_the_examples_train_together(extended):
    command = re.search(r"`python training.py (--env_name line [^`]*)`", README)[1]
    assert "Finished" in python(extended, "training.py", *command.split(), *TINY_FLAGS)
    assert (extended / "runs" / "line_noisy_crl_s0" / "metrics.csv").exists()


@pytest.mark.slow
def test_the_maze_example_trains_and_shows_up(extended):
    assert "Finished" in python(extended, "training.py", "--env_name", "simple_cross_maze", *TINY_FLAGS)
    words = python(extended, "training.py", "--help")
    mazes = re.findall(r"\w+_cross_maze", README)
    assert len(mazes) == 3
    assert all(name in words for name in (*mazes, "line", "noisy_crl", "l4", "margin", "near", "origin"))


@pytest.mark.slow
def test_the_example_from_python_runs(tmp_path):
    (code,) = (code for path, _, code in BLOCKS if path == FROM_PYTHON)
    (tmp_path / FROM_PYTHON).write_text(code)
    printed = python(tmp_path, FROM_PYTHON, path=ROOT / "src")
    evaluations = re.findall(r"^(\d+) (\S+)$", printed, re.MULTILINE)
    assert len(evaluations) == 3 and all(0 <= float(time_at_goal) <= 1 for _, time_at_goal in evaluations)
    actions = printed[printed.index("[[") :]
    assert actions.count("]") == 8 + 1  # of eight environments
    assert (tmp_path / "runs" / "from_python" / "config.json").is_file()


def test_the_notebook_is_whole():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert 4 <= len(names) == len(set(names)) <= 8
    for cell in notebook["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            wanted |= {"outputs", "execution_count"}
        assert set(cell) == wanted


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    cells = {cell["id"]: cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"}
    sources = {name: "".join(cell["source"]) for name, cell in cells.items()}
    small = {**TINY, "vis_length": 20}
    sources["parameters"] += f"\nMINUTES = 0.02\nFLAGS |= {small}\n"
    (tmp_path / "notebook.py").write_text("\n\n".join([BEFORE, *sources.values()]))
    printed = python(tmp_path, "notebook.py", path=ROOT / "src")
    assert re.search(r"\d steps: +\d+% of the episodes", printed)
    page = (tmp_path / "quickstart.html").read_text()
    assert "<canvas" in page and "reacher, " in page


def test_every_name_and_flag_is_mentioned():
    flags = [f"--{name}" for config in (Flags, CRLConfig) for name in config.__dataclass_fields__]
    assert [flag for flag in flags if f"`{flag}`" not in README] == []
    missing = [name for name in AGENTS if f"`{name}`" not in README]
    assert missing == [], "a new agent has a row in README's table of algorithms"
    environments = [name for name in ENVS if not name.startswith("toy")]
    missing = [name for name in environments if f"`{name}`" not in README + ENVIRONMENTS]
    assert missing == [], "python scripts/gallery.py writes rows of docs/environments.md"


def test_the_readme_is_short():
    assert len(README.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_documents_point_to_exists(document):
    text = document.read_text()
    pictures = re.findall(r'src="([^"]+)"', text)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for name in (*pictures, *filter(None, links)):
        assert (document.parent / name).is_file(), name
    for name in re.findall(r"`((?:src|envs|scripts|tests|docs|benchmarks)/[\w/.]*)`", text):
        later = re.search("NAME|ENV|^benchmarks/gpu", name)  # names to be chosen, files to be measured
        assert later or (ROOT / name).exists(), name


def test_every_environment_has_a_picture_in_its_table():
    for table in ENVIRONMENTS.split("## Mazes"):
        rows = [line for line in table.splitlines() if line.startswith("| <img")]
        pictures = re.findall(r'<img src="\.\./imgs/envs/(\w+)\.png"', table)
        assert pictures and len(set(pictures)) == len(pictures) == len(rows)
        assert all((ROOT / "imgs" / "envs" / f"{name}.png").is_file() for name in pictures)
        assert all(f"`{name}`" in row for name, row in zip(pictures, rows, strict=True))
