"""Registry: names, aliases, and what it says when a name is wrong."""

import re
import subprocess
import sys

import pytest

from goalax import cli
from goalax.registry import EntryError, Registry, RegistryError
from goalax.words import choices


@pytest.fixture
def colours():
    table = Registry("colour")
    table.add("red", 1, aliases=("crimson", "rouge"))
    table.add("green", 2)
    table.add("blue", 3)
    return table


def test_alias_finds_the_entry_of_its_name(colours):
    assert colours["rouge"] == colours["crimson"] == colours["red"] == 1
    assert colours.resolve("crimson") == "red" and colours.resolve("green") == "green"
    assert "rouge" in colours and "black" not in colours


def test_iterates_over_names_only_in_order_of_registration(colours):
    assert list(colours) == ["red", "green", "blue"]
    assert len(colours) == 3
    assert dict(colours) == {"red": 1, "green": 2, "blue": 3}


def test_decorator_returns_what_it_registers():
    table = Registry("function")

    @table.register("double", "twice")
    def double(x):
        return 2 * x

    assert double(3) == 6
    assert table["double"] is table["twice"] is double


def test_add_returns_the_entry(colours):
    entry = object()
    assert colours.add("black", entry) is entry


@pytest.mark.parametrize("name, aliases", [("red", ()), ("rouge", ()), ("pink", ("green",)), ("pink", ("rouge",))])
def test_names_and_aliases_are_unique(colours, name, aliases):
    taken = (name, *aliases)[-1]
    with pytest.raises(RegistryError, match=f"^The colour {taken} is registered twice.$"):
        colours.add(name, 9, aliases)
    assert colours["red"] == colours["rouge"] == 1 and colours["green"] == 2


@pytest.mark.parametrize("look_up", [Registry.__getitem__, Registry.resolve])
def test_unknown_name_lists_the_choices_nearest_first(colours, look_up):
    with pytest.raises(ValueError, match=re.escape("Unknown colour: gren. Choose from: green, red, blue.")):
        look_up(colours, "gren")
    with pytest.raises(ValueError, match=re.escape("Unknown colour: xyz. Choose from: red, green, blue.")):
        look_up(colours, "xyz")


def test_choices_holds_each_name_once():
    valid = ["ant", "ant_push", "ant_ball", "reacher", "ant_maze"]
    listed = choices("ant_pusk", valid).split(", ")
    assert sorted(listed) == sorted(valid)
    assert listed[0] == "ant_push"
    assert listed[-1] == "reacher"


def test_is_read_only(colours):
    with pytest.raises(TypeError):
        colours["red"] = 5


def test_a_name_is_a_plain_word_and_not_forgotten():
    with pytest.raises(EntryError, match=r"^The name of a new colour is <function .*; it must be text, as in register"):

        @Registry("colour").register
        def red():
            return 1

    with pytest.raises(RegistryError, match=r"^The name of a new colour is 'my/red'; it must be of letters"):
        Registry("colour").add("my/red", 1)


WITH_MORE = """
import sys
from goalax import cli, registry
import_all = registry.import_all
def more(package, path):
    path += [sys.argv[1]] if package == "goalax.envs" else []
    import_all(package, path)
registry.import_all = more
sys.exit(cli.main(["train"]))
"""


def test_a_file_that_registers_what_is_there_is_one_sentence(tmp_path):
    (tmp_path / "mine.py").write_text('from goalax.envs.base import ENVS\nENVS.register("reacher")(dict)\n')
    done = subprocess.run([sys.executable, "-c", WITH_MORE, tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "goalax train: The environment reacher is registered twice.\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize("error", [RegistryError, EntryError])
def test_every_command_tells_what_cannot_be_registered(command, error, monkeypatch, capsys):
    def load(_):
        raise error("The colour red is registered twice.")

    monkeypatch.setattr(cli, "load", load)
    assert cli.main([command]) == 2
    assert capsys.readouterr().err == f"goalax {command}: The colour red is registered twice.\n"
