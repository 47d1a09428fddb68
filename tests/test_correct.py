"""`goalax correct`: bad input, and from a run to a table."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from goalax.agents.correctors import blank, network_of
from goalax.agents.distillation import Decisions
from goalax.commands import correct
from goalax.commands import train as training
from goalax.host import corrector_files
from tests.helpers import toy

toy.register()

FEW = ["--data", "few.npz", "--out", "b.npz"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "The first word must be one of collect, train, evaluate"),
        (["learn"], "not 'learn'"),
        (["collect", "--out", "a.npz"], "It takes one run directory, but 0 are given."),
        (["collect", "nowhere", "--out", "a.npz"], "nowhere"),
        (["collect", "x", "--out", "a.txt"], "--out is 'a.txt'; it must name a file that ends in .npz"),
        (["collect", "x", "--out", "no/a.npz"], "in a directory that exists."),
        (["collect", "x", "--out", "folder.npz"], "it must name a file that ends in .npz"),
        (["train", "--data", "few.npz", "--out", "./few.npz"], "--out is './few.npz', the file of --data"),
        (["train", "--data", "a.npz", "--out", "b.npz"], "--data is 'a.npz'; there is no such file."),
        (["train", "--data", "bad.npz", "--out", "b.npz"], "no npz file that can be read"),
        (["train", "--data", "other.npz", "--out", "b.npz"], "holds no z"),
        (["train", *FEW], "--batch_size is 256; few.npz has 4 samples"),
        (["train", *FEW, "--history", "2"], "--history is 2; it means nothing with --architecture two_tower"),
        (["train", *FEW, "--architecture", "lstm"], "choose from: two_tower, temporal"),
        (["train", *FEW, "--architecture", "temporal"], "and so no histories: collect it again"),
        (["train", *FEW, "--architecture", "temporal", "--width", "12"], "a multiple of 8, for example 16."),
        (["evaluate", "x", "--corrector", "no.npz"], "--corrector is 'no.npz'; there is no such file."),
        (["evaluate", "x", "--exec_horizon", "1"], "--exec_horizon is 1; it must be at least 2"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    (tmp_path / "folder.npz").mkdir()
    np.savez("other.npz", x=np.zeros(3))
    few = {name: np.zeros((5, 2), np.float32) for name in Decisions._fields}
    np.savez("few.npz", **few, episode=np.array([0, 0, 0, 0, 1]))
    assert correct.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("correct.py: ") and error.count("\n") == 1 and words in error, error


RUN = [*toy.TINY[: toy.TINY.index("--h_dim")], "--agent", "tdmpc2", "--num_samples", "16", "--num_prior", "4"]
RUN += ["--num_elites", "4", "--iterations", "2", "--encoder_dim", "8", "--h_dim", "8", "--num_q", "2"]


def test_help_names_the_commands(capsys):
    assert correct.main(["--help"]) == 0
    assert "{collect,train,evaluate}" in capsys.readouterr().out


@pytest.mark.slow
def test_from_a_run_to_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*RUN, "--latent_dim", "16", "--exp_name", "tiny"]) == 0
    run = "runs/tiny_s0"
    assert correct.main(["collect", run, "--episodes", "20", "--mismatch", "9", "--out", "data.npz"]) == 0
    data = dict(np.load("data.npz"))
    origin = {name.removeprefix("origin/"): data.pop(name).item() for name in list(data) if name.startswith("origin/")}
    steps = origin.pop("steps")
    rules = {"exec_horizon": 3, "mismatch": 9.0}  # 3 where the run plans at each decision
    assert steps >= 120 and origin == {"run": "tiny_s0", **rules, "teacher": "mean", "seed": 0}
    # Episodes of 10 decisions with plans that are good for 3; at most one died.
    assert 170 < len(data["z"]) <= 200 and {leaf.shape[0] for leaf in data.values()} == {len(data["z"])}
    assert 100 < np.sum(data["old"]) <= 120 and np.sum(data["old"]) <= 0.6 * len(data["z"])
    assert data["z"].shape[1:] == data["expected"].shape[1:] == (16,)
    assert (np.diff(data["episode"]) >= 0).all() and set(data["episode"]) == set(range(20))
    table = ["--episodes", "8", "--mismatch", "9"]
    for name, few in (("two_tower", ["--epochs", "40"]), ("temporal", ["--epochs", "60", "--history", "3"])):
        out = f"{name}.npz"
        flags = ["--data", "data.npz", "--out", out, "--architecture", name, "--width", "16", "--batch_size", "16"]
        assert correct.main(["train", *flags, *few]) == 0
        printed = capsys.readouterr().out
        first, last = (float(word) for word in printed.split("squared error to new plans: ")[1].split()[0:6:5])
        assert last < first
        learned = dict(np.load(out))
        np.savez("other.npz", **{**learned, "width": 24})
        assert correct.main(["evaluate", run, "--corrector", "other.npz", *table]) == 2
        assert "trained for a run of other sizes" in capsys.readouterr().err
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table]) == 0
    printed, error = capsys.readouterr()
    assert not error  # the same run and rules
    rows = [line.strip("│ ").split("│") for line in printed.splitlines() if "│" in line]
    cells = {row[0].strip(): [float(cell) for cell in row[1:]] for row in rows}
    assert list(cells) == ["new ones only", "followed", "corrected"]
    assert all(worst <= median and worst <= mean for mean, median, worst, *_ in cells.values())
    plans = {name: values[4:6] for name, values in cells.items()}
    np.testing.assert_allclose(list(itertools.chain(*plans.values())), [1, 0, 0.4, 0, 0.4, 0.6], atol=0.02)
    # With room for four of eight the others wait for one decision; a corrector that has not learned is the plan itself.
    params = network_of("two_tower", 16).init(jax.random.PRNGKey(0), *blank(1, 1, 16, 2))
    corrector_files.write_corrector(Path("begun.npz"), params, "two_tower", 16, 1)
    assert correct.main(["evaluate", run, "--corrector", "begun.npz", *table, "--replans", "0.4"]) == 0
    rows = [line.strip("│ ").split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    every, followed, corrected = ([float(cell) for cell in row[1:]] for row in rows)
    np.testing.assert_allclose([*followed[4:6], *corrected[4:6]], [0.35, 0, 0.35, 0.6], atol=0.02)
    assert followed[:5] == corrected[:5] and every[4] == 1 and min(row[-1] for row in (every, followed, corrected)) > 0
    assert correct.main(["evaluate", run, "--episodes", "1", "--replans", "0.4"]) == 0
    assert "note: --replans is 0.4, which is room for all of 1 --episodes." in capsys.readouterr().err
    same = ["--seed", "0"]  # the episodes of `collect`
    monkeypatch.setattr(correct, "played", lambda *_: dict.fromkeys(correct.COLUMNS, 0.0))
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table, "--exec_horizon", "2"]) == 0
    there, here = (f"tiny_s0 at {steps:,} steps with --exec_horizon {number} --mismatch 9" for number in (3, 2))
    assert f"note: the corrector learned from {there}; this is {here}." in (error := capsys.readouterr().err)
    assert "are these" not in error
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table, "--exec_horizon", "2", *same]) == 0
    assert capsys.readouterr().err.count("note: the corrector learned from") == 2
    assert correct.main(["evaluate", run, "--corrector", "temporal.npz", *table, *same]) == 0
    assert "learned from episodes of --seed 0, which in the same environment are these." in capsys.readouterr().err
