"""Tests of which runs a sweep takes for its own where others have names like theirs, and of older sweep.json files."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from goalax.commands import sweep as script
from goalax.flags import FlagError
from goalax.host import folders, lock, runs
from goalax.host.config import read_flags
from goalax.study import sweep_runs, sweeps
from goalax.study.sweep import Sweep
from tests.helpers import ROOT, toy

toy.register()
TINY = {name.removeprefix("--"): {"value": value} for name, value in zip(toy.TINY[::2], toy.TINY[1::2], strict=True)}
METRIC = "eval/episode_success"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which sweeps start no programs."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").touch()
    monkeypatch.setattr(lock, "child", lambda command, *_: command[2:])


def sweep_of(out, parameters, exp_name="same", **more):
    """A sweep in a directory `out`, whose file is out.yml."""
    content = {"exp_name": {"value": exp_name}} | parameters
    text = yaml.safe_dump({"program": "train.py", "method": "grid", "parameters": content, **more})
    Path(f"{Path(out).name}.yml").write_text(text)
    return again(out)


def again(out):
    """The next call of a sweep."""
    sweep = Sweep(Path(f"{Path(out).name}.yml"), Path(out), None)
    sweep.out.mkdir(parents=True, exist_ok=True)
    sweep.load()
    return sweep


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], []),
        (["--wandb_mode", "offline"], []),
        (["--wandb-mode=offline", "--log_wandb", "false"], ["--log_wandb", "false"]),
        (["--log-wandb"], ["--log-wandb", "--wandb_mode=online"]),
        (["--log_wandb=True", "--wandb_mode", "offline"], ["--log_wandb=True", "--wandb_mode", "offline"]),
    ],
)
def test_wandb_is_left_out_with_how_it_logs_but_where_the_command_asks_for_it(folder, command, words):
    parameters = {"log_wandb": {"value": True}}
    if "offline" not in "".join(command):
        parameters["wandb_mode"] = {"value": "online"}
    sweep = sweep_of("s", parameters, command=["${program}", "${args}", *command])
    argv, config = sweep.flags(sweep.jobs[0])
    assert [word for word in argv if word not in ("--exp_name=same_000", "--seed=0", "--num_seeds=1")] == words
    assert config.log_wandb == (len(words) > 2 or "--log-wandb" in words)
    read_flags(argv)


def test_a_flag_without_its_value_takes_no_other_with_it(folder):
    """As where `command` has the flag and the value was forgotten."""
    with pytest.raises(FlagError, match="--wandb_mode needs a value."):
        sweep_of("s", {"num_envs": {"values": [8, 16]}}, command=["${program}", "--wandb_mode", "${args}"])


def begin(sweep, number=0):
    """Starts a job; returns the command line in place of its program."""
    return sweep.start(sweep.jobs[number], 1, print)


def train(argv, value, seeds=None):
    """What a training leaves: directories with config.json, metrics.csv and a checkpoint; of so many of its seeds."""
    flags, agent = read_flags(argv)
    for seed in range(flags.seed, flags.seed + (flags.num_seeds if seeds is None else seeds)):
        run = folders.find(flags, seed) if flags.resume else folders.create(flags, seed)
        content = {"flags": {"exp_name": flags.exp_name}, "agent_flags": vars(agent), "command": ["train.py", *argv]}
        if not flags.resume:
            (run / "config.json").write_text(json.dumps(content))
        (run / "metrics.csv").write_text(f"training/envsteps,{METRIC},eval/time_at_goal\n100,{value + seed},0\n")
        (run / "checkpoints" / "100").mkdir(parents=True, exist_ok=True)


def end(sweep, code=0, number=0):
    sweep.finish(sweep.jobs[number], code)
    sweep.save()


def rows(out):
    """(value, directory) of every row of sweep.csv."""
    with open(f"{out}/sweep.csv", newline="") as file:
        return [(row[METRIC] and float(row[METRIC]), row["run_dir"]) for row in csv.DictReader(file)]


def swept(*values):
    return {"h_dim": {"values": [*values]}}


FILES = {"equal": (swept(8, 16), swept(8, 16)), "other values": (swept(8, 16), swept(32, 64))}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
@pytest.mark.parametrize("outs", [("a/s", "b/s"), ("s", "t")])
def test_sweeps_one_after_the_other_keep_their_runs(folder, outs, files):
    """Their names are equal by --out, or by exp_name."""
    names = ["", ""] if outs[0].endswith("/s") else ["same", "same"]
    first = sweep_of(outs[0], files[0], names[0])
    train(begin(first, 0), 1.0)
    end(first, 0, 0)
    train(begin(first, 1), 2.0)
    end(first, 143, 1)
    before = rows(outs[0])
    kept = Path(f"{Path(outs[0]).name}.yml").read_text()
    second = sweep_of(outs[1], files[1], names[1])
    for number in (0, 1):
        train(begin(second, number), 50.0)
        end(second, 0, number)
    Path(f"{Path(outs[0]).name}.yml").write_text(kept)
    first = again(outs[0])
    first.save()
    assert rows(outs[0]) == before and before[0][0] == 1.0
    assert first.next().number == 1
    argv = begin(first, 1)
    assert argv[-1] == "--resume"
    train(argv, 3.0)
    end(first, 0, 1)
    assert rows(outs[0]) == [before[0], (3.0, before[1][1])]
    assert [value for value, _ in rows(outs[1])] == [50.0, 50.0]
    assert len({directory for out in outs for _, directory in rows(out)}) == 4


def test_sweeps_at_once_read_their_own_runs(folder):
    first, second = sweep_of("s", swept(8)), sweep_of("t", swept(16))
    lines = [begin(first), begin(second)]
    train(lines[0], 1.0)
    assert first.curve(first.jobs[0]) == [1.0] and second.curve(second.jobs[0]) == []
    train(lines[1], 50.0)
    assert first.curve(first.jobs[0]) == [1.0] and second.curve(second.jobs[0]) == [50.0]
    first.finish(first.jobs[0], 143, early=True)
    assert (first.jobs[0].state, first.jobs[0].values) == ("ended early", [1.0])
    end(second)
    assert rows("t")[0][0] == 50.0


def test_seeds_in_one_program_are_those_of_one_sweep(folder):
    seeds = {"seed": {"values": [3, 4]}}
    first, second = sweep_of("s", swept(8) | seeds), sweep_of("t", swept(16) | seeds)
    lines = [begin(first), begin(second)]
    train(lines[1], 50.0)
    train(lines[0], 1.0, seeds=1)  # killed before it made the directory of its second
    end(first, -9)
    end(second)
    assert rows("s") == [("", ""), ("", "")] and [value for value, _ in rows("t")] == [53.0, 54.0]
    anew = begin(first)
    assert "--resume" not in anew
    train(anew, 1.0)
    end(first, 143)
    first = again("s")
    resumed = begin(first)
    assert resumed == [*anew, "--resume"]
    train(resumed, 2.0)
    end(first)
    assert [value for value, _ in rows("s")] == [5.0, 6.0]


def test_a_sweep_that_was_killed_as_it_started_a_program_begins_it_anew(folder):
    first = begin(sweep_of("s", swept(8)))
    sweep = again("s")  # there was no program yet
    assert sweep.jobs[0].state == "stopped" and sweep.own(sweep.jobs[0]) == []
    second = begin(sweep)
    assert "--resume" not in second and read_flags(first)[0].exp_name != read_flags(second)[0].exp_name


def test_a_training_by_the_command_line_of_a_run_does_not_take_its_place(folder):
    sweep = sweep_of("s", swept(8, 16))
    for number, code in ((0, 0), (1, 143)):
        argv = begin(sweep, number)
        train(argv, 1.0)
        end(sweep, code, number)
        train(argv, 50.0)  # somebody's, called NAME-2
    before = rows("s")
    sweep = again("s")
    sweep.save()
    assert rows("s") == before and before[0][0] == 1.0
    assert "--resume" not in begin(sweep, 1), "it would have gone on with the newest"


@pytest.fixture
def old(folder):
    """A sweep.json of an older version: job 0 finished, 1 was interrupted; their command lines."""
    sweep = sweep_of("s", swept(8, 16))
    lines = [sweep.flags(job)[0] for job in sweep.jobs]
    for job, argv in zip(sweep.jobs, lines, strict=True):
        train(argv, 1.0)
        job.state, job.values = ("finished", [1.0]) if job.number == 0 else ("stopped", [])
    sweep.save()
    content = json.loads(Path("s/sweep.json").read_text())
    for job in content["jobs"]:
        del job["name"]
    Path("s/sweep.json").write_text(json.dumps(content))
    return lines


def test_a_sweep_of_an_older_version_goes_on(old):
    sweep = again("s")
    sweep.save()
    assert rows("s") == [(1.0, "runs/same_000_s0"), ("", "runs/same_001_s0")]
    resumed = begin(sweep, 1)
    assert resumed == [*old[1], "--resume"]
    config = Path("runs/same_001_s0/config.json")
    config.write_text(json.dumps({"flags": {}, "agent_flags": {}, "command": ["goalax", "train", *resumed]}))
    assert begin(again("s"), 1) == resumed, "the older version wrote down how it was resumed"


@pytest.mark.parametrize("content", ["{}", "[", '{"flags": {}, "agent_flags": {}, "command": 3}', None])
def test_a_sweep_of_an_older_version_takes_no_run_of_other_flags(old, content):
    """A newer one of that name, of other flags or of none that can be read."""
    for argv in old:
        train([word.replace("--h_dim=", "--h_dim=1") for word in argv], 50.0)
    if content is not None:
        for path in Path("runs").glob("*-2/config.json"):
            path.write_text(content)
    sweep = again("s")
    sweep.save()
    assert rows("s") == [(1.0, ""), ("", "")]
    anew = begin(sweep, 1)
    assert "--resume" not in anew and read_flags(anew)[0].exp_name.startswith("same_001_")


def test_a_sweep_of_an_older_version_takes_no_run_from_before_it(old):
    content = json.loads(Path("s/sweep.json").read_text())
    content["jobs"][1]["older"] = ["runs/same_001_s0"]
    Path("s/sweep.json").write_text(json.dumps(content))
    sweep = again("s")
    assert sweep.own(sweep.jobs[1]) == [] and "--resume" not in begin(sweep, 1)
    assert not sweep.jobs[1].older


@pytest.mark.parametrize("none", ["None", None])
def test_a_group_that_is_none_is_no_group(folder, none):
    """As training reads it; wandb writes None on its command lines for null."""
    sweep = sweep_of("s", swept(8) | {"group_name": {"value": none}})
    train(begin(sweep), 1.0)
    end(sweep)
    ((value, directory),) = rows("s")
    assert value == 1.0 and Path(directory).parent == Path("runs")


def test_names_differ():
    names = {sweep_runs.new_name("a b/c_000") for _ in range(100)}
    assert len(names) == 100 and all(name.startswith("a b/c_000_") for name in names)


@pytest.mark.slow
def test_two_sweeps_of_one_name_train_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("train.py").write_text(f"{toy.START} sys.exit(train.main())")
    more = {"group_name": {"value": "None"}, "exp_name": {"value": "same"}, "seed": {"values": [0, 1]}}
    for name, discounting in (("s", 0.8), ("t", 0.9)):
        parameters = TINY | more | {"discounting": {"value": discounting}}
        content = {"program": "train.py", "method": "grid", "parameters": parameters}
        Path(f"{name}.yml").write_text(yaml.safe_dump(content))
    code = f"{toy.START} from goalax.commands import sweep; sys.exit(sweep.main(['t.yml']))"
    other = subprocess.Popen([sys.executable, "-c", code])
    assert script.main(["s.yml"]) == 0 and other.wait(300) == 0
    found = {name: [Path(directory) for _, directory in rows(f"sweeps/{name}")] for name in "st"}
    assert len({*found["s"], *found["t"]}) == 4 == len(list(Path("runs").iterdir()))
    for name, discounting in (("s", 0.8), ("t", 0.9)):
        assert [runs.read_config(path)[0]["discounting"] for path in found[name]] == [discounting] * 2
        jobs = sweeps.load(Path(f"sweeps/{name}/sweep.json"), sweeps.read(Path(f"{name}.yml")))
        assert [job.state for job in jobs] == ["finished"]


def test_the_table_counts_updates_where_there_are_no_steps(folder):
    data = {"dataset": {"value": "x.npz"}, "offline_steps": {"value": 1500}, "num_timesteps": {"value": 0}}
    sweep = sweep_of("s", data)
    train(begin(sweep), 1.0)
    (run,) = sweep.own(sweep.jobs[0])
    (run / "metrics.csv").write_text(f"training/envsteps,training/offline_updates,{METRIC}\n0,1240,0.5\n")
    assert list(sweep.table().columns[2].cells) == ["1,240 updates"]
    (run / "metrics.csv").write_text(f"training/envsteps,training/offline_updates,{METRIC}\n2000,1500,0.5\n")
    assert list(sweep.table().columns[2].cells) == ["1,500 updates and 2,000"]
