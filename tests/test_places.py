"""Where files are to be written: what is wrong with a place is told before work begins, and nothing is written."""

import os

import pytest

from goalax.commands import dataset, export, render
from goalax.flags import FlagError
from goalax.host import places
from goalax.host.places import writable


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.npz").mkdir()
    (tmp_path / "old.npz").write_text("of before")
    (tmp_path / "link.npz").symlink_to("old.npz")
    return tmp_path


WORDS = "; it must name a file that ends in .npz, .json, in a directory that exists.$"
NONE = ["", ".", "taken.npz", "no/x.npz", "old.npz/x.npz", "x.txt", ".npz", "x" * 300 + "/a.npz"]


@pytest.mark.parametrize("name", NONE)
def test_what_can_be_no_file(name, folder):
    with pytest.raises(FlagError, match=WORDS) as error:
        writable("keep", name, (".npz", ".json"))
    assert str(error.value).startswith(f"--keep is {name!r}")


@pytest.mark.parametrize("name", ["x.npz", "old.npz", "link.npz", "x", "/dev/null"])
def test_what_can_be_one(name, folder):
    before = sorted(os.listdir(folder))
    assert str(writable("out", name)) == name
    assert sorted(os.listdir(folder)) == before and (folder / "old.npz").read_text() == "of before"


@pytest.mark.parametrize("closed", ["old.npz", "."])
def test_what_may_not_be_written(closed, folder, monkeypatch):
    place = os.path.realpath(closed)
    monkeypatch.setattr(places.os, "access", lambda path, _: os.path.realpath(path) != place)
    for name in ("old.npz", "link.npz"):
        with pytest.raises(FlagError, match=f"^--out is '{name}', which cannot be written.$"):
            writable("out", name)
    assert writable("out", "/dev/null").name == "null"


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (dataset.main, ["--env_name", "simple_u_maze"]),
        (dataset.main, ["run"]),
        (export.main, ["run"]),
    ],
)
def test_commands_say_so_before_they_begin(main, argv, folder, capsys):
    assert main([*argv, "--out", "taken.npz"]) == 2
    error = capsys.readouterr().err
    assert "--out is 'taken.npz'; it must name a file" in error and error.count("\n") == 1


def test_the_second_file_of_a_command_is_looked_at_too(folder, capsys):
    (folder / "x-val.npz").mkdir()
    assert dataset.main(["--env_name", "simple_u_maze", "--out", "x.npz"]) == 2
    assert "--out is 'x-val.npz'; it must name a file" in capsys.readouterr().err
    (folder / "b.gif").mkdir()
    assert render.main(["--env_name", "reacher", "--out", "a.html,b.gif"]) == 2
    assert "--out is 'b.gif'; it must name a file" in capsys.readouterr().err
