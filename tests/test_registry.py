"""Registry: names, aliases, and what it says when a name is wrong."""

import re

import pytest

from goalax.registry import Registry
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
    with pytest.raises(ValueError, match=f"^The colour {taken} is registered twice.$"):
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
    with pytest.raises(TypeError, match=r"^The name of a new colour is <function .*; it must be text, as in register"):

        @Registry("colour").register
        def red():
            return 1

    with pytest.raises(ValueError, match=r"^The name of a new colour is 'my/red'; it must be of letters, digits and"):
        Registry("colour").add("my/red", 1)
