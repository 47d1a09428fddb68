"""The structure of the code: imports run one way, the jitted part does no I/O, files are short and say what they do."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path
    for place in ("*.py", "src/**/*.py", "envs/**/*.py", "scripts/**/*.py", "tests/**/*.py")
    for path in ROOT.glob(place)
)
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
CODE = {module: path for module, path in MODULES.items() if not module.startswith("tests.")}

BASES = (
    "types",
    "registry",
    "flags",
    "buffer",
    "losses",
    "pairwise",
    "quasimetrics",
    "networks",
    "normalization",
    "sharding",
)
BASE = {f"src.{name}" for name in BASES}
LOOP = {"src.rollout", "src.train"}
IO = (
    "wandb",
    "tensorboardX",
    "matplotlib",
    "rich",
    "orbax",
    "pickle",
    "av",
    "PIL",
)  # nothing inside the jitted part imports them
MAX_LINES = 300


def layer(module):
    """The height of a module: it may import from its own height and from below."""
    if module.split(".")[0] == "envs" or module in BASE:
        return 0
    if module.startswith("src.agents"):
        return 1
    if module in LOOP:
        return 2
    if module == "utils" or module.startswith("src."):
        return 3
    return 4  # training, scripts


def imported(path):
    """Dotted names that a file imports, wherever it does so; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module):
    """Modules of this repository that a module imports; a package counts where no module of it is named."""
    names = {name for name in imported(MODULES[module]) if name in MODULES}
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)} - {"src"}


each_module = pytest.mark.parametrize("module", CODE)
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def test_modules_are_found():
    assert {*BASE, *LOOP, "envs", "envs.base", "src.agents", "src.agents.crl", "training", "utils"} <= set(CODE)
    assert "src.types" in own_imports("src.buffer") and "src.rollout" in own_imports("src.train")


@each_module
def test_imports_run_one_way(module):
    for other in own_imports(module):
        assert layer(other) <= layer(module), f"{module} imports {other}"


@each_module
def test_environments_and_the_loop_meet_only_outside(module):
    others = own_imports(module)
    if module.split(".")[0] == "envs":
        assert {other for other in others if other.startswith("src")} <= {"src.registry"}
    elif layer(module) <= 2:  # environments, agents and loop know each other by their interfaces only
        assert not {other for other in others if other.split(".")[0] == "envs"}
    if module in LOOP:
        assert not {other for other in others if other.startswith("src.agents")}


def test_imports_have_no_cycle():
    graph = {module: own_imports(module) for module in CODE}
    for package in ("envs", "src.agents"):  # a package imports its modules, which may import each other
        graph[package] = {other for other in graph[package] if not other.startswith(package)}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@each_module
def test_no_io_inside_the_jitted_part(module):
    if layer(module) <= 2:
        names = {name.split(".")[0] for name in imported(CODE[module])}
        assert not names & set(IO)
        assert not names & {"tyro"} or module == "src.flags"


@each_file
def test_first_line_says_what_the_file_is_for(path):
    first, *more = path.read_text().splitlines()
    if first == "#!/usr/bin/env python":
        first = more[0]
    assert first.startswith(('"""', "# ")), "the first line is a docstring or a comment"
    assert len(first.strip('"# ').split()) >= 4
    if first.startswith('"""'):
        assert ast.get_docstring(ast.parse(path.read_text()))


@each_module
def test_files_are_short(module):
    assert len(CODE[module].read_text().splitlines()) <= MAX_LINES
