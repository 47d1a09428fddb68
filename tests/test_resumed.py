"""What a resumed run keeps: how it began, the time it took, its films; and what it refuses."""

import json
import shutil
import types
from pathlib import Path

import pytest

from goalax.films import kept
from goalax.flags import FlagError
from goalax.host import checkpoint, display, session
from goalax.host.config import read_flags
from goalax.host.runs import read_metrics
from goalax.host.stored import read_resumed_flags
from tests.helpers import toy
from tests.helpers.runs import LONGER, RUN, envsteps

toy.register()


@pytest.fixture
def run(resumed_toy):
    """(flags) -> exit code."""
    return resumed_toy


def content(directory=RUN):
    return json.loads((directory / "config.json").read_text())


def test_how_it_began_and_went_on_are_both_told(run, monkeypatch):
    before = content()
    assert before["command"] and "resumed" not in before
    for number, budget in enumerate(("160", "200"), start=1):
        monkeypatch.setattr("sys.argv", ["training.py", "--resume", "--num_timesteps", budget])
        assert run("--resume", "--num_timesteps", budget, "--num_evals", "5") == 0
        after = content()
        assert {name: after[name] for name in ("command", "versions", "device", "git_commit")} == {
            name: before[name] for name in ("command", "versions", "device", "git_commit")
        }
        assert len(after["resumed"]) == number and after["flags"]["num_timesteps"] == int(budget)
        assert after["resumed"][-1]["command"] == ["training.py", "--resume", "--num_timesteps", budget]
        assert after["resumed"][-1].keys() == {"command", "versions", "device", "git_commit"}


def test_time_between_the_last_row_and_a_stop_counts(run, monkeypatch):
    clock, step = [0.0], display.Display.step

    def stop_at_once(display, env_steps):
        session_interrupts[0].signal = 15
        return step(display, env_steps)

    session_interrupts = []
    train = session.Session.run

    def seen(self, state, interrupt, on_steps):
        session_interrupts[:] = [interrupt]
        return train(self, state, interrupt, on_steps)

    def tick():
        clock[0] += 1000.0
        return clock[0]

    monkeypatch.setattr(session.Session, "run", seen)
    monkeypatch.setattr(session, "CHUNK_SECONDS", 0.0)  # one train step at a time
    flags = ("--resume", "--num_timesteps", "200", "--num_evals", "2")
    with monkeypatch.context() as patched:
        patched.setattr(display.Display, "step", stop_at_once)
        patched.setattr(session, "time", types.SimpleNamespace(monotonic=tick))
        assert run(*flags) == 143
    (stopped, *_), last = checkpoint.steps(RUN / "checkpoints"), read_metrics(RUN / "metrics.csv")[-1]
    assert 120 < stopped < 200 and last["training/envsteps"] == 120
    assert checkpoint.seconds_of(RUN / "checkpoints", stopped) == 1000
    assert run(*flags) == 0
    row = read_metrics(RUN / "metrics.csv")[-1]
    assert row["training/envsteps"] == 200
    assert 1000 < row["training/walltime"] - last["training/walltime"] < 1500
    assert checkpoint.seconds_of(RUN / "checkpoints", 200) == 0
    assert checkpoint.seconds_of(RUN / "checkpoints", 7) == 0  # there is none


def test_seeds_of_other_flags_are_not_resumed_together(tmp_path):
    first, second = tmp_path / "a_s0", tmp_path / "a_s1-2"
    flags, agent_flags = read_flags([])
    for directory, seed, rate in ((first, 0, 3e-4), (second, 1, 1e-2)):
        directory.mkdir()
        stored = {"flags": {**vars(flags), "seed": seed}, "agent_flags": {**vars(agent_flags), "critic_lr": rate}}
        (directory / "config.json").write_text(json.dumps(stored))
    argv = ["--resume", "--num_seeds", "2"]
    words = f"{second} was trained with another --critic_lr than {first}: resume each alone"
    with pytest.raises(FlagError, match=words):
        read_resumed_flags(argv, read_flags(argv)[0], [first, second])
    shutil.copy(first / "config.json", second / "config.json")
    assert read_resumed_flags(argv, read_flags(argv)[0], [first, second])[0].num_seeds == 2


def test_how_a_resumed_run_logs_is_judged_by_its_own_flags(tmp_path):
    argv = ["--resume", "--wandb_mode", "offline"]
    flags, agent_flags = read_flags([])

    def resumed(log_wandb):
        stored = {"flags": {**vars(flags), "log_wandb": log_wandb}, "agent_flags": vars(agent_flags)}
        (tmp_path / "config.json").write_text(json.dumps(stored))
        return read_resumed_flags(argv, read_flags(argv)[0], [tmp_path])[0]

    assert resumed(log_wandb=True).wandb_mode == "offline"
    with pytest.raises(FlagError, match="^--wandb_mode means nothing without --log_wandb: leave it out.$"):
        resumed(log_wandb=False)
    argv = ["--resume"]
    assert resumed(log_wandb=False).wandb_mode == "online"  # what is stored is not what was typed


def test_a_budget_that_is_behind_it_changes_nothing(run, capsys):
    before = content()
    assert run("--resume", "--num_timesteps", "100") == 2
    assert "--num_timesteps is too small: the run has 120 steps behind it already." in capsys.readouterr().err
    assert content() == before and envsteps() == [60, 100, 120]


def test_final_films_of_a_run_that_goes_on_become_those_of_their_steps(run):
    for name in kept.FINAL:
        (RUN / name).write_text("of 120 steps")
    assert not kept.missing(RUN)
    assert run("--resume") == 0  # there is nothing left to train
    assert not kept.missing(RUN)
    assert run(*LONGER) == 0
    assert kept.missing(RUN)
    assert [(RUN / f"policy_120.{end}").read_text() for end in ("html", "gif")] == ["of 120 steps"] * 2


def test_a_film_that_is_cut_short_is_missing(tmp_path):
    (tmp_path / "policy.html").write_text("whole")
    (tmp_path / "policy.gif.part").write_text("cut")
    assert kept.missing(tmp_path)
    Path(tmp_path / "policy.gif").write_text("whole")
    assert not kept.missing(tmp_path)
