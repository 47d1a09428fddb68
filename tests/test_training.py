"""Tests of whole runs in this process: what they write, resume, seeds, bad numbers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.host import checkpoint, display, session
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.host.runs import read_metrics
from tests.helpers import ROOT, toy
from tests.helpers.runs import rows

toy.register()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tiny command line in an empty folder: (flags) -> exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv: training.main([*toy.TINY, *argv])


def last_state(argv=(), directory="runs/toy_crl_s0"):
    """The leaves of the newest checkpoint of a run with the given flags."""
    train = make_run(*read_flags([*toy.TINY, *argv])).train
    template = jax.eval_shape(train.init, jax.random.PRNGKey(0))
    return jax.tree.leaves(checkpoint.restore(Path(directory) / "checkpoints", template))


def test_a_run_writes_what_it_says(run, capsys, tmp_path):
    assert run("--group_name", "g", "--exp_name", "x") == 0
    directory = tmp_path / "runs" / "g" / "x_s0"
    out = capsys.readouterr().out
    for name in ("config.json", "metrics.csv", "curves.png", "checkpoints"):
        assert (directory / name).exists() and f"runs/g/x_s0/{name}" in out
    table = read_metrics(directory / "metrics.csv")
    assert [row["training/envsteps"] for row in table] == [60, 100, 120]
    assert [row["training/gradient_steps"] for row in table] == [2, 6, 8]
    assert table[-1]["eval/avg_episode_length"] <= 10
    config = json.loads((directory / "config.json").read_text())
    assert config["flags"]["num_envs"] == 4 and config["agent_flags"]["h_dim"] == 8
    assert config["versions"]["jax"] == jax.__version__


def test_checkpoints_of_every_second_evaluation_and_of_the_last_one(run, monkeypatch):
    """Of seven, after 60, 80, ... and 180 steps."""
    saved, save = [], checkpoint.save

    def note(saver, state, step, seconds):
        saved.append(step)
        save(saver, state, step, seconds)

    monkeypatch.setattr(checkpoint, "save", note)
    assert run("--num_timesteps", "180", "--num_evals", "7", "--checkpoint_interval", "2") == 0
    steps = [row["training/envsteps"] for row in read_metrics(Path("runs/toy_crl_s0/metrics.csv"))]
    assert steps == [60, 80, 100, 120, 140, 160, 180]
    assert saved == [80, 120, 160, 180]


def test_nothing_is_overwritten(run, tmp_path):
    assert [run(), run(), run()] == [0, 0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "toy_crl_s0",
        "toy_crl_s0-2",
        "toy_crl_s0-3",
    ]
    assert rows("runs/toy_crl_s0") == rows("runs/toy_crl_s0-3")


def test_a_run_that_was_stopped_resumes_bit_for_bit(run, monkeypatch, capsys, tmp_path):
    assert run("--num_timesteps", "240") == 0
    straight, state = rows(), last_state()

    steps = []
    step = display.Display.step

    def stop_after_four(display, env_steps):
        steps.append(env_steps)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(display, env_steps)

    monkeypatch.setattr(session, "CHUNK_SECONDS", 0.0)  # one train step at a time
    monkeypatch.setattr(display.Display, "step", stop_after_four)
    assert run("--num_timesteps", "240") == 143
    assert "--resume --run_dir runs/toy_crl_s0-2" in capsys.readouterr().out
    assert len(rows("runs/toy_crl_s0-2")) == 1  # stopped between two evaluations
    assert run("--num_timesteps", "240", "--resume") == 0
    assert rows("runs/toy_crl_s0-2") == straight
    for a, b in zip(state, last_state(directory="runs/toy_crl_s0-2"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(run, tmp_path):
    flags = ["--num_timesteps", "40000", "--num_evals", "40"]
    assert run(*flags) == 0
    code = f"{toy.START} train.main({[*toy.TINY, *flags]})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL)
    killed, deadline = Path("runs/toy_crl_s0-2"), time.monotonic() + 120
    while len(read_metrics(killed / "metrics.csv")) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 4 <= len(read_metrics(killed / "metrics.csv")) < 40
    assert run("--resume", *flags) == 0
    assert rows(killed) == rows()
    for a, b in zip(last_state(), last_state(directory=killed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ctrl_c_exits_with_130(run, monkeypatch):
    step, signals = display.Display.step, [signal.SIGINT]

    def interrupt_once(display, env_steps):
        if signals:
            os.kill(os.getpid(), signals.pop())
        return step(display, env_steps)

    monkeypatch.setattr(display.Display, "step", interrupt_once)
    assert run() == 130
    assert checkpoint.steps(Path("runs/toy_crl_s0/checkpoints")) != []


@pytest.mark.slow
def test_resume_extends_a_finished_run_from_its_own_flags(run):
    assert run("--batch_size", "4") == 0
    assert (
        training.main(["--resume", "--run_dir", "runs/toy_crl_s0", "--num_timesteps", "200", "--num_evals", "5"]) == 0
    )
    table = read_metrics(Path("runs/toy_crl_s0/metrics.csv"))
    assert [row["training/envsteps"] for row in table][-1] == 200
    assert json.loads(Path("runs/toy_crl_s0/config.json").read_text())["flags"]["batch_size"] == 4


def test_resume_refuses_structural_changes(run, capsys):
    assert run() == 0
    assert run("--resume", "--batch_size", "16", "--critic_lr", "0.1") == 2
    assert "cannot change --batch_size, --critic_lr" in capsys.readouterr().err


def test_resume_falls_back_over_a_damaged_checkpoint(run):
    assert run() == 0
    folder = Path("runs/toy_crl_s0/checkpoints")
    newest, before = checkpoint.steps(folder)
    for file in (folder / str(newest) / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-20])
    with pytest.warns(UserWarning, match=f"{newest} is damaged"):
        assert run("--resume", "--num_timesteps", "160", "--num_evals", "5") == 0
    assert [row["training/envsteps"] for row in read_metrics(Path("runs/toy_crl_s0/metrics.csv"))][:2] == [60, before]


def test_a_flipped_bit_is_found(run):
    assert run() == 0
    folder = Path("runs/toy_crl_s0/checkpoints")
    newest, before = checkpoint.steps(folder)
    for path in (folder / str(newest) / "state").rglob("d/*"):  # some bytes of some files are never read
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{newest} is damaged"):
        assert int(last_env_steps(folder)) == before


def last_env_steps(folder):
    train = make_run(*read_flags(toy.TINY)).train
    return checkpoint.restore(folder, jax.eval_shape(train.init, jax.random.PRNGKey(0))).env_steps


def test_no_readable_checkpoint(run, capsys):
    assert run() == 0
    for file in Path("runs/toy_crl_s0/checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        assert run("--resume", "--num_timesteps", "160") == 2
    assert "no readable checkpoint" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(run, capsys):
    assert run("--critic_lr", "1e38", "--contrastive_loss_fn", "fb", "--energy_fn", "l2_squared") == 1
    error = capsys.readouterr().err
    assert "60 environment steps" in error and ("is nan" in error or "is inf" in error)
    assert "there is no checkpoint before it" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "flags"),
    [
        ("crl", toy.TINY),
        pytest.param("sac", [*toy.BASELINE, "--use_her"], marks=pytest.mark.table),
        ("td3", [*toy.BASELINE, "--use_her"]),
    ],
)
def test_seeds_of_one_program_equal_single_runs(agent, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [*flags, "--agent", agent, "--exp_name", "x"]
    assert training.main([*flags, "--num_seeds", "2", "--seed", "3"]) == 0
    assert training.main([*flags, "--seed", "4"]) == 0
    together, alone = rows("runs/x_s4"), rows("runs/x_s4-2")
    assert together[0].keys() == alone[0].keys()
    for name, value in alone[0].items():  # later, float32 reordering may grow
        np.testing.assert_allclose(float(together[0][name]), float(value), rtol=1e-4, atol=1e-4, err_msg=name)
    assert rows("runs/x_s3")[0] != together[0]
    config = json.loads(Path("runs/x_s4/config.json").read_text())["flags"]
    assert (config["seed"], config["num_seeds"]) == (4, 1)


def test_an_agent_chooses_its_law_of_goals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    losses = []
    for strategy in ("uniform", "goal_law"):
        flags = ["--agent", "gcbc", "--discounting", "0.1", "--her_strategy", strategy, "--exp_name", strategy]
        assert training.main([*toy.BASELINE, *flags]) == 0
        losses.append(rows(f"runs/{strategy}_s0")[0]["training/actor_loss"])
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_seeds_are_resumed_together_and_alone(run):
    assert run("--num_seeds", "2") == 0
    longer = ("--num_timesteps", "160", "--num_evals", "4")
    assert run("--num_seeds", "2", "--resume", *longer) == 0
    assert run("--seed", "1", "--resume", "--num_timesteps", "200", "--num_evals", "8") == 0
    steps = [row["training/envsteps"] for row in read_metrics(Path("runs/toy_crl_s1/metrics.csv"))]
    assert (steps[-1], steps == sorted(set(steps))) == (200, True)
