"""What sweeps do beyond a list of runs: hopeless runs end early, and hosts share a search."""

import csv
import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest
import yaml

from goalax.commands import sweep as script
from goalax.study import early_stop, sweeps
from goalax.study.shared_search import SharedSearch
from goalax.study.sweep_file import SweepError, checked
from tests.helpers import ROOT, toy

toy.register()
TINY = {name.removeprefix("--"): {"value": value} for name, value in zip(toy.TINY[::2], toy.TINY[1::2], strict=True)}
FINISHED = optuna.trial.TrialState.COMPLETE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a program that trains the toy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("train.py").write_text(f"{toy.START} sys.exit(train.main())")
    return tmp_path


def write(method, parameters, **more):
    content = {"program": "train.py", "method": method, "parameters": TINY | parameters, **more}
    Path("s.yml").write_text(yaml.safe_dump(content))


def rows(out="sweeps/s"):
    with open(f"{out}/sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


# ---- early ends ------------------------------------------------------------------------------------------------------


def halving(**settings):
    return early_stop.of_sweep({"early_terminate": {"type": "hyperband", **settings}})


def test_brackets_are_those_of_wandb():
    by_first = halving(min_iter=3, eta=2)
    assert [by_first.brackets(n) for n in (2, 3, 5, 6, 24)] == [[], [3], [3], [3, 6], [3, 6, 12, 24]]
    by_last = halving(max_iter=27, s=2)  # 27 / 9 and 27 / 3
    assert [by_last.brackets(n) for n in (2, 3, 8, 9, 81)] == [[], [3], [3], [3, 9], [3, 9]]
    assert early_stop.of_sweep({}) is None


def test_one_of_eta_goes_on():
    rule = halving(min_iter=2, eta=3)
    others = [[0.1, 0.5], [0.2, 0.4, 9.0], [0.3, 0.1], [0.9]]  # the last one has not come to the bracket
    assert not rule.hopeless([0.6, 0.0], others, 2)  # the best so far
    assert not rule.hopeless([0.4, 0.45], others, 2)  # the second of four: two may go on
    assert rule.hopeless([0.35, 0.2, 10.0], others, 2)  # what comes later does not count
    assert not rule.hopeless([0.0, 0.0], others[:1], 2)  # too few to compare


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("hyperband", "`early_terminate` is 'hyperband'; it must be a table with `type: hyperband`."),
        ({"type": "median"}, "it must be a table with `type: hyperband`."),
        ({"type": "hyperband"}, "`early_terminate` needs a `min_iter`, or a `max_iter` and an `s`."),
        ({"type": "hyperband", "max_iter": 9}, "needs a `min_iter`, or a `max_iter` and an `s`."),
        ({"type": "hyperband", "min_iter": 0}, "the `min_iter` 0; it must be a whole number of at least 1."),
        ({"type": "hyperband", "min_iter": 1, "eta": 1}, "the `eta` 1; it must be a whole number of at least 2."),
        ({"type": "hyperband", "min_iter": "x"}, "the `min_iter` 'x'; it must be a whole number of at least 1."),
    ],
)
def test_what_early_terminate_cannot_mean_is_one_sentence(folder, capsys, settings, words):
    write("grid", {"seed": {"values": [1]}}, early_terminate=settings)
    assert script.main(["s.yml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: s.yml: ") and words in error and error.count("\n") == 1
    assert not Path("sweeps").exists()


def test_a_run_that_came_to_several_brackets_between_two_looks_is_compared_at_each(folder):
    """Its rival never came to the last of them."""
    write("grid", {"utd_ratio": {"values": [0.1, 0.2]}}, early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2})
    sweep = script.Sweep(Path("s.yml"), Path("sweeps/s"), None)
    first, second = sweep.jobs
    first.state, curves = "finished", {first.number: [5.0, 6.0], second.number: [1.0] * 9}
    sweep.curve = lambda job: curves[job.number]
    assert sweep.hopeless(second) and not sweep.hopeless(second)  # asked once


@pytest.mark.slow
def test_a_hopeless_run_is_ended(folder, capsys):
    """The metric is the number of updates so far: the run with fewer of them cannot win."""
    parameters = {"utd_ratio": {"values": [0.1, 0.05, 0.2]}, "num_evals": {"value": 3000}}
    parameters["num_timesteps"] = {"value": 3_000_000}
    metric = {"name": "training/gradient_steps", "goal": "maximize"}
    write("grid", parameters, metric=metric, early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2})
    # The first run would take minutes: as many evaluations are written down as it would have.
    sweep = script.Sweep(Path("s.yml"), Path("sweeps/s"), None)
    first = sweep.jobs[0]
    first.state, first.values = "finished", [3e9]
    Path("sweeps/s").mkdir(parents=True)
    sweep.curve, own = (lambda job: [1e9, 2e9] if job is first else own(job)), sweep.curve
    sweep.jobs = sweep.jobs[:2]
    assert script.run(sweep, 1, script.Console(width=200))
    second = sweep.jobs[1]
    assert second.state == "ended early" and 2 <= second.evaluations < 3000 and second.values[0] < 2e9
    assert "others are ahead" in capsys.readouterr().out
    assert sweep.best() is first and [row["state"] for row in rows()] == ["finished", "ended early"]
    loaded = sweeps.load(Path("sweeps/s/sweep.json"), sweep.sweep)
    assert [job.state for job in loaded] == ["finished", "ended early"]


# ---- shared searches -------------------------------------------------------------------------------------------------


def grid_sweep(values=(1, 2, 3, 4, 5, 6)):
    return checked({"method": "grid", "parameters": {"h_dim": {"values": [*values]}, "seed": {"values": [0, 1]}}})


def shared(storage, sweep, name="s"):
    jobs = sweeps.grid(sweep, None) if sweep["method"] == "grid" else []
    return SharedSearch(str(storage), name, sweep, jobs, 6)


def test_hosts_that_share_a_grid_have_the_same_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared("journal.log", sweep := grid_sweep())
    with pytest.raises(
        SweepError, match="holds a grid of 12 runs, here it has 3; hosts that share one must have the same"
    ):
        SharedSearch("journal.log", "s", sweep, sweeps.grid(sweep, 3), 3)


@pytest.mark.parametrize("storage", ["journal.log", "sqlite:///s.db"])
def test_hosts_take_every_run_once(tmp_path, monkeypatch, storage):
    monkeypatch.chdir(tmp_path)
    hosts, taken = [None] * 3, []

    def work(index):
        hosts[index] = shared(storage, grid_sweep())
        while (job := hosts[index].take()) is not None:
            taken.append((job.number, job.parameters["h_dim"], tuple(job.seeds)))
            job.state, job.values = "finished", [float(job.parameters["h_dim"])] * 2
            hosts[index].report(job, [0.5, job.parameters["h_dim"] / 2])
            hosts[index].tell(job)

    if "sqlite" in storage:  # which locks out a second one that begins
        work(0)
    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(size for _, size, _ in taken) == [1, 2, 3, 4, 5, 6] and {seeds for *_, seeds in taken} == {(0, 1)}
    study = hosts[0].study
    done = [trial for trial in study.trials if trial.state == FINISHED]
    assert sorted(trial.value for trial in done) == [1, 2, 3, 4, 5, 6]
    assert hosts[1].curves()[taken[0][0]] == [0.5, taken[0][1] / 2]


def test_a_random_search_ends_at_its_count_whoever_takes(tmp_path):
    sweep = checked({"method": "bayes", "parameters": {"gamma_": {"min": 0.5, "max": 0.9}, "h_dim": {"value": 3}}})
    hosts = [shared(tmp_path / "j", sweep) for _ in range(2)]
    jobs = [hosts[index % 2].take() for index in range(7)]
    assert [job and job.number for job in jobs] == [0, 1, 2, 3, 4, 5, None]
    assert len({job.parameters["gamma_"] for job in jobs[:6]}) == 6 and jobs[0].parameters["h_dim"] == 3
    jobs[2].state = "failed"
    jobs[3].state, jobs[3].values = "ended early", [0.3]
    hosts[0].report(jobs[3], [0.3])
    for job in jobs[2:4]:
        hosts[0].tell(job)
        hosts[0].tell(job)  # once more changes nothing
    states = [trial.state.name for trial in hosts[1].study.trials]
    assert states == ["RUNNING", "RUNNING", "FAIL", "PRUNED", "RUNNING", "RUNNING"]


def test_another_sweep_of_that_name_is_one_sentence(tmp_path):
    shared(tmp_path / "j", grid_sweep())
    with pytest.raises(SweepError, match="holds a sweep 's' over something else"):
        shared(tmp_path / "j", grid_sweep((1, 2)))
    shared(tmp_path / "j", grid_sweep((1, 2)), "other")


def test_a_storage_that_cannot_be_reached_is_one_sentence(folder, capsys):
    write("grid", {"seed": {"values": [1]}})
    for storage in ("no/such/folder/j", "sqlite:////no/such/folder/s.db", "mystery://host/db"):
        assert script.main(["s.yml", "--storage", storage]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"sweep.py: --storage {storage} cannot be used: ") and error.count("\n") == 1
    assert not Path("sweeps").exists()


@pytest.mark.slow
def test_two_hosts_finish_one_grid(folder):
    write("grid", {"min_replay_size": {"values": [10, 16]}, "seed": {"values": [3, 4]}})
    code = f"{toy.START} from goalax.commands import sweep; sys.exit(sweep.main(sys.argv[1:]))"
    hosts = []
    for name in ("a", "b"):
        argv = ["s.yml", "--storage", "journal.log", "--out", name]
        hosts.append(subprocess.Popen([sys.executable, "-c", code, *argv]))
    assert [host.wait(300) for host in hosts] == [0, 0]
    found = rows("a") + rows("b")
    assert sorted(row["min_replay_size"] for row in found) == [str(n) for n in (10, 16) for _ in range(2)]
    assert {row["state"] for row in found} == {"finished"} and len({row["run_dir"] for row in found}) == 4
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("journal.log"))
    study = optuna.load_study(study_name="s", storage=storage)
    assert [trial.state for trial in study.trials] == [FINISHED] * 2
    assert [len(trial.intermediate_values) for trial in study.trials] == [3, 2]  # a larger prefill leaves less
