"""Run directories and checkpoints when something is wrong: odd names, damage, readers beside a writer."""

import hashlib
import io
import os
import shutil
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from goalax.commands import evaluate, render
from goalax.commands import train as training
from goalax.core.types import RunState
from goalax.host import checkpoint, display
from goalax.host.config import read_flags
from goalax.host.interrupt import Interrupt
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.runs import LONGER, RUN, envsteps

toy.register()


@pytest.fixture
def run(resumed_toy):
    """(flags) -> exit code."""
    return resumed_toy


ODD = "a [v2] 'q' \"p\" $x$ *?{é}%#;& 目:x:"


def damage(folder):
    for file in (folder / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-20])


def contents(folder):
    """Everything in a folder: names, times, hashes."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.is_file() and hash_of(path))
        for path in [folder, *folder.rglob("*")]
    }


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_odd_names_in_every_place(tmp_path, monkeypatch, capsys):
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.chdir(folder)
    flags = [*toy.TINY, "--exp_name", ODD, "--group_name", f"g{ODD}"]
    assert training.main(flags) == 0
    directory = Path("runs") / f"g{ODD}" / f"{ODD}_s0"
    assert f"  {directory}/metrics.csv" in capsys.readouterr().out
    assert checkpoint.steps(directory / "checkpoints") == [120, 100]
    assert training.main([*flags, *LONGER]) == 0  # by name
    flags = [*LONGER[:1], "--run_dir", str(directory), "--num_timesteps", "200", "--num_evals", "7"]
    assert training.main(flags) == 0
    assert envsteps(directory)[-1] == 200 and os.listdir(directory.parent) == [directory.name]
    capsys.readouterr()
    assert evaluate.main([str(directory), "--episodes", "2"]) == 0
    assert capsys.readouterr().out.startswith(f"{directory}: crl in toy, 200 steps, 2 episodes")
    config = render.RenderConfig(run=str(directory), vis_length=5)
    assert render.check(config) == [Path(f"{ODD}_s0.html")]
    assert render.trained_policy(config)[2] == "toy   crl   200 steps"


@pytest.mark.slow
def test_long_names(run, capsys):
    name = ("--exp_name", "n" * 250)
    assert run(*name) == 0 and run(*name, *LONGER) == 0
    capsys.readouterr()
    for flags in (["--exp_name", "é" * 250], ["--group_name", "n" * 300], ["--resume", "--run_dir", "n" * 300]):
        assert run(*flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and ("too long" in error or "there is no run to resume" in error)


def test_the_display_shows_brackets():
    for terminal in (False, True):
        console = Console(record=True, force_terminal=terminal, width=200, highlight=False, file=io.StringIO())
        with display.Display(10, console) as shown:
            shown.say("writes to [red]a[/b] :x:")
            shown.note("a note on [/c] :x:")
            shown.bar.refresh()
            shown.summary("[bold]t :x:", {"a": "1"}, [Path("runs/[x]_s0")])
        text = console.export_text()
        for words in ("a note on [/c] :x:", "[bold]t :x:", "  runs/[x]_s0"):
            assert words in text


def test_a_damaged_checkpoint_is_put_aside_so_that_the_next_is_saved(run, monkeypatch, capsys):
    monkeypatch.setattr(training.Session, "total_steps", 10**6)
    folder = RUN / "checkpoints"
    damage(folder / "120")
    kept = contents(folder / "120")
    step = display.Display.step

    def stop(display, env_steps):
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(training.Display, "step", step)
        return step(display, env_steps)

    monkeypatch.setattr(training.Display, "step", stop)
    with pytest.warns(UserWarning, match="120 is damaged"):
        assert run(*LONGER) == 143
    out = capsys.readouterr().out
    assert "is kept as 120.damaged" in out and "Stopped and saved" in out
    newest = checkpoint.steps(folder)[0]
    assert newest == 120 and 100 in checkpoint.steps(folder)
    assert contents(folder / "120.damaged").keys() == kept.keys()
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160] and checkpoint.steps(folder)[0] == 160


@pytest.mark.slow
def test_a_later_checkpoint_of_one_seed_is_put_aside(run):
    shutil.copytree(RUN, "runs/toy_crl_s1")
    shutil.rmtree("runs/toy_crl_s1/checkpoints/120")
    assert run(*LONGER, "--num_seeds", "2") == 0
    assert Path(RUN / "checkpoints" / "120.later").is_dir()
    assert [checkpoint.steps(Path(f"runs/toy_crl_s{seed}/checkpoints"))[0] for seed in (0, 1)] == [160, 160]


def test_what_is_put_aside_never_takes_the_place_of_another(tmp_path):
    for names in (["5"], ["5.damaged", "5"], ["5.damaged", "5.damaged-2"]):
        (tmp_path / "5").mkdir()
        checkpoint.put_aside(tmp_path, 5, "damaged")
        assert set(names) <= {path.name for path in tmp_path.iterdir()} | {"5"}
    assert sorted(os.listdir(tmp_path)) == ["5.damaged", "5.damaged-2", "5.damaged-3"]


def test_saved_is_said_only_of_what_is_there(run, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint.Saver, "save", lambda saver, step, items: setattr(saver, "last", step))
    assert run(*LONGER) == 1
    error = capsys.readouterr().err
    assert "the checkpoint runs/toy_crl_s0/checkpoints/160 cannot be written (it is not there)" in error


class Slow:
    """A saver of a seed whose last checkpoint is not there before somebody waits for it."""

    def __init__(self, name, calls, error=None):
        self.name, self.calls, self.error = name, calls, error

    def wait(self):
        self.calls.append(("wait", self.name))
        if self.error is not None:
            raise self.error


def test_no_checkpoint_is_begun_before_the_last_ones_of_all_seeds_are_there(monkeypatch):
    """Or a failure of the second seed, which shows late, would leave it none in common with the first."""
    calls, session = [], object.__new__(training.Session)
    session.num_seeds, session.progress = 2, lambda state: 5
    state = {"x": jax.numpy.arange(6.0).reshape(2, 3)}
    monkeypatch.setattr(checkpoint, "save", lambda saver, kept, *_: calls.append((saver.name, kept["x"].tolist())))
    session.savers = [Slow("one", calls), Slow("two", calls)]
    session._save(state, 0.0)
    assert calls == [("wait", "one"), ("wait", "two"), ("one", [0, 1, 2]), ("two", [3, 4, 5])]
    calls.clear()
    session.savers = [Slow("one", calls), Slow("two", calls, checkpoint.SaveError("no space"))]
    with pytest.raises(checkpoint.SaveError, match="no space"):
        session._save(state, 0.0)
    assert calls == [("wait", "one"), ("wait", "two")]


def test_a_number_that_is_none_is_told_with_its_seed_and_its_checkpoint(run, monkeypatch):
    shutil.copytree(RUN, "runs/toy_crl_s1")
    session, calls = object.__new__(training.Session), []
    session.num_seeds, session.seeds, session.data = 2, [3, 4], None
    session.written, session.savers = [RUN, Path("runs/toy_crl_s1")], [Slow("one", calls)]
    words = r"at 140 environment steps: of seed 4 a is nan; .* runs/toy_crl_s1/checkpoints/120, and other seeds go on"
    with pytest.raises(training.NonFiniteError, match=words):
        session._check_metrics({"a": np.array([1.0, np.nan])}, 140)
    assert calls == [("wait", "one")]
    session.num_seeds = 1
    with pytest.raises(training.NonFiniteError, match="steps: a is inf; the last good .*toy_crl_s0/checkpoints/120.$"):
        session._check_metrics({"a": np.array(np.inf)}, 140)


def test_what_orbax_prints_stays_hidden_behind_a_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", hook := lambda what: None)
    checkpoint.quiet.cache_clear()
    (tmp_path / "5").mkdir()
    with pytest.warns(UserWarning, match="5 is damaged"), pytest.raises(checkpoint.NoCheckpointError):
        checkpoint.restore(tmp_path, RunState(*[np.zeros(1)] * len(RunState._fields)))
    assert sys.unraisablehook is not hook


def test_an_older_state_than_the_newest_is_not_passed_over_in_silence(run):
    with checkpoint.Saver(RUN / "checkpoints") as saver, pytest.raises(checkpoint.SaveError, match="newer ones"):
        saver.save(80, {})


@pytest.mark.slow
def test_readers_write_nothing(run, tmp_path, capsys):
    # As a run that is saving leaves it: Orbax's own name for what is not whole yet.
    unfinished = RUN / "checkpoints" / "140.orbax-checkpoint-tmp"
    shutil.copytree(RUN / "checkpoints" / "120", unfinished)
    damage(RUN / "checkpoints" / "120")
    before = contents(Path("runs"))
    assert evaluate.main([str(RUN), "--episodes", "2"]) == 0
    assert render.trained_policy(render.RenderConfig(run=str(RUN), vis_length=5))[2] == "toy   crl   100 steps"
    assert evaluate.main([str(RUN), "--episodes", "2", "--step", "100"]) == 0
    assert contents(Path("runs")) == before


def test_a_checkpoint_that_goes_as_it_is_read(run, monkeypatch, recwarn):
    read = checkpoint.read

    def late(folder, wanted):
        if folder.name == "120":  # training has saved and deleted in between
            folder.rename(folder.with_name("140"))
        return read(folder, wanted)

    monkeypatch.setattr(checkpoint, "read", late)
    state = checkpoint.restore(RUN / "checkpoints", template())
    assert int(state.env_steps) == 120 and not [w for w in recwarn if "damaged" in str(w.message)]


def template():
    train = make_run(*read_flags([*toy.TINY, "--energy_fn", "l2"])).train
    return jax.eval_shape(train.init, np.zeros(2, np.uint32))


def test_signals_of_one_moment_are_one_wish_and_a_later_one_acts_as_usual():
    """The threads of a killed parent may each send one."""
    usual = []
    before = signal.signal(signal.SIGTERM, lambda number, _: usual.append(number))
    try:
        with Interrupt() as interrupt:
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
            assert interrupt.signal == signal.SIGTERM and usual == []
            interrupt.first[signal.SIGTERM] -= 1  # as if that had been a second ago
            signal.raise_signal(signal.SIGTERM)
            assert usual == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_terminal_that_closes_asks_to_stop_unless_that_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, heard in ((signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, None)):
            signal.signal(signal.SIGHUP, handler)
            with Interrupt() as interrupt:
                signal.raise_signal(signal.SIGHUP)
                assert interrupt.signal == heard
            assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
