"""Which run is resumed, and the command line that resumes it."""

import shlex
import shutil
from pathlib import Path

import pytest

from goalax.flags import FlagError
from goalax.host import folders, resuming
from goalax.host.config import Flags, read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.runs import RUN

toy.register()


@pytest.fixture
def run(resumed_toy):
    """(flags) -> exit code."""
    return resumed_toy


def test_names_are_compared_not_matched(run):
    for name in ("x[ab]_s0", "xa_s0", "-3"):
        shutil.copytree(RUN, Path("runs") / name)
    find = lambda name: folders.find(read_flags([*toy.TINY, "--exp_name", name])[0], 0)  # noqa: E731
    assert find("x[ab]") == Path("runs/x[ab]_s0")
    for name in ("x*", "x?", "x[a]"):
        with pytest.raises(FlagError, match="found no run"):
            find(name)


def test_how_to_go_on_names_runs_that_newer_ones_hide(run):
    flags = read_flags([*toy.TINY, "--num_seeds", "2"])
    config = make_run(*flags).config
    directories = [folders.create(config, seed) for seed in (0, 1)]

    def trained(directory):
        (directory / "config.json").write_text("{}")
        (directory / "checkpoints/100").mkdir(parents=True)

    for directory in directories:
        trained(directory)
    whole = "python training.py --resume --exp_name toy_crl --seed 0 --num_seeds 2"
    assert resuming.command(config, directories, "training.py") == whole
    trained(folders.create(config, 1))
    one, two = resuming.command(config, directories, "training.py").split(" && ")
    assert one.endswith(f"--resume --run_dir {directories[0]}") and two.endswith(f"--resume --run_dir {directories[1]}")


def test_how_to_go_on_is_a_line_of_the_shell():
    config = read_flags([*toy.TINY, "--exp_name", "a b"])[0]
    line = resuming.command(config, [Path("runs/a b_s0")], "goalax train")
    assert line == "goalax train --resume --run_dir 'runs/a b_s0'"
    config = read_flags([*toy.TINY, "--exp_name=--x", "--group_name=-g"])[0]
    line = resuming.command(config, [], "training.py")
    again = read_flags([*toy.TINY, *shlex.split(line)[2:]])[0]
    assert (again.exp_name, again.group_name, again.resume) == ("--x", "-g", True)


def test_a_run_that_was_stopped_before_its_first_checkpoint_hides_no_other(run):
    other = RUN.with_name("toy_crl_s0-2")
    other.mkdir()
    shutil.copy(RUN / "config.json", other)
    flags = read_flags(list(toy.TINY))[0]
    assert folders.find(flags, 0) == RUN
    (other / "checkpoints/100").mkdir(parents=True)
    assert folders.find(flags, 0) == other


def test_one_run_is_not_resumed_as_two(run, capsys):
    assert run("--resume", "--run_dir", str(RUN), "--num_seeds", "2") == 2
    assert "--run_dir names the one run to continue" in capsys.readouterr().err


def test_what_a_process_says_that_has_no_directory():
    """One of several processes, which does not write, and whose error has no file."""
    words = "Training stopped: gone; there is no checkpoint yet, so start it anew once that is mended."
    assert resuming.unwritten(OSError("gone"), Flags(), [], "training.py") == words
