"""scripts/evaluate.py on real runs: its numbers, and one sentence for what it cannot evaluate."""

import json
import shutil

import jax
import numpy as np
import pytest

from goalax import __version__
from goalax.commands import evaluate
from goalax.host import loading


def test_every_metric_with_its_interval(toy_runs, capsys):
    directory = toy_runs / "l2_s1"
    assert evaluate.main([str(directory), "--episodes", "6", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert f"{directory}: crl in toy, 120 steps, 6 episodes" in out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    shown = {name: (float(mean), *map(float, interval.split(" to "))) for name, mean, interval in cells}
    header = (directory / "metrics.csv").read_text().splitlines()[0].split(",")
    measured_by_host = {"eval/sps", "eval/epoch_eval_time"}
    assert shown.keys() == {name for name in header if name.startswith("eval/")} - measured_by_host

    run, state = loading.load(directory, num_eval_envs=1)
    keys = jax.random.split(jax.random.PRNGKey(3), 6)
    episodes = [run.train.evaluate(state._replace(key=key))[0] for key in keys]
    for name, (mean, low, high) in shown.items():
        values = [float(episode[name]) for episode in episodes]
        assert mean == pytest.approx(np.mean(values), rel=1e-3, abs=1e-6)
        assert low <= mean <= high and (low < high or np.ptp(values) == 0)
    assert np.ptp([episode["eval/final_dist"] for episode in episodes]) > 0


def test_batches_are_cut_to_the_number_asked_for(toy_runs, monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 2)
    metrics = evaluate.play(*loading.load(toy_runs / "l2_s0", num_eval_envs=1), episodes=5, seed=0)
    assert {values.shape for values in metrics.values()} == {(5,)}
    assert len(set(metrics["eval/final_dist"])) == 5


def test_another_environment_and_an_older_checkpoint(toy_runs, capsys):
    argv = [str(toy_runs / "l2_s0"), "--episodes", "2", "--env_name", "toy_eval", "--step", "100"]
    assert evaluate.main(argv) == 0
    assert "crl in toy_eval, 100 steps, 2 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: shutil.rmtree(run / "checkpoints"), "There is no readable checkpoint in {run}/checkpoints."),
        (lambda run: (run / "config.json").write_text("[]"), "There is no run in {run}: its config.json cannot be"),
        (
            lambda run: edit(run, "flags", "env_name", "moon"),
            "The run {run} cannot be made again: --env_name is 'moon'",
        ),
        (
            lambda run: edit(run, "flags", "shoe", 43),
            f"The run {{run}} was written by goalax {__version__}, which has other flags.",
        ),
        (
            lambda run: edit(run, "agent_flags", "h_dim", 16),
            "The checkpoint {run}/checkpoints/120 does not fit the run",
        ),
        (lambda run: edit(run, "agent_flags", "use_ln", False), "The checkpoint {run}/checkpoints/120 does not fit"),
    ],
)
def test_missing_and_foreign_checkpoints(change, words, toy_runs, tmp_path, capsys):
    shutil.copytree(toy_runs / "l2_s0", tmp_path / "run")
    change(tmp_path / "run")
    assert evaluate.main([str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"evaluate.py: {words.format(run=tmp_path / 'run')}") and error.count("\n") == 1


def edit(run, part, name, value):
    content = json.loads((run / "config.json").read_text())
    content[part][name] = value
    (run / "config.json").write_text(json.dumps(content))


def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(toy_runs, tmp_path, capsys):
    run = shutil.copytree(toy_runs / "l2_s0", tmp_path / "run")
    for file in (run / "checkpoints" / "120").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert evaluate.main([str(run), "--episodes", "2"]) == 0
    out, error = capsys.readouterr()
    assert "100 steps, 2 episodes" in out
    assert error.startswith(f"The checkpoint {run}/checkpoints/120 is damaged") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "It takes one run directory, but 0 are given."),
        (["a", "b"], "It takes one run directory, but 2 are given."),
        (["a", "--episodes", "1"], "--episodes is 1; it must be at least 2."),
        (["none"], "There is no run in none: its config.json cannot be read."),
    ],
)
def test_one_sentence_for_wrong_flags(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(argv) == 2
    assert capsys.readouterr().err == f"evaluate.py: {words}\n"


def test_a_name_of_ogbench_is_one(toy_runs, capsys):
    """Whether it is installed, and whether it fits, is told by its own name."""
    assert evaluate.main([str(toy_runs / "l2_s0"), "--env_name", "ogbench:pointmaze-medium-v0"]) == 2
    error = capsys.readouterr().err
    assert "ogbench:pointmaze-medium-v0" in error and "choose from" not in error and error.count("\n") == 1
