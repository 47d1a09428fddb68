"""Tests of several processes that train together: equal to one process, one writes, all stop together, wrong flags."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from goalax.commands import train as training
from goalax.flags import FlagError
from goalax.host import checkpoint, devices
from goalax.host.config import Flags
from goalax.host.runs import read_metrics
from tests.helpers import ROOT, toy
from tests.helpers.runs import assert_equal_runs

toy.register()


def start(folder, *flags, each=1):
    """Two processes of `each` devices, which train in the folder; `finish` waits for them."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = re.sub(r"(device_count)=\d+", rf"\1={each}", environment["XLA_FLAGS"])
    hosts = ["--coordinator_address", address, "--num_processes", "2", "--process_id"]
    code = f"{toy.START} sys.exit(train.main())"
    command = [sys.executable, "-c", code, *toy.TINY, *flags, *hosts]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, str(index)], cwd=folder, env=environment, **pipes) for index in range(2)]


def finish(processes, code):
    """Waits for the processes, which must end with the exit code; returns their standard outputs."""
    try:
        printed = [process.communicate(timeout=250) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [code, code], printed
    return [out for out, _ in printed]


def stop(processes, metrics, until):
    """Asks the second process to stop as soon as the first has written a row past so many steps."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not any(row["training/envsteps"] > until for row in read_metrics(metrics)):
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)


@pytest.mark.slow
def test_two_processes_equal_one_with_two_devices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, other_out = finish(start(tmp_path, "--exp_name", "hosts"), 0)
    assert "4 environments on 2 devices" in out and "Finished" in out
    assert "steps" not in other_out  # only what libraries print
    assert [path.name for path in Path("runs").iterdir()] == ["hosts_s0"]
    assert training.main([*toy.TINY, "--num_devices", "2", "--exp_name", "devices"]) == 0
    directory = Path("runs/hosts_s0")
    assert_equal_runs(directory, Path("runs/devices_s0"))

    # They go on together until one of them is asked to stop; then one process goes on from there on one device.
    name = ("--exp_name", "hosts", "--resume", "--checkpoint_interval", "0")
    processes = start(tmp_path, *name, "--num_timesteps", "1e9", "--num_evals", "1000000")
    stop(processes, directory / "metrics.csv", until=120)
    out, _ = finish(processes, 143)
    assert "To continue exactly here: python training.py --resume --run_dir runs/hosts_s0" in out
    stopped = checkpoint.steps(directory / "checkpoints")[0]
    last = read_metrics(directory / "metrics.csv")[-1]["training/envsteps"]
    assert stopped >= last > 120
    assert training.main([*toy.TINY, *name, "--num_timesteps", str(stopped + 20)]) == 0
    assert read_metrics(directory / "metrics.csv")[-1]["training/envsteps"] == stopped + 20


@pytest.mark.table
def test_seeds_on_hosts_whose_devices_share_environments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--num_seeds", "2", "--num_devices", "4")
    finish(start(tmp_path, *flags, "--exp_name", "hosts", each=2), 0)
    assert training.main([*toy.TINY, "--num_seeds", "2", "--exp_name", "alone"]) == 0
    for seed in (0, 1):
        assert_equal_runs(Path(f"runs/hosts_s{seed}"), Path(f"runs/alone_s{seed}"))
    finish(start(tmp_path, *flags, "--exp_name", "hosts", "--resume", "--num_timesteps", "140", each=2), 0)
    assert training.main([*toy.TINY, "--seed", "1", "--exp_name", "hosts", "--resume", "--num_timesteps", "160"]) == 0
    steps = [
        [row["training/envsteps"] for row in read_metrics(Path(f"runs/hosts_s{seed}/metrics.csv"))] for seed in (0, 1)
    ]
    assert [of_seed[-1] for of_seed in steps] == [140, 160]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--num_processes 2", "--coordinator_address and --process_id must be given too"),
        ("--coordinator_address here:1 --process_id 0", "--num_processes must be given too"),
        ("--coordinator_address here --num_processes 2 --process_id 0", "--coordinator_address is 'here'; it must be"),
        ("--coordinator_address localhost:1 --num_processes 2 --process_id 1", "where no process 0 answers ("),
        ("--coordinator_address no.such.invalid:1 --num_processes 2 --process_id 1", "where no process 0 answers ("),
        ("--coordinator_address h:1 --num_processes 2 --process_id 2", "--process_id is 2; with --num_processes 2 it"),
    ],
)
def test_wrong_flags_are_one_sentence(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "START_SECONDS", 0)
    monkeypatch.setattr(devices, "NAME_SECONDS", 0)
    assert training.main([*toy.TINY, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), OSError(113, "No route to host")])
def test_a_host_that_boots_is_waited_for(monkeypatch, error):
    asked = []

    def connect(address, timeout):
        asked.append(address)
        if len(asked) < 3:
            raise error
        return socket.socket()

    monkeypatch.setattr(devices.socket, "create_connection", connect)
    monkeypatch.setattr(devices.time, "sleep", lambda seconds: None)
    devices.wait_for("[::1]", 12345)
    assert asked == [("::1", 12345)] * 3  # brackets are no part of it
    del asked[:]
    monkeypatch.setattr(devices, "NAME_SECONDS", -1)
    with pytest.raises(FlagError, match="where no process 0 answers"):
        devices.wait_for("job-0", 12345)


def test_an_error_without_words_is_told_by_its_type(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(devices.jax.distributed, "initialize", refuse)
    flags = Flags(coordinator_address="localhost:1", num_processes=2, process_id=0)
    with pytest.raises(FlagError, match="^--coordinator_address is 'localhost:1', but RuntimeError.$"):
        devices.join(flags)
