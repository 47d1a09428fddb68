"""Kills at random moments, resumed until the end: the table of a run that nobody disturbed, bit for bit."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from goalax.host import checkpoint, runs
from tests.helpers import toy
from tests.helpers.runs import rows

pytestmark = pytest.mark.slow
EVALUATIONS = 12
FLAGS = ["--num_timesteps", "4000", "--num_evals", str(EVALUATIONS), "--vis_length", "5"]
FLAGS = [*toy.TINY, *FLAGS, "--visualization_interval", "3"]
FILMS = ("policy.html", "policy.gif")


def train(folder, argv):
    """A process of its own; toy cannot be drawn, so that a slow pen takes the place of the renderer."""
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from goalax import cli
    from goalax.films import kept

    def film(_run, _recording, steps, directory, _display, last):
        names = FILMS if last else (f"policy_{steps}.html",)
        for name in names:
            Path("drawing").touch()
            time.sleep(0.5)
            (directory / name).write_text("drawn")
        return [directory / name for name in names]

    toy.register()
    kept.film = film
    Path("begun").touch()
    code = cli.run("train", argv, "training.py")
    os._exit(code)  # what comes after it in a process of multiprocessing is not the program


@pytest.fixture(scope="module")
def start():
    """(folder, argv) -> a process that has begun, a child of one that has imported everything and started nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["goalax.commands.train", "goalax.study.curves", "tests.test_kills"])

    def begin(folder, argv):
        for name in ("begun", "drawing"):
            (folder / name).unlink(missing_ok=True)
        process = context.Process(target=train, args=(folder, argv))
        process.start()
        wait_for(lambda: (folder / "begun").exists(), process)
        return process

    return begin


def wait_for(condition, process, seconds=200):
    """Until it is so, or the process has ended."""
    deadline = time.monotonic() + seconds
    while not condition() and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def newest(folder, seed):
    """The run directory of a seed that was made last; None before there is one."""
    found = sorted((folder / "runs").glob(f"toy_crl_s{seed}*"), key=lambda path: path.stat().st_ctime_ns)
    return found[-1] if found else None


def finished(folder, start, argv):
    """What an undisturbed run leaves."""
    folder.mkdir()
    process = start(folder, argv)
    process.join(200)
    assert process.exitcode == 0, (folder / "log").read_text()


def moment(draw, folder):
    """A condition to wait for and seconds after it, at random: while it compiles, trains, evaluates, saves or draws."""

    def evaluations():
        directory = newest(folder, 0)
        return len(runs.read_metrics(directory / "metrics.csv")) if directory else 0

    already = evaluations()
    match draw.randrange(4):
        case 0:
            return lambda: True, draw.uniform(0, 3)  # it starts, compiles, or collects
        case 1:
            return (folder / "drawing").exists, draw.uniform(0, 0.5)
        case _:
            ahead = draw.randint(0, 2)
            return lambda: evaluations() > already + ahead, draw.uniform(0, 0.2)


@pytest.mark.parametrize(
    ("seeds", "kills_wanted"), [(2, 3), *(pytest.param(seeds, 20, marks=pytest.mark.table) for seeds in (1, 2))]
)
def test_kills(seeds, kills_wanted, start, tmp_path):
    argv = [*FLAGS, "--num_seeds", str(seeds)]
    finished(tmp_path / "whole", start, argv)
    folder, draw, kills, codes = tmp_path / "killed", random.Random(seeds), 0, []
    folder.mkdir()
    while True:
        directories = [newest(folder, seed) for seed in range(seeds)]
        saved = all(path and checkpoint.steps(path / "checkpoints") for path in directories)
        process = start(folder, [*argv, "--resume"] if saved else argv)
        if kills < kills_wanted:
            condition, delay = moment(draw, folder)
            wait_for(condition, process)
            time.sleep(delay)
            number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            if process.is_alive():
                os.kill(process.pid, number)
                kills += 1
        process.join(200)
        log = (folder / "log").read_text()
        assert process.exitcode in (0, -signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT), log
        assert "Traceback" not in log
        codes.append(process.exitcode)
        if process.exitcode == 0 and all((path / FILMS[-1]).exists() for path in directories if path):
            if kills >= kills_wanted:
                break
            (folder / "runs").rename(folder / f"runs_{len(codes)}")  # done before all kills: once more
    print(f"{kills} kills, {len(codes)} starts, exit codes {codes}")
    for seed in range(seeds):
        table, whole = rows(newest(folder, seed)), rows(tmp_path / "whole" / "runs" / f"toy_crl_s{seed}")
        assert table == whole and len(whole) == EVALUATIONS
        assert all((newest(folder, seed) / name).read_text() == "drawn" for name in FILMS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_killed_as_it_makes_its_films_makes_them_when_resumed(number, start, tmp_path):
    argv = [*FLAGS, "--visualization_interval", "0"]
    process = start(tmp_path, argv)
    wait_for((tmp_path / "drawing").exists, process)
    os.kill(process.pid, number)
    process.join(200)
    directory = tmp_path / "runs/toy_crl_s0"
    before = rows(directory)
    assert len(before) == EVALUATIONS and (number != signal.SIGKILL or not (directory / FILMS[0]).exists())
    process = start(tmp_path, [*argv, "--resume"])
    process.join(200)
    assert process.exitcode == 0 and rows(directory) == before
    assert all((directory / name).exists() for name in FILMS)


READING_SECONDS = 200  # at most


def test_readers_every_second_change_nothing(start, tmp_path):
    """What evaluates, reports and plots a run reads it while it trains."""
    from goalax.host import loading
    from goalax.study import curves, experiments, report

    toy.register()
    argv = [*toy.TINY, "--num_timesteps", "40000000", "--num_evals", "4000"]
    process = start(tmp_path, argv)
    directory = tmp_path / "runs/toy_crl_s0"
    wait_for(lambda: checkpoint.steps(directory / "checkpoints"), process)
    began, reads, seen = time.monotonic(), 0, set()
    while (reads < 4 or len(seen) < 2) and time.monotonic() < began + READING_SECONDS:
        state = loading.load(directory)[1]
        groups, notes = experiments.compare([tmp_path / "runs"])
        assert not notes
        report.save(groups, [], tmp_path / "r.html")
        curves.compare(groups, "steps")
        seen.add(int(state.env_steps))
        reads += 1
        assert process.is_alive()
        time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    process.join(200)
    log = (tmp_path / "log").read_text()
    assert process.exitcode == 143 and "Stopped and saved" in log and " kept as " not in log and "Traceback" not in log
    assert reads > 2 and len(seen) > 1
    table = runs.read_metrics(directory / "metrics.csv")
    steps = [row["training/envsteps"] for row in table]
    assert steps == sorted(set(steps))
    assert int(loading.load(directory)[1].env_steps) == checkpoint.steps(directory / "checkpoints")[0]
    assert not [path for path in (directory / "checkpoints").iterdir() if not path.name.isdigit()]
    print(f"{reads} times read at {len(seen)} states, up to {steps[-1]:,} steps")
