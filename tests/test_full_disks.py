"""Disks that are full, read-only or gone while training: one sentence, and the run goes on later."""

import errno
import os
import resource
from pathlib import Path

import pytest

from goalax.host import checkpoint, display
from tests.helpers import toy
from tests.helpers.runs import LONGER, RUN, envsteps

toy.register()


@pytest.fixture
def run(resumed_toy):
    """(flags) -> exit code."""
    return resumed_toy


def stopped(error, *words):
    """The one line that a run says when it cannot write."""
    lines = [line for line in error.splitlines() if "Training stopped" in line]
    assert len(lines) == 1 and "Traceback" not in error, error
    for word in words:
        assert word in lines[0], lines[0]


GO_ON = "once that is mended, this continues from there: python training.py --resume --run_dir runs/toy_crl_s0"


def test_a_full_disk_under_the_table(run, monkeypatch, capsys):
    fsync = os.fsync

    def full(file):
        if (RUN / "metrics.csv").exists() and len(envsteps()) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    assert run(*LONGER) == 1
    what = "runs/toy_crl_s0/metrics.csv cannot be written (No space left on device)"
    stopped(capsys.readouterr().err, what, "everything up to the checkpoint at 120 steps is safe", GO_ON)
    monkeypatch.setattr(os, "fsync", fsync)
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160]


def test_a_full_disk_under_a_checkpoint(run, monkeypatch, capfd):
    """The kernel refuses files past a size, as a full disk would: Orbax meets a real error in its own threads."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = checkpoint.Saver.save

    def full(saver, step, items):
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        save(saver, step, items)

    monkeypatch.setattr(checkpoint.Saver, "save", full)
    try:
        code = run(*LONGER, "--checkpoint_interval", "0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    error = capfd.readouterr().err
    stopped(
        error,
        "the checkpoint runs/toy_crl_s0/checkpoints/160 cannot be written (File too large)",
        "at 120 steps is safe",
        GO_ON,
    )
    assert error.count("\n") == 1, error
    assert checkpoint.steps(RUN / "checkpoints") == [120, 100]
    monkeypatch.setattr(checkpoint.Saver, "save", save)
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160] and checkpoint.steps(RUN / "checkpoints") == [160, 120]


def test_a_directory_that_vanishes(run, monkeypatch, capfd):
    evaluated = display.Display.evaluated

    def vanish(display, env_steps, metrics):
        if env_steps == 140:
            RUN.rename("elsewhere")
        return evaluated(display, env_steps, metrics)

    monkeypatch.setattr(display.Display, "evaluated", vanish)
    assert run(*LONGER, "--checkpoint_interval", "0") == 1
    error = capfd.readouterr().err
    stopped(error, "runs/toy_crl_s0/metrics", "(No such file or directory)", "there is no checkpoint")
    Path("elsewhere").rename(RUN)
    monkeypatch.setattr(display.Display, "evaluated", evaluated)
    assert run(*LONGER) == 0


def test_a_directory_that_becomes_read_only(run, monkeypatch, capsys):
    opened = Path.open

    def refuse(path, mode="r", *args, **kwargs):
        if path.parent == RUN and mode == "a":
            raise PermissionError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert run(*LONGER) == 1
    stopped(capsys.readouterr().err, "metrics.csv cannot be written (Read-only file system)", GO_ON)
