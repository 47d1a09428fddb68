"""The structure of the code: wings on floors, imports that run one way, no I/O below the host, short files."""

import ast
import graphlib
import re

import pytest

from tests.helpers import ROOT

PLACES = ("*.py", "src/goalax/**/*.py", "envs/**/*.py", "scripts/**/*.py", "tests/**/*.py")
FILES = sorted({path for place in PLACES for path in ROOT.glob(place) if "goalax/envs" not in path.as_posix()})


def module_of(path):
    """The dotted name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("goalax", *parts) if parts[0] == "envs" else parts[1:] if parts[0] == "src" else parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}
CODE = {module: path for module, path in MODULES.items() if module.startswith("goalax.")}

# Wing -> its floor: a wing may use what is on lower floors, and nothing of another wing on its own floor.
FLOORS = {
    "words": 0,
    "whole": 0,
    "registry": 1,
    "flags": 2,
    "core": 3,
    "learning": 4,
    "envs": 4,
    "agents": 5,
    "data": 6,
    "host": 7,
    "study": 8,
    "speed": 8,
    "films": 8,
    "interop": 9,
    "commands": 10,
    "cli": 11,
    "__main__": 12,
}
HOST = FLOORS["host"]
# Nothing below the host reads, writes or shows anything, but `data` its files, with NumPy.
IO = {"wandb", "tensorboardX", "matplotlib", "rich", "orbax", "pickle", "av", "PIL", "csv", "json", "subprocess"}
MAX_LINES = 300


def wing(module):
    return module.split(".")[1]


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
    """Modules of the package that a module imports; a package counts where no module of it is named."""
    names = {name for name in imported(MODULES[module]) if name in CODE}
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


each_module = pytest.mark.parametrize("module", CODE)
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def test_modules_are_found():
    assert {"goalax.core.train", "goalax.envs.base", "goalax.agents.crl", "goalax.cli"} <= set(CODE)
    assert "goalax.core.types" in own_imports("goalax.core.buffer")
    assert {wing(module) for module in CODE} == set(FLOORS)


@each_module
def test_imports_run_down(module):
    for other in own_imports(module):
        inside = wing(other) == wing(module)
        assert inside or FLOORS[wing(other)] < FLOORS[wing(module)], f"{module} imports {other}"


@each_module
def test_environments_meet_agents_and_learning_only_in_the_host(module):
    if wing(module) == "envs":
        others = own_imports(module) - {name for name in CODE if wing(name) == "envs"}
        assert others <= {"goalax.registry", "goalax.words", "goalax.core.goals", "goalax.core.types"}
    elif FLOORS[wing(module)] < HOST:
        assert not {other for other in own_imports(module) if wing(other) == "envs"}


def test_imports_have_no_cycle():
    graph = {module: own_imports(module) for module in CODE}
    for package in [name for name, path in CODE.items() if path.name == "__init__.py"]:
        # A package imports its modules, which may import each other.
        graph[package] = {other for other in graph[package] if not other.startswith(f"{package}.")}
    graph["goalax.host.runs"].discard("goalax.host.config")  # for a type only
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@each_module
def test_no_io_below_the_host(module):
    names = {name.split(".")[0] for name in imported(CODE[module])}
    if FLOORS[wing(module)] < HOST:
        assert not names & IO
    if FLOORS[wing(module)] < FLOORS["data"]:
        assert "goalax.whole" not in own_imports(module)  # which replaces files
    assert "tyro" not in names or module == "goalax.flags"


@each_file
def test_nothing_imports_the_places_of_before(path):
    if path.name == "test_architecture.py":
        return
    names = {name.split(".")[0] for name in imported(path)}
    assert not names & {"src", "envs", "conftest"}
    assert not names & {"training", "utils"} or path.is_relative_to(ROOT / "tests")
    assert not re.search(r"^\s*(from|import) tests\.test_", path.read_text(), re.M), "tests import no tests"


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
