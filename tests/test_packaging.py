"""Tests that the packaging files agree with each other, and that scripts can be called."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.helpers import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + EXTRAS["dev"]]
PIN_LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
SCRIPTS = [".ci/run", *sorted(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.sh"))]
SCRIPTS.remove("scripts/setup.sh")  # is read by the others


def pinned() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in PIN_LINES)}


# The files agree


def test_requirements_hold_only_exact_pins():
    assert [line for line in PIN_LINES if not re.fullmatch(r"[\w-]+==[\w.]+", line)] == []
    assert len(pinned()) == len(PIN_LINES), "no package twice"


@pytest.mark.parametrize("dependency", DIRECT, ids=lambda dependency: dependency.name)
def test_pin_is_within_the_range(dependency):
    operators = {specifier.operator for specifier in dependency.specifier}
    assert operators == {">=", "<"}, "a range has both ends"
    assert dependency.specifier.contains(pinned()[canonicalize_name(dependency.name)])


@pytest.mark.parametrize("names", [("mujoco", "mujoco-mjx"), ("jax", "jaxlib")])
def test_twins_share_a_version(names):
    first, second = (pinned()[name] for name in names)
    assert first == second


def test_cuda_extras_leave_the_version_to_jax():
    assert {name: EXTRAS[name] for name in EXTRAS if name.startswith("cuda")} == {
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
    }


def test_conda_environment_matches_pyproject():
    python, pip, by_pip = CONDA["dependencies"]
    assert CONDA["name"] == PROJECT["name"]
    assert pip == "pip"
    assert python.startswith("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert by_pip == {"pip": ["-c requirements.txt", "-e ."]}, "every other version comes from these two files"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names of what a wheel of this checkout holds."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    for name in ("pyproject.toml", "README.md", "LICENSE", "src", "envs"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=copy, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_a_wheel_has_one_name_to_import(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"goalax"}


def test_a_wheel_holds_all_files(wheel):
    files = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/goalax").rglob("*") if path.is_file()}
    files |= {f"goalax/envs/{path.name}" for path in (ROOT / "envs").glob("*.py")}
    files = {name for name in files if not name.endswith(".pyc")}
    assert {"goalax/py.typed", "goalax/study/report.html", "goalax/films/viewer.html", "goalax/envs/ant.py"} <= files
    assert files == {name for name in wheel if name.startswith("goalax/")}


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "requirements.txt", "environment.yml", "scripts/setup.sh", *SCRIPTS]
)
def test_nothing_is_tied_to_one_machine(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"\w://|\b[\w-]+\.(com|org|net|io)\b", text), "a host"
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|^\s*-[if]\s", text, re.M), "an index"
    assert not re.search(r"(?<![\w.}])/(home|root|Users|tmp|opt|work|mnt)\b", text), "an absolute path"


# The scripts, run on fakes in a copy of the tree: no network, no GPU, and only the tools that they may count on


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_can_be_called(name):
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("name", ["scripts/setup.sh", *SCRIPTS])
def test_script_parses(name):
    subprocess.run(["bash", "-n", ROOT / name], check=True)
