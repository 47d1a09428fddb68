"""Tests of the loggers: the real wandb offline, read back from its file; a wandb that fails; a server that is away.

None of them has an account, and none opens a connection to anything but this machine.
"""

import json
import os
import shutil
import sys
import time
import types
from pathlib import Path

import psutil
import pytest
import wandb

from goalax.commands import train as training
from goalax.films import kept
from goalax.host import checkpoint, loggers, session
from goalax.host.runs import read_metrics
from tests.helpers import toy
from tests.helpers.logs import Server, read_tensorboard, read_wandb

toy.register()
FIRST = Path("runs/toy_crl_s0")
SMALL = {"project_name": "p", "group_name": None, "env_name": "toy", "agent": "crl"}  # what a logger reads of flags


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a tiny command line in an empty folder, where wandb finds no account: (flags) -> exit code."""
    monkeypatch.chdir(tmp_path)
    for name in ("API_KEY", "MODE", "BASE_URL", "RUN_ID", "SWEEP_ID"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("NETRC", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked for something"))
    return lambda *argv: training.main([*toy.TINY, *argv])


@pytest.fixture
def account(run, monkeypatch):
    """(address) -> an account at a server there; a wandb that was set up before would look for another server."""

    def choose(address):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        wandb.teardown()

    yield choose
    wandb.teardown()


@pytest.fixture
def fake_wandb(monkeypatch):
    """Puts a wandb in the place of the real one whose `log` raises at its second call; the calls so far."""
    calls = []

    def log(row, **_):
        calls.append(row)
        if len(calls) == 2:
            raise RuntimeError("no answer\nfrom the server")

    class Run(types.SimpleNamespace):
        def __getattr__(self, name):
            return lambda *_, **__: None

    fake = types.SimpleNamespace(
        init=lambda **_: Run(id="id", log=log, summary={}),
        setup=lambda *_: None,
        Settings=dict,
        Artifact=lambda *_, **__: Run(),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return calls


def test_wandb_is_not_touched_without_the_flag(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    assert run() == 0
    assert not (FIRST / "wandb").exists()


def fake_film(_run, _recording, steps, directory, _display, last):
    """Stands for the renderer, which has its own tests and cannot draw `toy`."""
    paths = [directory / name for name in (("policy.html", "policy.gif") if last else (f"policy_{steps}.html",))]
    for path in paths:
        path.write_text(f"{path.name} after {steps}")
    return paths


def test_an_offline_run_has_everything(run, monkeypatch):
    monkeypatch.setattr(kept, "film", fake_film)
    interval = ("--visualization_interval", "2")
    assert run("--log_wandb", "--wandb_mode", "offline", "--project_name", "p", "--exp_name", "x", *interval) == 0
    directory = Path("runs/x_s0")
    table, config = read_metrics(directory / "metrics.csv"), json.loads((directory / "config.json").read_text())
    logged = read_wandb(directory)
    assert (logged.run.project, logged.run.display_name, logged.run.run_group) == ("p", "x_s0", "")
    assert [{name: row[name] for name in table[0]} for row in logged.history] == table
    assert logged.axes == {"*": "_step"}
    expected = {**config["flags"], **config["agent_flags"], "versions": config["versions"]}
    assert {name: logged.config[name] for name in expected} == expected
    for name, value in table[-1].items():
        assert logged.summary[name] == value
    assert logged.summary["eval/episode_success_best"] == max(row["eval/episode_success"] for row in table)
    assert logged.exit_code == 0

    contents = [
        [(item.path, Path(item.local_path).read_bytes()) for item in a.manifest.contents] for a in logged.artifacts
    ]
    assert [artifact.type for artifact in logged.artifacts] == ["policy", "policy", "checkpoint"]
    assert [[path for path, _ in content] for content in contents[:2]] == [
        ["policy_100.html"],
        ["policy.gif", "policy.html"],
    ]
    assert all((directory / path).read_bytes() == data for content in contents for path, data in content)
    saved = {str(p.relative_to(directory)) for p in (directory / "checkpoints" / "120").rglob("*") if p.is_file()}
    assert {path for path, _ in contents[2]} == {"config.json", *saved}
    metadata = [json.loads(artifact.metadata) for artifact in logged.artifacts]
    assert [data["step"] for data in metadata] == [100, 120, 120]
    assert metadata[2] == {
        "env": "toy",
        "agent": "crl",
        "step": 120,
        "success": table[-1]["eval/episode_success"],
        "success_any": table[-1]["eval/episode_success_any"],
    }
    assert [sorted(artifact.aliases) for artifact in logged.artifacts] == [
        ["latest", "step-100"],
        ["final", "latest", "step-120"],
        ["final", "latest", "step-120"],
    ]


def test_without_an_account_it_warns_once_and_every_seed_has_all_of_it_offline(run, capsys):
    # Three seeds and no other number: their program is compiled for `toy_runs` already.
    assert run("--log_wandb", "--log_tensorboard", "--num_seeds", "3", "--group_name", "g") == 0
    assert capsys.readouterr().out.count("wandb knows no account here") == 1
    directories = [Path(f"runs/g/toy_crl_s{seed}") for seed in range(3)]
    logged = [read_wandb(directory) for directory in directories]
    assert len({each.run.run_id for each in logged}) == 3
    for seed, (directory, each) in enumerate(zip(directories, logged, strict=True)):
        table = read_metrics(directory / "metrics.csv")
        assert [{name: row[name] for name in table[0]} for row in each.history] == table
        assert (each.config["seed"], each.run.run_group, each.run.display_name) == (seed, "g", f"toy_crl_s{seed}")
        check_tensorboard(directory)


def test_updates_on_a_dataset_lie_side_by_side(run, tmp_path):
    """There the environment makes no step: wandb would draw all rows at 0. Steps follow behind them."""
    (tmp_path / "config.json").write_text(json.dumps({"flags": SMALL, "agent_flags": {}, "versions": {}}))
    logger = loggers.Wandb(tmp_path, "offline", None)
    names = "training/envsteps", "training/offline_updates", "eval/x"
    table = [dict(zip(names, values, strict=True)) for values in ((0, 20, 1), (0, 40, 2), (60, 40, 3), (120, 40, 4))]
    for row in table:
        logger.log(row)
    logger.run.finish()
    logged = read_wandb(tmp_path)
    assert [row[logged.axes["*"]] for row in logged.history] == [20, 40, 100, 160]
    assert [{name: row[name] for name in table[0]} for row in logged.history] == table


def check_tensorboard(directory):
    """Its scalars are those of metrics.csv, each once."""
    table = read_metrics(directory / "metrics.csv")
    expected = [(row["training/envsteps"], name, value) for row in table for name, value in row.items()]
    scalars = read_tensorboard(directory)
    assert sorted(scalar[:2] for scalar in scalars) == sorted(scalar[:2] for scalar in expected)
    values = {scalar[:2]: scalar[2] for scalar in expected}
    assert all(value == pytest.approx(values[step, name], rel=1e-6) for step, name, value in scalars)


def test_a_resumed_run_keeps_its_id_and_goes_on(run):
    both = ("--log_wandb", "--wandb_mode", "offline", "--log_tensorboard")
    assert run(*both) == 0
    before = read_wandb(FIRST)
    (folder,) = FIRST.glob("wandb/offline-run-*")
    time.sleep(1)  # a folder is named by second and id
    assert run(*both, "--resume", "--num_timesteps", "160", "--num_evals", "4") == 0
    (later,) = set(FIRST.glob("wandb/offline-run-*")) - {folder}
    after = read_wandb(FIRST, later.name)
    assert before.run.run_id == after.run.run_id
    steps = [[row["_step"] for row in part.history] for part in (before, after)]
    assert steps == [[60, 100, 120], [160]]
    assert all(row["_step"] == row["training/envsteps"] for part in (before, after) for row in part.history)
    assert {row["_step"]: row["eval/final_dist"] for part in (before, after) for row in part.history} == {
        row["training/envsteps"]: row["eval/final_dist"] for row in read_metrics(FIRST / "metrics.csv")
    }
    check_tensorboard(FIRST)


@pytest.mark.slow
def test_without_a_server_it_warns_once_and_goes_on_offline(run, account, capsys, monkeypatch):
    account("http://127.0.0.1:9")  # nobody listens on the port of `discard`
    monkeypatch.setattr(loggers, "START_SECONDS", 8)  # the offline run that follows must start in it, too
    assert run("--log_wandb") == 0
    out = capsys.readouterr().out
    assert out.count("wandb cannot be reached") == 1 and "wandb failed" not in out
    assert len(read_wandb(FIRST).history) == 3


def test_a_wandb_that_fails_in_the_middle_warns_once(run, capsys, fake_wandb):
    assert run("--log_wandb", "--wandb_mode", "offline") == 0
    out = capsys.readouterr().out
    assert out.count("wandb failed (no answer): training goes on without it") == 1
    assert len(fake_wandb) == 2 and len(read_metrics(FIRST / "metrics.csv")) == 3
    assert checkpoint.steps(FIRST / "checkpoints")[0] == 120


def kill_wandb(*_):
    """Stands for the renderer, too: it is called after an evaluation."""
    for child in psutil.Process().children(recursive=True):
        if "wandb" in child.name():
            child.kill()
            child.wait()
    return []


def test_a_wandb_that_dies_in_the_middle_warns_once(run, capsys, monkeypatch):
    monkeypatch.setattr(kept, "film", kill_wandb)
    assert run("--log_wandb", "--wandb_mode", "offline", "--visualization_interval", "1") == 0
    out = capsys.readouterr().out
    assert out.count("wandb failed (") == out.count("training goes on without it") == 1
    assert len(read_metrics(FIRST / "metrics.csv")) == 3 and checkpoint.steps(FIRST / "checkpoints")[0] == 120


@pytest.mark.slow
def test_a_server_that_goes_away_in_the_middle_delays_the_end_by_a_few_seconds(run, account, capsys, monkeypatch):
    server = Server()
    account(server.url)
    monkeypatch.setattr(loggers, "END_SECONDS", 3)

    def stop(*_):
        server.wait_for("file_stream")
        server.close()
        return []

    monkeypatch.setattr(kept, "film", stop)
    started = time.monotonic()
    assert run("--log_wandb", "--visualization_interval", "2") == 0
    assert time.monotonic() - started < 60
    out = capsys.readouterr().out
    assert f"wandb shows this at {server.url}/somebody/goalax/runs/" in out
    assert out.count("wandb failed (") == 1 and len(read_metrics(FIRST / "metrics.csv")) == 3


def test_a_failed_run_is_marked_as_failed(run, monkeypatch):
    monkeypatch.setattr(session, "nonfinite_parameters", lambda _: 1)
    assert run("--log_wandb", "--wandb_mode", "offline") == 1
    assert read_wandb(FIRST).exit_code == 1


def test_a_run_without_goals_ends_well(tmp_path):
    (tmp_path / "metrics.csv").write_text("training/envsteps,eval/episode_reward\n60,3.5\n")
    logger, codes, summary = loggers.Wandb.__new__(loggers.Wandb), [], {}
    logger.directory = tmp_path
    logger.run = types.SimpleNamespace(summary=summary, finish=lambda exit_code: codes.append(exit_code))
    logger.finish(True)
    assert codes == [0] and summary == {}


def test_a_resumed_run_is_in_tensorboard_without_the_rows_that_it_was_resumed_before(run):
    assert run("--log_tensorboard") == 0
    shutil.rmtree(FIRST / "checkpoints" / "120")
    assert run("--log_tensorboard", "--resume", "--num_timesteps", "160", "--num_evals", "2") == 0
    assert [row["training/envsteps"] for row in read_metrics(FIRST / "metrics.csv")] == [60, 100, 160]
    check_tensorboard(FIRST)


def test_a_full_disk_ends_tensorboard_with_one_sentence(run, capsys, monkeypatch):
    full = []

    def fill(*_):
        """Stands for the renderer, which is called after an evaluation: from now on the disk is full for this file."""
        (events,) = [file for file in psutil.Process().open_files() if "tfevents" in file.path] or [None]
        if events is not None:
            with open("/dev/full", "wb") as device:
                os.dup2(device.fileno(), events.fd)
            full.append(Path(events.path))
        return []

    monkeypatch.setattr(kept, "film", fill)
    assert run("--log_tensorboard", "--visualization_interval", "1") == 0
    out = capsys.readouterr().out
    assert out.count("TensorBoard failed ([Errno 28] No space left on device): training goes on without it") == 1
    assert len(full) == 1 and {step for step, _, _ in read_tensorboard(FIRST)} == {60}
    assert len(read_metrics(FIRST / "metrics.csv")) == 3 and checkpoint.steps(FIRST / "checkpoints")[0] == 120
