"""Tests of sweeps that meet trouble: files that mean nothing, strange names, full disks, kill -9, a second sweep."""

import datetime
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from goalax.commands import sweep as script
from goalax.host.config import read_flags
from goalax.host.runs import read_metrics
from goalax.study import sweep_file, sweeps
from goalax.whole import part_of
from tests.helpers import toy
from tests.helpers.sweeps import TINY, folder_of, write

toy.register()
LONGER = {"num_timesteps": {"value": 20_000}, "num_evals": {"value": 20}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return folder_of(tmp_path, monkeypatch)


def states(out="sweeps/s"):
    return [job["state"] for job in json.loads(Path(out, "sweep.json").read_text())["jobs"]]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


ONE = {"batch_size": {"value": 8}}
DAY = datetime.date(2020, 1, 2)
ENORMOUS = {name: {"min": 8, "max": 10_007} for name in ("batch_size", "h_dim", "repr_dim")}
# (the file, what its sentence must say); a table is a grid over ONE, changed
BROKEN = [
    ("", "it is empty"),
    ("# nothing", "it is empty"),
    ("- a\n- b", "it holds ['a', 'b']"),
    ("just words", "it holds 'just words'"),
    ("a: [", "is no YAML in line 1"),
    ("a: 1\n\tb: 2", "is no YAML in line 2"),
    ("--- 1\n--- 2", "is no YAML"),
    ("a: 2020-13-45", "is no YAML"),
    ("[" * 5000, "is no YAML"),
    (b"method: gr\xefd", "is no text in UTF-8: byte 11"),
    ("method: grid".encode("utf-16"), "is no text in UTF-8: byte 1"),
    ("method: \x00", "is no YAML"),
    ({"parameters": None}, "must have `parameters`"),
    ({"parameters": []}, "must have `parameters`"),
    ({"parameters": [ONE]}, "must have `parameters`"),
    ({"parameters": "batch_size"}, "must have `parameters`"),
    ({"parameters": {1: {"value": 2}}}, "`parameters` has 1, which cannot be the name of a flag"),
    ({"parameters": {DAY: {"value": 2}}}, "`parameters` has datetime.date(2020, 1, 2)"),
    ({"parameters": {"a\nb": {"value": 2}}}, "`parameters` has 'a\\nb'"),
    ({"parameters": {"help": {"value": 1}}}, "Unknown flag --help"),
    ({"parameters": {"batch_size": 8}}, "`batch_size` is 8; it needs"),
    ({"parameters": {"batch_size": [8, 16]}}, "`batch_size` is [8, 16]; it needs"),
    ({"parameters": {"batch_size": {}}}, "`batch_size` needs a `value`"),
    ({"parameters": {"batch_size": {"values": []}}}, "has the `values` []; they must be a list"),
    ({"parameters": {"batch_size": {"values": 8}}}, "has the `values` 8; they must be a list"),
    ({"parameters": {"batch_size": {"values": [8, [9]]}}}, "`batch_size` has the value [9]; it must be"),
    ({"parameters": {"batch_size": {"value": DAY}}}, "`batch_size` has the value datetime.date"),
    ({"parameters": {"exp_name": {"value": "a\nb"}}}, "`exp_name` has the value 'a\\nb'"),
    ({"parameters": {"critic_lr": {"value": float("nan")}}}, "`critic_lr` has the value nan"),
    ({"parameters": {"critic_lr": {"values": [0.1, "inf"]}}}, "--critic_lr is 'inf'; it must be a finite number"),
    (f"method: grid\nparameters: {{batch_size: {{value: 0x1{'0' * 5000}}}}}", "has the value a very long number"),
    ({"parameters": {"batch_size": {"value": 8, "min": 1}}}, "`batch_size` has both `value` and `min`"),
    ({"parameters": {"batch_size": {"values": [8], "value": 1}}}, "`batch_size` has both `value` and `values`"),
    ({"parameters": {"batch_size": {"value": 8, DAY: 1}}}, "`batch_size` has `datetime.date"),
    ({"parameters": {"batch_size": {"min": 8}}}, "`batch_size` needs a `value`"),
    ({"parameters": {"batch_size": {"min": 9, "max": 8}}}, "`batch_size` has a `min` of 9 above its `max` of 8"),
    ({"parameters": {"batch_size": {"min": "low", "max": 8}}}, "has the `min` 'low'; it must be a finite number"),
    ({"parameters": {"batch_size": {"min": True, "max": 8}}}, "has the `min` True; it must be a finite number"),
    ({"parameters": {"batch_size": {"min": 1, "max": float("inf")}}}, "has the `max` inf; it must be"),
    ({"parameters": {"batch_size": {"min": 1, "max": 10**30}}}, "numbers up to 2^53"),
    ({"parameters": {"batch_size": {"values": [8], "distribution": "uniform"}}}, "`batch_size` needs a `value`"),
    ({"parameters": {"seed": {"values": ["a", "b"]}}}, "`seed` has the value 'a'; it must be a whole number"),
    ({"parameters": {"seed": {"value": 1.5}}}, "`seed` has the value 1.5; it must be a whole number"),
    ({"parameters": {"seed": {"value": None}}}, "`seed` has the value None; it must be a whole number"),
    ({"parameters": {"seed": {"value": True}}}, "`seed` has the value True; it must be a whole number"),
    ({"parameters": {"seed": {"value": -1}}}, "--seed is -1; it must be at least 0"),
    ({"parameters": {"agent": {"values": ["crl", "clr"]}}}, "--agent is 'clr'"),
    ({"parameters": ENORMOUS}, "the grid has 1,000,000,000,000 runs; --count must say"),
    ({"parameters": {f"x{i}": {"min": 0, "max": 2**53} for i in range(300)}}, "the grid has more than 10^30 runs"),
    ({"program": 5}, "`program` is 5; it must be text"),
    ({"program": ["train.py"]}, "`program` is ['train.py']; it must be text"),
    ({"program": "a\nb"}, "`program` is 'a\\nb'; it must be text"),
    ({"program": "x" * 9999}, "there is no program x"),
    ({"command": "python train.py"}, "`command` is 'python train.py'; it must be a list of words"),
    ({"command": {"a": 1}}, "`command` is {'a': 1}; it must be a list of words"),
    ({"command": ["${program}", ["--h_dim=8"]]}, "it must be a list of words"),
    ({"command": ["python", "train.py", "--h_dim=8"]}, "has '--h_dim=8', but no ${program} before it"),
    ({"command": ["${program}", "--help"]}, "Unknown flag --help"),
    ({"command": ["${program}", "--agent"]}, "--agent"),
    ({"command": ["${program}", "--seed=3"]}, "has '--seed=3'; a sweep sets this flag from the parameter `seed`"),
    ({"command": ["${program}", "--num-seeds", 3]}, "a sweep sets this flag from the parameter `seed`"),
    ({"command": ["${program}", "${args}", "--exp_name=a"]}, "sets this flag from the parameter `exp_name`"),
    ({"parameters": {"num_seeds": {"value": 3}}}, "`num_seeds` is no parameter of a sweep; list the seeds as `values`"),
    ({"parameters": {"num-seeds": {"values": [1, 2]}}}, "`num_seeds` is no parameter of a sweep; list the seeds"),
    ({"name": 2024}, "`name` is 2024; it must be text"),
    ({"description": [1]}, "`description` is [1]; it must be text"),
    ({DAY: 1}, "it has the name datetime.date(2020, 1, 2)"),
    ({"metric": "eval/episode_success"}, "`metric` must be a table with a `name`"),
    ({"metric": {"name": 5}}, "`metric` must be a table with a `name`"),
    ({"metric": {"name": "x", "goal": ["up"]}}, "the metric's `goal` is ['up']"),
    ({"method": ["grid"]}, "`method` is ['grid']; choose from"),
    ({"method": None}, "`method` is None; choose from"),
    ({"run_cap": 0}, "`run_cap` is 0; it must be a whole number of at least 1"),
    ({"run_cap": "ten"}, "`run_cap` is 'ten'; it must be"),
    ({"run_cap": True}, "`run_cap` is True; it must be"),
]
SEARCHES = [  # a specification of critic_lr with the method random
    ({"min": 0.1, "max": 0.2, "distribution": ["uniform"]}, "`critic_lr` needs `values`, or numbers"),
    ({"min": 0.1, "max": 0.2, "distribution": "int_uniform"}, "`critic_lr` needs `values`, or numbers"),
    ({"min": 0.1, "max": 0.2, "distribution": "q_uniform", "q": "a"}, "has the `q` 'a'; it must be a finite number"),
    ({"min": 0.1, "max": 0.2, "distribution": "q_uniform", "q": [1]}, "has the `q` [1]; it must be a finite number"),
    ({"min": 0.1, "max": 0.2, "distribution": "q_uniform", "q": 0}, "has the `q` 0; it must be above 0"),
    ({"min": 0.1, "max": 0.2, "q": 0.1}, "has the `q` 0.1; it must be above 0, and the distribution q_uniform"),
    ({"min": 0, "max": "1e-2", "distribution": "log_uniform_values"}, "`critic_lr` has no such distribution"),
    ({"min": "1e-2", "max": "1e-5"}, "`critic_lr` has a `min` of 0.01 above its `max` of 1e-05"),
    ({"min": -1.0, "max": 0.1}, "--critic_lr is -0.9"),
    ({"values": [0.1, 0.2, -0.3]}, "--critic_lr is -0.3"),
    ({"min": float("nan"), "max": 1}, "has the `min` nan; it must be a finite number"),
    ({"max": 1}, "`critic_lr` needs `values`, or numbers"),
]
BROKEN += [({"method": "random", "parameters": {"critic_lr": spec}, "run_cap": 2}, words) for spec, words in SEARCHES]


@pytest.mark.parametrize(("content", "words"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_one_sentence_and_nothing_is_written(folder, capsys, content, words):
    if isinstance(content, dict):
        content = yaml.dump({"program": "train.py", "method": "grid", "parameters": ONE} | content)
    Path("s.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    assert script.main(["s.yml"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("sweep.py: ") and error.count("\n") == 1 and error.endswith(".\n")
    assert len(error) < 400 or "x" * 9999 in error
    assert {path.name for path in folder.iterdir()} == {"s.yml", "train.py"} and time.monotonic() - began < 20


def test_numbers_may_be_written_1e_5(folder):
    text = "program: train.py\nmethod: {}\nparameters:\n  critic_lr: {}\n  batch_size: {}\n"
    Path("s.yml").write_text(text.format("random", "{min: 1e-5, max: 1e-3}", "{values: [8, 1e2, '16']}"))
    specs = sweeps.read(Path("s.yml"))["parameters"]
    assert specs == {"critic_lr": {"min": 1e-5, "max": 1e-3}, "batch_size": {"values": [8, 100, 16]}}
    assert {type(value) for value in specs["batch_size"]["values"]} == {int}
    sweep = script.Sweep(Path("s.yml"), Path("out"), 3)
    assert all(1e-5 <= sweep.next().parameters["critic_lr"] <= 1e-3 for _ in range(3))
    quantised = "{min: 1e-5, max: 1e-4, q: 1e-5, distribution: q_uniform}"
    Path("s.yml").write_text(text.format("bayes", quantised, "{min: 1e1, max: 3e1}"))
    specs = sweeps.read(Path("s.yml"))["parameters"]
    assert specs["critic_lr"]["q"] == 1e-5 and type(specs["batch_size"]["min"]) is int
    Path("s.yml").write_text(text.format("grid", "{value: 1e-5}", "{min: 1e1, max: 3e1}"))
    jobs = sweeps.grid(sweeps.read(Path("s.yml")), None)
    assert [job.parameters for job in jobs] == [{"critic_lr": 1e-5, "batch_size": size} for size in range(10, 31)]


def test_run_cap_and_count_limit_the_runs(folder):
    names = {"discounting": {"min": 0.9, "max": 1.0}}  # 1 itself is no valid value, and never drawn
    for method, parameters in (("random", names), ("bayes", names), ("grid", ENORMOUS)):
        Path("s.yml").write_text(
            yaml.safe_dump({"program": "train.py", "method": method, "parameters": parameters, "run_cap": 3})
        )
        assert [script.Sweep(Path("s.yml"), Path("out"), count).count for count in (None, 2, 5)] == [3, 2, 3]
    sweep = script.Sweep(Path("s.yml"), Path("out"), None)
    sizes = [tuple(job.parameters.values()) for job in sweep.jobs]
    assert sizes == [(8, 8, 8), (8, 8, 9), (8, 8, 10)]


def test_a_command_line_is_read_as_training_reads_it():
    lines = ["--agent sac --tau=0.1", "--batch_size=1e2 --use_relu=False --no_dense_reward --resume", "--h-dim 8"]
    lines += ["--group_name=None --exp_name None --eval_env=None", "--group_name=none --dataset NONE"]
    for argv in map(str.split, lines):
        assert sweep_file.read_flags(argv) == read_flags(argv)[0]


@pytest.mark.slow
def test_names_with_brackets_spaces_quotes_and_dollars(folder, capfd):
    name = "a [b] $HOME 'c' \"d\" :x: [red]"
    write("grid", {"exp_name": {"value": name}})
    assert script.main(["s.yml", "--out", f"out/{name}"]) == 0
    assert f"out/{name}/sweep.csv\n" in capfd.readouterr().out
    assert states(f"out/{name}") == ["finished"]
    (directory,) = Path("runs").iterdir()
    assert directory.name.startswith(f"{name}_000_") and (directory / "metrics.csv").is_file()


@pytest.mark.slow
def test_a_killed_sweep_finishes_its_run_and_a_second_one_is_refused(folder, capsys):
    write("grid", LONGER)
    program = f"{toy.START} from goalax.commands import sweep; sys.exit(sweep.main(['s.yml']))"
    first = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)

    def rows():
        return [row for path in Path("runs").glob("s_000_*_s0/metrics.csv") for row in read_metrics(path)]

    try:
        wait_for(lambda: len(rows()) >= 3)
        assert script.main(["s.yml"]) == 2
        error = capsys.readouterr().err
        words = f"sweep.py: A sweep runs in sweeps/s already (process {first.pid} on"
        assert error.startswith(words) and error.count("\n") == 1
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before = len(rows())
    assert states() == ["running"] and before < 20
    assert script.main(["s.yml"]) == 0 and states() == ["finished"]
    assert len(rows()) == 20
    assert len(list(Path("runs").iterdir())) == 1, "resumed, not begun again"
    out = capsys.readouterr().out
    assert "Stopped and saved" in Path("sweeps/s/000.log").read_text(), "its training did not go on alone"
    assert "run 0 of an earlier call still ends; this one waits for it" in out


@pytest.mark.parametrize("name", ["sweep.json", "sweep.csv"])
def test_a_full_disk_is_one_sentence_that_names_the_file(folder, capsys, name):
    write("grid", {})
    file = Path("sweeps/s", name)
    part = part_of(file)
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    assert script.main(["s.yml"]) == 2
    assert capsys.readouterr().err == f"sweep.py: {file} cannot be written: No space left on device.\n"
    assert not part.is_symlink()


def test_an_error_without_a_file_names_that_of_out(folder, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(script, "run", full)
    write("grid", {})
    assert script.main(["s.yml", "--out", "out/s"]) == 2
    assert capsys.readouterr().err == "sweep.py: out/s cannot be written: No space left on device.\n"


DAMAGES = [{"state": "odd"}, {"number": 7}, {"seeds": 3}, {"seeds": []}, {"values": ["a"]}, 1]
DAMAGES += [{"name": 3}, {"name": "a\0b"}, {"parameters": {name: [8] for name in TINY}}]


@pytest.mark.parametrize("change", DAMAGES)
def test_a_damaged_sweep_json_is_one_sentence(folder, capsys, change):
    write("grid", {})
    sweep = sweeps.read(Path("s.yml"))
    job = {"number": 0, "parameters": sweeps.grid(sweep, None)[0].parameters, "seeds": [0]}
    job = change if change == 1 else job | change
    Path("sweeps/s").mkdir(parents=True)
    Path("sweeps/s/sweep.json").write_text(json.dumps({"sweep": sweeps.search(sweep), "jobs": [job]}))
    assert script.main(["s.yml"]) == 2
    error = capsys.readouterr().err
    assert "sweep.json cannot be read; choose another --out." in error and error.count("\n") == 1
