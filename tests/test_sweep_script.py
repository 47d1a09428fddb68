"""Tests of scripts/sweep.py with runs of the toy: grid, random and Bayesian search, failures, interruption, errors."""

import io
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from goalax.commands import sweep as script
from goalax.host.runs import read_metrics
from goalax.host.stored import read_run
from goalax.study import sweep_file, sweeps
from tests.helpers import toy
from tests.helpers.sweeps import folder_of, rows, write

toy.register()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return folder_of(tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_grid_runs_seeds_together_and_survives_a_failure(folder, capsys):
    parameters = {"min_replay_size": {"values": [10, 5]}, "seed": {"values": [3, 4]}, "log_wandb": {"value": True}}
    command = ["${env}", "python", "${program}", "${args}", "--discounting=0.9"]
    write("grid", parameters, command=command, controller={"type": "local"})
    assert script.main(["s.yml", "--workers", "2"]) == 0
    table = rows()
    assert [(row["run"], row["seed"], row["min_replay_size"], row["state"]) for row in table] == [
        ("0", "3", "10", "finished"),
        ("0", "4", "10", "finished"),
        ("1", "3", "5", "failed"),
        ("1", "4", "5", "failed"),
    ]
    for row in table[:2]:
        last = read_metrics(Path(row["run_dir"]) / "metrics.csv")[-1]
        assert float(row["eval/episode_success"]) == last["eval/episode_success"]
        assert not (Path(row["run_dir"]) / "wandb").exists()
        assert read_run(Path(row["run_dir"]))[0].discounting == 0.9
    assert len(list(Path("sweeps/s").glob("*.log"))) == 2, "a program for both seeds"
    out, error = capsys.readouterr()
    assert "run 1 failed: training.py: --min_replay_size is 5; it must be" in out
    assert "run 0 started, its output goes to sweeps/s/000.log" in out
    assert error == "sweep.py: `controller` of s.yml is for wandb's server only.\n"
    shown = [line for line in out.splitlines() if "min_replay_size" in line and "│" in line]
    assert [[word in line for word in ("finished", "failed")] for line in shown] == [[True, False], [False, True]]
    assert script.main(["s.yml"]) == 0 and rows() == table, "nothing is run twice"


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_from_the_checkpoint(folder):
    longer = {"num_timesteps": {"value": 40_000}, "num_evals": {"value": 40}}
    write("random", longer | {"discounting": {"min": 0.9, "max": 0.99}})
    deadline = time.monotonic() + 120

    def logged():
        return [row for path in Path("runs").glob("s_000_*_s0/metrics.csv") for row in read_metrics(path)]

    def interrupt():
        while len(logged()) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, script.interrupt)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        assert script.main(["s.yml", "--count", "1"]) == 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    before = logged()
    assert 3 <= len(before) < 40 and [row["state"] for row in rows()] == ["stopped"]
    assert script.main(["s.yml", "--count", "1"]) == 0
    assert [row["state"] for row in rows()] == ["finished"]
    assert len(list(Path("runs").iterdir())) == 1
    after = logged()
    assert len(after) == 40 and after[: len(before)] == before


QUICK = """
import pathlib, sys
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
name, first, seeds = flags["exp_name"], int(flags["seed"]), int(flags["num_seeds"])
with open("started", "a") as file:
    print(name[:5], first, seeds, file=file)
for seed in range(first, first + seeds):
    run = pathlib.Path("runs", f"{name}_s{seed}")
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "metrics.csv").write_text(f"envsteps,eval/episode_success,eval/time_at_goal\\n1,0.{seed},0\\n")
"""  # a program that writes down what it was asked for, and trains nothing


def test_a_smaller_count_forgets_no_run(folder):
    Path("train.py").write_text(QUICK)
    write("grid", {"discounting": {"values": [0.8, 0.9, 0.95]}})
    assert script.main(["s.yml", "--workers", "3"]) == 0
    table, text = rows(), Path("sweeps/s/sweep.json").read_text()
    assert [(row["run"], row["state"]) for row in table] == [(str(run), "finished") for run in range(3)]
    for argv in (["--count", "1"], ["--count", "2"], []):
        assert script.main(["s.yml", *argv]) == 0
        assert rows() == table and Path("sweeps/s/sweep.json").read_text() == text
    assert len(Path("started").read_text().splitlines()) == 3, "nothing is run twice"


def test_a_larger_count_trains_only_the_new_seeds(folder):
    Path("train.py").write_text(QUICK)
    write("grid", {"seed": {"values": [1, 2, 3, 4, 5]}})
    for count in ("3", "5", "5", "4"):
        assert script.main(["s.yml", "--count", count]) == 0
    assert Path("started").read_text() == "s_000 1 3\ns_001 4 2\n"
    found = [(row["run"], row["seed"], row["eval/episode_success"]) for row in rows()]
    assert found == [(str(int(seed > 3)), str(seed), f"{0.1 * seed:.1g}") for seed in range(1, 6)]
    pattern = r"runs/s_{:03}_[0-9a-f]{{8}}_s{}"
    assert all(re.fullmatch(pattern.format(int(row["run"]), row["seed"]), row["run_dir"]) for row in rows())


@pytest.mark.parametrize(("out", "name"), [("out", "out"), (".", "here"), ("..", "above"), ("link", "link")])
def test_runs_have_the_name_of_the_directory_however_it_is_given(out, name, tmp_path, monkeypatch):
    """A link keeps its own: its runs have been named by it since they began."""
    (tmp_path / "above" / "here" / "out").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "here")
    Path("link").symlink_to("out")
    Path("train.py").touch()
    write("grid", {})
    sweep = script.Sweep(Path("s.yml"), Path(out), None)
    assert [sweep.plain_name(job) for job in sweep.jobs] == [f"{name}_000"]


def saved(folder, jobs):
    """Sweeps of s.yml by --count, each of which goes on with these jobs of an earlier call."""
    sweeps.save(folder / "sweep.json", sweeps.read(Path("s.yml")), jobs)

    def loaded(count):
        sweep = script.Sweep(Path("s.yml"), folder, count)
        sweep.load()
        return sweep

    return loaded


def test_a_count_limits_what_is_started_of_an_earlier_call(folder):
    write("grid", {"discounting": {"values": [0.8, 0.9]}, "seed": {"values": [1, 2]}})
    jobs = sweeps.grid(sweeps.read(Path("s.yml")), None)
    loaded = saved(folder, jobs)
    assert [job.seeds for job in loaded(3).jobs] == [[1, 2], [1]], "never started, they are planned anew"
    for job in jobs:
        job.state = "stopped"
    loaded = saved(folder, jobs)
    for count, startable in ((1, 1), (2, 1), (3, 2), (4, 2)):  # the seeds of a program go on together
        sweep = loaded(count)
        for number in range(startable):
            job = sweep.next()
            assert job.number == number
            job.state = "finished"
        assert sweep.next() is None and len(sweep.jobs) == 2


def test_a_grid_counts_runs_whatever_the_order_of_its_parameters():
    a, b = {"values": [1, 2]}, {"values": ["x", "y"]}
    first = sweeps.grid({"parameters": {"a": a, "b": b}}, 2)  # 1 x, 1 y
    turned = {"parameters": {"b": b, "a": a}}  # 1 x, 2 x, 1 y, 2 y
    assert sweeps.grid(turned, 2, first) == []
    more = [(job.number, job.parameters) for job in sweeps.grid(turned, None, first)]
    assert more == [(2, {"b": "x", "a": 2}), (3, {"b": "y", "a": 2})]


def quadratic(parameters):
    return -((parameters["x"] - 0.7) ** 2) - (parameters["c"] != "b")


def test_the_table_fits_a_terminal_of_80_columns(tmp_path):
    Path(tmp_path / "train.py").touch()
    names = {
        name: {"min": 0.1, "max": 0.9} for name in ("discounting", "logsumexp_penalty", "critic_lr", "random_goals")
    }
    content = {"program": str(tmp_path / "train.py"), "method": "random", "parameters": names}
    (tmp_path / "s.yml").write_text(yaml.safe_dump(content))
    sweep = script.Sweep(tmp_path / "s.yml", tmp_path / "out", 40)
    for value in range(30):
        job = sweep.next()
        job.state, job.values = "finished", [30.0 - value]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(sweep.table(room=3))
    text = console.export_text()
    assert "30 of 40 ended" in text and all(text.count(name) == 4 for name in names)  # no name is cut
    assert [line.split()[1] for line in text.splitlines() if "finished" in line] == ["0", "27", "28", "29"]


def search(method, count):
    """The best value that a search finds on a known function."""
    parameters = {"x": {"min": 0.0, "max": 1.0}, "c": {"values": ["a", "b", "c"]}, "k": {"value": 1}}
    sweep, jobs = {"method": method, "metric": sweep_file.METRIC, "parameters": parameters}, []
    for _ in range(count):
        job = sweeps.suggest(sweep, jobs)
        job.state, job.values = "finished", [quadratic(job.parameters)]
        jobs.append(job)
    return [job.parameters for job in jobs], max(job.values[0] for job in jobs)


def test_searches_are_repeatable_and_bayes_learns():
    chosen, _ = search("random", 12)
    assert chosen == search("random", 12)[0]
    assert len({point["x"] for point in chosen}) == 12
    bayes, best = search("bayes", 40)
    assert best > -0.001
    late = [quadratic(point) for point in bayes[20:]]
    early = [quadratic(point) for point in bayes[:10]]
    assert sum(late) / len(late) > sum(early) / len(early)


def test_only_consecutive_seeds_share_a_program():
    sweep = {"parameters": {"seed": {"values": [1, 2, 5]}, "a": {"values": ["x", "y"]}}}
    jobs = [(job.parameters, job.seeds) for job in sweeps.grid(sweep, None)]
    assert jobs == [({"a": a}, seeds) for a in ("x", "y") for seeds in ([1, 2], [5])]
    assert sum(len(job.seeds) for job in sweeps.grid(sweep, 4)) == 4


@pytest.mark.parametrize(
    ("method", "parameters", "argv", "sentence"),
    [
        ("grids", {}, [], "`method` is 'grids'; choose from: grid, random, bayes."),
        (
            "grid",
            {"critic_lr": {"min": 0.1, "max": 0.2}},
            [],
            "`critic_lr` needs a `value`, `values`, or whole numbers",
        ),
        ("bayes", {"critic_lr": {"distribution": "beta", "min": 0, "max": 1}}, ["--count", "1"], "`critic_lr` needs"),
        (
            "random",
            {"critic_lr": {"min": 0.2, "max": 0.1}},
            ["--count", "1"],
            "`critic_lr` has a `min` of 0.2 above its `max` of 0.1.",
        ),
        ("random", {"critic_lr": {"mu": 1, "min": 0.1}}, ["--count", "1"], "`critic_lr` has `mu`; only"),
        ("random", {}, [], "--count must say how many runs"),
        ("grid", {}, ["--out", "train.py"], "train.py cannot be written: Not a directory."),
        ("grid", {"batchsize": {"value": 4}}, [], "Unknown flag --batchsize; did you mean --batch_size"),
        ("grid", {"energy_fn": {"values": ["l2", "l9"]}}, [], "--energy_fn is 'l9'; choose from"),
        ("grid", {}, ["--workers", "0"], "--workers is 0; it must be at least 1"),
    ],
)
def test_errors_are_one_sentence(folder, capsys, method, parameters, argv, sentence):
    write(method, parameters)
    assert script.main(["s.yml", *argv]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("sweep.py: ") and error.count("\n") == 1
    assert not Path("sweeps").exists() and not Path("runs").exists()


def test_other_errors(folder, capsys):
    assert script.main([]) == 2 and script.main(["none.yml"]) == 2
    Path("s.yml").write_text("a: [")
    assert script.main(["s.yml"]) == 2
    write("grid", {}, program="nowhere.py")
    assert script.main(["s.yml"]) == 2
    Path("fails.py").write_text("raise SystemExit(1)")
    write("grid", {"batch_size": {"value": 8}}, program="fails.py")
    assert script.main(["s.yml"]) == 1
    write("grid", {"batch_size": {"value": 4}})
    assert script.main(["s.yml"]) == 2
    words = ["Name a sweep file", "cannot be read: No such file", "no YAML in line", "no program nowhere.py"]
    words += ["No run finished", "holds a sweep over something else"]
    assert all(word in line for word, line in zip(words, capsys.readouterr().err.splitlines(), strict=True))
