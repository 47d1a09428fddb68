"""Hosts share a search: every run is taken once, and whatever is told belongs to it."""

import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest

from goalax.commands import sweep as script
from goalax.study import shared_search
from goalax.study.shared_search import SharedSearch
from goalax.study.sweep_file import SweepError, checked
from tests.helpers import toy
from tests.helpers.sweeps import folder_of, rows, write

toy.register()
FINISHED = optuna.trial.TrialState.COMPLETE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return folder_of(tmp_path, monkeypatch)


def grid_sweep(values=(1, 2, 3, 4, 5, 6)):
    return checked({"method": "grid", "parameters": {"h_dim": {"values": [*values]}, "seed": {"values": [0, 1]}}})


def shared(storage, sweep, name="s"):
    return SharedSearch(str(storage), name, sweep, 100 if sweep["method"] == "grid" else 6)


def test_hosts_that_share_a_grid_have_the_same_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared("journal.log", sweep := grid_sweep())
    with pytest.raises(
        SweepError, match="holds a grid of 12 runs, here it has 3; hosts that share one must have the same"
    ):
        SharedSearch("journal.log", "s", sweep, 3)


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


def test_another_sweep_of_that_name_is_one_sentence(tmp_path, monkeypatch):
    shared(tmp_path / "j", grid_sweep())
    with pytest.raises(SweepError, match="holds a sweep 's' over something else"):
        shared(tmp_path / "j", grid_sweep((1, 2)))
    shared(tmp_path / "j", grid_sweep((1, 2)), "other")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "j")))
    optuna.create_study(storage=storage, study_name="strange").ask()
    monkeypatch.setattr(shared_search, "WAIT_SECONDS", 0.1)
    with pytest.raises(SweepError, match="holds a sweep 'strange' over something else"):
        shared(tmp_path / "j", grid_sweep(), "strange")


@pytest.mark.parametrize("written", [0, 2])
def test_a_grid_that_was_not_written_to_its_end_is_by_the_next_host(tmp_path, monkeypatch, written):
    monkeypatch.setattr(shared_search, "WAIT_SECONDS", 0.5)
    killed = optuna.Study.enqueue_trial

    def enqueue(study, *given, **named):
        if len(study.trials) == written:
            raise KeyboardInterrupt
        killed(study, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", enqueue)
        with pytest.raises(KeyboardInterrupt):
            shared(tmp_path / "j", grid_sweep())
    hosts = [None, None]

    def begin(index):
        hosts[index] = shared(tmp_path / "j", grid_sweep())

    threads = [threading.Thread(target=begin, args=(index,)) for index in range(2)]  # both write what is missing
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert hosts[0].token == hosts[1].token
    taken = []
    while (job := hosts[len(taken) % 2].take()) is not None:
        taken.append(job.parameters["h_dim"])
    assert sorted(taken) == [1, 2, 3, 4, 5, 6]


def test_hosts_whose_files_have_another_order_train_every_combination(tmp_path):
    parameters = {"h_dim": {"values": [1, 2, 3]}, "width": {"values": [10, 20]}, "seed": {"values": [5, 6]}}
    files = [dict(sorted(parameters.items(), reverse=reverse)) for reverse in (False, True)]
    hosts = [shared(tmp_path / "j", checked({"method": "grid", "parameters": file})) for file in files]
    taken = [hosts[index % 2].take() for index in range(6)]
    assert {(job.parameters["h_dim"], job.parameters["width"]) for job in taken} == {
        (size, width) for size in (1, 2, 3) for width in (10, 20)
    }
    assert all(job.seeds == [5, 6] for job in taken) and hosts[0].take() is None
    for job, trial in zip(taken, hosts[0].study.trials, strict=True):
        assert trial.params == job.parameters and trial.number == job.number


@pytest.mark.parametrize("later", [["--storage", "k.log"], ["--storage", "j.log"], []])
def test_runs_of_another_search_are_not_told_to_a_study(folder, capsys, later):
    write("random", {"critic_lr": {"min": 1e-4, "max": 1e-3}})
    first = script.Sweep(Path("s.yml"), Path("out"), 2, None if later == ["--storage", "j.log"] else "j.log")
    Path("out").mkdir()
    job = first.new()
    job.state, job.values = "finished", [0.9]
    first.save()
    assert script.main(["s.yml", "--count", "2", "--out", "out", *later]) == 2
    assert "out holds runs of another search, by its --storage; choose another --out." in capsys.readouterr().err
    same = script.Sweep(Path("s.yml"), Path("out"), 2, first.shared and "j.log")
    same.load()
    assert [job.values for job in same.jobs] == [[0.9]]


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
