"""The results queue on toy rows: order, kills, a failing row, two queues at once, a file that is being edited."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from goalax.commands import results as command
from goalax.host.lock import take
from goalax.host.runs import read_metrics
from goalax.study import results
from tests.helpers import toy
from tests.helpers.queue import FLAGS, TRAIN, document, folder_of, kept, leave, rows, write

toy.register()

QUEUE = (
    f"{toy.START} from goalax.commands import results; results.Queue.command = {TRAIN!r}; sys.exit(results.main([]))"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return folder_of(tmp_path, monkeypatch)


@pytest.mark.slow
def test_rows_are_trained_in_order_and_once(folder, capsys):
    write(folder, "--agent gcbc --num_seeds 2", "--agent qrl --components 2")
    first, second = rows(folder)
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert said.index(first.command) < said.index(second.command)
    names = [f"{first.name}_s0", f"{first.name}_s1", f"{second.name}_s0"]
    assert kept(folder) == sorted(names)
    for name in names:
        assert {path.name for path in (folder / "benchmarks/results" / name).iterdir()} == {
            "config.json",
            "metrics.csv",
        }
    text = document(folder)
    assert text.startswith("a\n") and text.endswith("b\n") and "old" not in text and "not run" not in text
    assert first.command in text and "| `--agent qrl" in text
    assert "![learning curves](curves/one.png)" in text and Image.open(folder / "docs/curves/one.png").width > 500
    assert command.main([]) == 0
    assert "output goes to" not in capsys.readouterr().out


@pytest.mark.slow
def test_seeds_that_come_one_by_one_are_kept_one_by_one(folder, capsys, monkeypatch):
    write(folder, "--agent gcbc --num_seeds 2 --seed 3", "--agent qrl")
    path = folder / "benchmarks/results/rows.yml"
    together = [row.name for row in rows(folder)]
    path.write_text(path.read_text() + "  one_by_one: true\n")
    row, other = rows(folder)
    assert [row.name, other.name] == together, "how seeds are trained is not what they learn"
    first, second = row.programs
    run = command.Queue.run

    def run_one(queue, program):
        run(queue, program)
        queue.stop()

    with monkeypatch.context() as patch:
        patch.setattr(command.Queue, "run", run_one)
        assert command.main([]) == 130
    assert kept(folder) == [f"{row.name}_s3"] and "| 1 of 2 | 120 |" in document(folder)
    queue = command.Queue(command.ResultsConfig(), "results.py")
    assert queue.is_finished(first) and not queue.is_finished(row) and queue.next() == second
    assert command.main([]) == 0
    assert kept(folder) == sorted([f"{row.name}_s3", f"{row.name}_s4", f"{other.name}_s0"])
    assert "1 of 2" not in document(folder) and "not run" not in document(folder)
    said = capsys.readouterr().out
    assert "--num_seeds 2 --seed 3" in said and said.count("--seed 3 --num_seeds 1;") == 1
    for seed in (3, 4):
        content = json.loads((folder / f"benchmarks/results/{row.name}_s{seed}/config.json").read_text())
        assert (content["flags"]["seed"], content["flags"]["num_seeds"]) == (seed, 1)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_row_that_was_stopped_says_where(one_by_one, stopped, folder):
    write(folder, "--agent gcbc --num_seeds 2")
    path = folder / "benchmarks/results/rows.yml"
    path.write_text(path.read_text() + f"  one_by_one: {one_by_one}\n")
    (row,) = rows(folder)
    leave(folder, row, [{"training/envsteps": steps, "training/gradient_steps": 0} for steps in (40, 80)])
    here = folder / "runs/results"
    here.mkdir(parents=True)
    for seed in (0, 1) if not one_by_one else (stopped,):
        (folder / f"benchmarks/results/{row.name}_s{seed}").rename(here / f"{row.name}_s{seed}")
    for other in (folder / "benchmarks/results").glob("*_s*"):
        shutil.rmtree(other)
    assert command.Queue(command.ResultsConfig(), "results.py").state(row) == "stopped at 80 steps"


def test_a_row_on_a_dataset_that_was_stopped_says_at_which_update(folder, monkeypatch):
    write(folder, "--agent gcbc --dataset x.npz --offline_steps 90 --num_timesteps 0")
    (row,) = rows(folder)
    table = [{"training/envsteps": 0, "training/offline_updates": updates} for updates in (40, 80)]
    monkeypatch.setattr(results, "newest_directories", lambda _: [folder])
    monkeypatch.setattr(results.runs, "read_metrics", lambda _: table)
    assert command.Queue(command.ResultsConfig(), "results.py").state(row) == "stopped at 80 updates"


def test_a_row_waits_for_the_training_of_a_queue_that_was_killed(folder, capsys, monkeypatch):
    """It takes its time to save, and holds the log of the row until then."""
    write(folder, "--agent gcbc")
    (row,) = rows(folder)
    queue, log = command.Queue(command.ResultsConfig(), "results.py"), folder / f"runs/results/{row.name}.log"
    log.parent.mkdir(parents=True)
    held = log.open("a")
    assert take(held)
    threading.Timer(0.5, held.close).start()
    monkeypatch.setattr(queue, "call", lambda line, output: 1 if held.closed else pytest.fail("it did not wait"))
    queue.run(row)
    assert capsys.readouterr().out.count("still saves its state") == 1


@pytest.mark.slow
def test_a_row_that_fails_does_not_stop_the_others(folder, capsys):
    write(folder, "--agent gcbc --policy_lr 1e38", "--agent gcbc")
    bad, good = rows(folder)
    assert command.main([]) == 1
    assert kept(folder) == [f"{good.name}_s0"]
    assert "Training stopped at" in capsys.readouterr().err and "failed: " in document(folder)
    assert bad.name in {path.stem for path in (folder / "runs/results").glob("*.log")}


@pytest.mark.table
def test_a_section_without_a_place_stops_no_row(folder, capsys, monkeypatch):
    """Somebody adds a section to the file while the first row trains, and forgets the document."""
    write(folder, "--agent gcbc")
    (first,) = rows(folder)
    path, run = folder / "benchmarks/results/rows.yml", command.Queue.run

    def run_and_edit(queue, row):
        run(queue, row)
        if "section: two" not in path.read_text():
            path.write_text(
                path.read_text() + f"- section: two\n  flags: {FLAGS}\n  rows: [--agent qrl --components 2]\n"
            )

    monkeypatch.setattr(command.Queue, "run", run_and_edit)
    assert command.main([]) == 0
    assert len(kept(folder)) == 2 and f"{first.name}_s0" in kept(folder)
    assert capsys.readouterr().out.count("the tables are not written: No place for two in docs/results.md, docs") == 2
    assert command.main([]) == 2  # at the start there is time to mend it


@pytest.mark.slow
def test_a_file_that_is_being_edited_is_read_again(folder, capsys, monkeypatch):
    """Half of a line is saved while the first row trains, the rest a moment later, and the order is another one."""
    write(folder, "--agent gcbc", "--agent qrl --components 2", "--agent gcbc --policy_lr 0.01")
    first, second, third = rows(folder)
    run = command.Queue.run

    def run_and_edit(queue, row):
        run(queue, row)
        if row.name == first.name:
            write(folder, "--agent gc")
            write_it = threading.Timer(
                1.0, write, [folder, "--agent gcbc --policy_lr 0.01", "--agent qrl --components 2"]
            )
            write_it.start()

    monkeypatch.setattr(command.Queue, "run", run_and_edit)
    monkeypatch.setattr(command, "PATIENCE", 0.2)
    monkeypatch.setattr(command, "READINGS", 1000)  # the edit may take its time on a busy machine
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert "--agent is 'gc'" in said and "It is read again in 0.2 seconds" in said
    assert said.index(first.command) < said.index(third.command) < said.index(second.command)
    assert kept(folder) == sorted(f"{row.name}_s0" for row in (first, second, third))


@pytest.mark.slow
def test_a_file_that_stays_broken_lets_no_core_idle(folder, capsys, monkeypatch):
    """The rows that it had before go on; the document is written once it can be read."""
    write(folder, "--agent gcbc", "--agent qrl --components 2")
    first, second = rows(folder)
    run = command.Queue.run

    def run_and_break(queue, row):
        run(queue, row)
        write(folder, "--agent crl --flag_of_tomorrow 1")
        queue.stopping = row.name == second.name

    monkeypatch.setattr(command.Queue, "run", run_and_break)
    monkeypatch.setattr(command, "PATIENCE", 0.05)
    assert command.main([]) == 130
    said = capsys.readouterr().out
    assert said.count("It is read again in 0.05 seconds") == command.READINGS - 1
    assert "The rows that it had before go on." in said
    assert kept(folder) == sorted(f"{row.name}_s0" for row in (first, second))


def test_a_training_that_leaves_another_run_fails_its_row(folder, capsys, monkeypatch):
    write(folder, "--agent gcbc")
    (row,) = rows(folder)
    monkeypatch.setattr(command.Queue, "command", [sys.executable, "-c", ""])
    assert command.main([]) == 1
    assert f"{row.name} failed: what it left is no run with the flags of the row" in capsys.readouterr().err


def test_the_list(folder, capsys):
    write(folder, "--agent gcbc", "--agent qrl --components 2")
    assert command.main(["--list"]) == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["not run", "not run"]
    assert not (folder / "runs").exists()
    assert command.main(["--tables"]) == 0
    assert document(folder).count("not run") == 2


def start(folder):
    return subprocess.Popen([sys.executable, "-c", QUEUE], cwd=folder, stdout=subprocess.DEVNULL)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_queue_goes_on_where_it_was(number, folder):
    long = FLAGS.replace("--num_timesteps 120 --num_evals 3", "--num_timesteps 40000 --num_evals 40")
    write(folder, "--agent gcbc", flags=long)
    (row,) = rows(folder)
    metrics = folder / "runs/results" / f"{row.name}_s0" / "metrics.csv"
    queue = start(folder)
    wait_for(lambda: len(read_metrics(metrics)) >= 2)
    os.kill(queue.pid, number)
    queue.wait(60)
    time.sleep(1)  # a training whose queue was killed is told to end, and saves first
    wait_for(lambda: not running(row.name))
    done = len(read_metrics(metrics))
    assert done < 40 and not kept(folder)
    assert command.main([]) == 0
    assert kept(folder) == [f"{row.name}_s0"] and len(read_metrics(metrics)) == 40
    assert len(list((folder / "runs/results").glob(f"{row.name}_s0*"))) == 1, "it was resumed, not begun again"


def running(name):
    return subprocess.run(["pgrep", "-f", f"exp_name {name}"], capture_output=True).returncode == 0


def test_two_queues_do_not_train_into_one_folder(folder, capsys):
    write(folder, "--agent gcbc")
    with command.only_one(folder / "runs/results"):
        assert command.main([]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"process {os.getpid()}" in error
