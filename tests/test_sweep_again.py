"""Tests of what a sweep takes up again: workers that a signal ended, full disks; and of a terminal that closes."""

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

from goalax.commands import sweep as script
from goalax.host.runs import read_metrics
from tests.helpers import ROOT, toy

toy.register()
TINY = {name.removeprefix("--"): {"value": value} for name, value in zip(toy.TINY[::2], toy.TINY[1::2], strict=True)}
TWO = {"discounting": {"values": [0.8, 0.9]}}

# A program that leaves what a training leaves, but trains nothing. It writes down that it was started, and ends as
# `ends` says of its number: at its first start by the first exit code (a signal, if it is negative), and so on; then 0.
WORKER = """
import json, os, pathlib, sys
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
number, how = flags["exp_name"].split("_")[1][-1], "--resume" in sys.argv
begun = pathlib.Path("started").read_text().count(number) if pathlib.Path("started").exists() else 0
with open("started", "a") as file:
    print(number, "resumed" if how else "new", file=file)
codes, saves = json.loads(pathlib.Path("ends").read_text())
run = pathlib.Path("runs", f"{flags['exp_name']}_s{flags['seed']}")
(run / "checkpoints" / ("10" if saves else "")).mkdir(parents=True, exist_ok=how)
(run / "config.json").write_text("{}")
(run / "metrics.csv").write_text("envsteps,eval/episode_success,eval/time_at_goal\\n1,0.5,0\\n")
print("said last", flush=True)
code = codes[number][begun] if begun < len(codes.get(number, [])) else 0
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""

# Works until it is asked to stop, and saves; or until there is a file `go`.
WAITING = """
import os, pathlib, signal, sys, time
def save(*_):
    time.sleep(0.3)
    pathlib.Path("saved").touch()
    os._exit(143)
signal.signal(signal.SIGTERM, save)
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
run = pathlib.Path("runs", f"{flags['exp_name']}_s0")
run.mkdir(parents=True)
(run / "config.json").write_text("{}")
(run / "metrics.csv").write_text("envsteps,eval/episode_success,eval/time_at_goal\\n1,0.5,0\\n")
pathlib.Path("started").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'src'}")
    return tmp_path


def write(method, parameters, program=WORKER, **more):
    Path("train.py").write_text(program)
    content = {"program": "train.py", "method": method, "parameters": TINY | parameters, **more}
    Path("s.yml").write_text(yaml.safe_dump(content))


def ends(codes, saves=True):
    """How the programs end; saves: whether they leave a checkpoint."""
    Path("ends").write_text(json.dumps([codes, saves]))


def started():
    """What was started since this was last asked."""
    lines = Path("started").read_text().splitlines() if Path("started").exists() else []
    known = int(Path("seen").read_text()) if Path("seen").exists() else 0
    Path("seen").write_text(str(len(lines)))
    return lines[known:]


def states():
    with open("sweeps/s/sweep.csv", newline="") as file:
        return [row["state"] for row in csv.DictReader(file)]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("code", [-signal.SIGKILL, 128 + signal.SIGTERM])
def test_a_worker_that_a_signal_ended_is_resumed_behind_the_others(folder, capsys, code):
    write("grid", TWO)
    ends({"0": [code]})
    assert script.main(["s.yml"]) == 0
    assert started() == ["0 new", "1 new", "0 resumed"] and states() == ["finished", "finished"]
    what = {9: "signal 9 (Killed)", 15: "signal 15 (Terminated)"}[-code if code < 0 else code - 128]
    assert f"run 0 stopped: {what} ended it" in capsys.readouterr().out


def test_a_worker_that_signals_end_again_and_again_waits_for_the_next_call(folder, capsys):
    write("grid", TWO)
    ends({"0": [-9] * 4})
    assert script.main(["s.yml"]) == 0
    assert started() == ["0 new", "1 new", "0 resumed"] and states() == ["stopped", "finished"]
    assert "The same command goes on with run 0.\n" in capsys.readouterr().out
    assert script.main(["s.yml"]) == 0
    assert started() == ["0 resumed"] * 2 and states() == ["stopped", "finished"]
    assert script.main(["s.yml"]) == 0
    assert started() == ["0 resumed"] and states() == ["finished", "finished"]
    assert "goes on with" not in capsys.readouterr().out.split("run 0 finished")[1]


def test_a_worker_that_was_killed_before_its_first_checkpoint_begins_anew(folder):
    write("grid", {})
    ends({"0": [-9]}, saves=False)
    assert script.main(["s.yml"]) == 0
    assert started() == ["0 new"] * 2 and states() == ["finished"]
    assert len(list(Path("runs").iterdir())) == 2


def test_what_failed_behind_a_checkpoint_is_tried_once_by_every_call(folder, capsys):
    """A full disk is mended between two calls; a run that diverges ends at the same place again."""
    write("grid", TWO)
    ends({"0": [1, 1]})
    for first in (["0 new", "1 new"], ["0 resumed"]):
        assert script.main(["s.yml"]) == 0
        assert started() == first and states() == ["failed", "finished"]
        out = capsys.readouterr().out
        assert "run 0 failed: said last" in out and "The same command goes on with run 0.\n" in out
    assert script.main(["s.yml"]) == 0
    assert started() == ["0 resumed"] and states() == ["finished", "finished"]
    assert script.main(["s.yml"]) == 0 and started() == []
    assert all(job["reason"] == "" for job in json.loads(Path("sweeps/s/sweep.json").read_text())["jobs"])


@pytest.mark.parametrize(("code", "saves"), [(2, True), (1, False)])
def test_wrong_flags_and_failures_without_a_checkpoint_are_not_tried_again(folder, capsys, code, saves):
    write("grid", TWO)
    ends({"0": [code]}, saves)
    for first in (["0 new", "1 new"], []):
        assert script.main(["s.yml"]) == 0
        assert started() == first and states() == ["failed", "finished"]
        assert "goes on with" not in capsys.readouterr().out


@pytest.mark.parametrize(("reason", "again"), [("Killed", ["0 resumed"]), ("it logged no number as x", [])])
def test_a_sweep_json_of_before_is_read(folder, reason, again):
    """It does not say by which exit code a run failed."""
    write("grid", {})
    ends({"0": [-9, -9]})
    assert script.main(["s.yml"]) == 1 and started()
    content = json.loads(Path("sweeps/s/sweep.json").read_text())
    (job,) = content["jobs"]
    del job["code"]
    job |= {"state": "failed", "reason": reason}
    Path("sweeps/s/sweep.json").write_text(json.dumps(content))
    assert script.main(["s.yml"]) == (0 if again else 1)
    assert started() == again and states() == ["finished" if again else "failed"]


@pytest.mark.parametrize("code", [[1], "1", True])
def test_an_exit_code_that_is_none_is_a_damaged_file(folder, capsys, code):
    write("grid", {})
    ends({})
    assert script.main(["s.yml"]) == 0
    content = json.loads(Path("sweeps/s/sweep.json").read_text())
    content["jobs"][0]["code"] = code
    Path("sweeps/s/sweep.json").write_text(json.dumps(content))
    assert script.main(["s.yml"]) == 2
    assert "sweep.json cannot be read; choose another --out." in capsys.readouterr().err


def test_a_count_holds_back_what_would_be_tried_again(folder):
    write("grid", TWO)
    ends({"1": [1]})
    assert script.main(["s.yml"]) == 0 and started()
    before = Path("sweeps/s/sweep.json").read_text()
    assert script.main(["s.yml", "--count", "1"]) == 0
    assert started() == [] and Path("sweeps/s/sweep.json").read_text() == before


def test_bayes_does_not_count_what_goes_on_as_failed(folder):
    write("bayes", {"critic_lr": {"min": 1e-4, "max": 1e-2}})
    ends({"0": [-9, -9]})
    assert script.main(["s.yml", "--count", "2"]) == 0
    assert started() == ["0 new", "1 new", "0 resumed"] and states() == ["stopped", "finished"]
    assert script.main(["s.yml", "--count", "2"]) == 0
    assert started() == ["0 resumed"] and states() == ["finished", "finished"]


@pytest.mark.parametrize(("code", "first"), [(-9, ["0 new", "1 new", "0 resumed"]), (1, ["0 new", "1 new"])])
def test_a_shared_search_hears_how_it_ended_once_that_is_sure(folder, code, first):
    import optuna

    write("grid", TWO)
    ends({"0": [code, code][: 2 if code < 0 else 1], "1": [2]})

    def trials():
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("journal.log"))
        return [trial.state.name for trial in optuna.load_study(study_name="s", storage=storage).trials]

    argv = ["s.yml", "--storage", "journal.log"]
    assert script.main(argv) == 1
    assert started() == first and trials() == ["RUNNING", "FAIL"]
    assert script.main(argv) == 0
    assert started() == ["0 resumed"] and trials() == ["COMPLETE", "FAIL"]


@pytest.fixture
def handlers():
    """Those of before are back after the test, in which a SIGHUP that nobody listens to is lost."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*names):
    """Sends signals to this process once a program works, and then lets that go to its end."""

    here = Path.cwd()  # the test may have left it when the program is to end

    def work():
        wait_for((here / "started").exists)
        for name in names:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(0.1)
        time.sleep(1.5)
        (here / "go").touch()

    threading.Thread(target=work, daemon=True).start()


@pytest.mark.parametrize("signals", [["SIGHUP"], ["SIGHUP", "SIGHUP"], ["SIGTERM", "SIGHUP"]], ids="+".join)
def test_a_terminal_that_closes_stops_a_sweep_as_sigterm_does(folder, handlers, capsys, signals):
    """Shells pass on the SIGHUP that they get, and systemd sends one behind its SIGTERM: that is one wish, not two."""
    write("grid", {}, program=WAITING)
    script.start()
    send(*signals)
    try:
        code = script.main(["s.yml"])
    except KeyboardInterrupt as second:  # it would end pytest
        raise AssertionError("the programs were not waited for") from second
    assert code == 130
    assert Path("saved").exists() and states() == ["stopped"]
    assert "Interrupted; the same command goes on from here." in capsys.readouterr().out


def test_a_sweep_under_nohup_outlives_its_terminal(folder, handlers):
    write("grid", {}, program=WAITING)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    script.start()
    send("SIGHUP")
    assert script.main(["s.yml"]) == 0
    assert states() == ["finished"] and not Path("saved").exists()


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_from_its_checkpoint(folder):
    longer = {"num_timesteps": {"value": 40_000}, "num_evals": {"value": 40}, "checkpoint_interval": {"value": 1}}
    program = f"import os; open('pid', 'w').write(str(os.getpid())); {toy.START} sys.exit(train.main())"
    write("grid", longer, program=program)

    def rows():
        return [row for path in Path("runs").glob("s_000_*_s0/metrics.csv") for row in read_metrics(path)]

    def kill():
        wait_for(lambda: len(rows()) >= 5, 500)
        before.extend(rows()[:3])  # a checkpoint is behind these, at least
        os.kill(int(Path("pid").read_text()), signal.SIGKILL)

    before = []
    threading.Thread(target=kill, daemon=True).start()
    assert script.main(["s.yml"]) == 0
    assert states() == ["finished"] and len(list(Path("runs").iterdir())) == 1
    after = rows()
    assert len(after) == 40 and before and after[: len(before)] == before
