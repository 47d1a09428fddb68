"""Hopeless runs of a sweep end early."""

from pathlib import Path

import optuna
import pytest

from goalax.commands import sweep as script
from goalax.study import early_stop, sweeps
from tests.helpers import toy
from tests.helpers.sweeps import folder_of, rows, write

toy.register()
FINISHED = optuna.trial.TrialState.COMPLETE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return folder_of(tmp_path, monkeypatch)


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
