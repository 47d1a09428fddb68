"""Which runs are compared: what is found, grouped, named, left out and said; and the curves of scripts/plot.py."""

import shutil

import numpy as np
import pytest
from experiment_helpers import STEPS, make_run
from film_helpers import count
from matplotlib.colors import to_rgb
from PIL import Image

from scripts import plot
from src import curves, experiments


def test_groups_are_flags_without_the_seed(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"a_s{seed}", seed, (0.5, 1), vis_length=seed)
        make_run(tmp_path / "g" / f"b_s{seed}", seed, (0.4, 0.6), agent_flags={"h_dim": 16})
        make_run(tmp_path / f"c_s{seed}", seed, (0.1, 0.2), env_name="toy_eval", eval_env="toy_eval")
        make_run(tmp_path / f"d_s{seed}", seed, (0.1, 0.2), agent="tmd", agent_flags={"alpha": 1})
    groups, notes = experiments.compare([tmp_path])
    assert notes == []
    named = [(group.label, group.env, [run.seed for run in group.runs]) for group in groups]
    assert named == [
        ("crl, h_dim 8", "toy", [0, 1]),
        ("crl, h_dim 8", "toy_eval", [0, 1]),
        ("tmd", "toy", [0, 1]),
        ("crl, h_dim 16", "toy", [0, 1]),
    ]
    np.testing.assert_array_equal(groups[0].steps, STEPS)
    np.testing.assert_allclose(groups[0].near, [[1 / 6, 1 / 3, 0.5]] * 2)
    np.testing.assert_allclose(groups[3].reached, [[0.2, 0.4, 0.6]] * 2)


def test_names_tell_groups_apart_only_where_nothing_else_does(tmp_path):
    make_run(tmp_path / "a_s0", 0, (0.5, 1), exp_name="before")
    make_run(tmp_path / "b_s0", 0, (0.5, 1), exp_name="after")
    assert [group.label for group in experiments.compare([tmp_path])[0]] == [
        "crl, exp_name before",
        "crl, exp_name after",
    ]


def test_a_repeated_seed_counts_once_and_a_short_run_cuts_its_group(tmp_path):
    make_run(tmp_path / "x_s0", 0, (0.1, 0.1))
    make_run(tmp_path / "x_s0-2", 0, (0.2, 0.2))
    make_run(tmp_path / "x_s0-10", 0, (0.3, 0.3))
    make_run(tmp_path / "x_s1", 1, (0.4, 0.4), steps=STEPS[:2])
    (group,), notes = experiments.compare([tmp_path, tmp_path / "x_s1"])
    assert [run.directory.name for run in group.runs] == ["x_s0-10", "x_s1"]
    np.testing.assert_array_equal(group.steps, STEPS[:2])
    assert notes == [
        f"{tmp_path}/x_s0 is left out: {tmp_path}/x_s0-2 has the same flags and seed.",
        f"{tmp_path}/x_s0-2 is left out: {tmp_path}/x_s0-10 has the same flags and seed.",
        f"{tmp_path}/x_s1 stops at 100 steps: its group is compared up to there only.",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "config.json").unlink(), "There is no run in {run}: its config.json cannot be read."),
        (
            lambda run: (run / "config.json").write_text("{"),
            "There is no run in {run}: its config.json cannot be read.",
        ),
        (
            lambda run: (run / "config.json").write_text('{"flags": {"seed": 1}, "agent_flags": {}}'),
            "The run {run} was written by a version with other flags.",
        ),
        (lambda run: (run / "metrics.csv").unlink(), "The run {run} has no evaluation in its metrics.csv."),
        (lambda run: (run / "metrics.csv").write_bytes(b"\xff\x00"), "The run {run} has no evaluation in its metrics"),
        (lambda run: (run / "metrics.csv").write_text("a,b\n1"), "The run {run} has no evaluation in its metrics.csv."),
        (lambda run: [path.unlink() for path in run.iterdir()], "There is no run in {run}: its config.json cannot"),
        (shutil.rmtree, "There is no directory {run}."),
    ],
)
def test_broken_runs_are_skipped_and_named(change, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, bad = make_run(tmp_path / "good_s0", 0, (0.5, 1)), make_run(tmp_path / "bad_s1", 1, (0.5, 1))
    change(bad)
    assert plot.main([str(good), str(bad)]) == 0
    error = capsys.readouterr().err
    assert error.startswith(f"plot.py: {words.format(run=bad)}") and error.endswith(" It is skipped.\n")
    assert error.count("\n") == 1
    assert plot.main([str(bad)]) == 2
    assert capsys.readouterr().err.endswith(" No run is left to show.\n")


def test_curves_are_interquartile_means_with_bands(tmp_path):
    finals = (0.0, 0.2, 0.4, 0.9)
    for seed, final in enumerate(finals):
        make_run(tmp_path / f"a_s{seed}", seed, (final, 0.5))
        make_run(tmp_path / f"b_s{seed}", seed, (final / 3, 1), env_name="toy_eval", eval_env="toy_eval")
    groups, _ = experiments.compare([tmp_path])
    figure = curves.compare(groups, "wall_clock")
    panels = np.array(figure.axes).reshape(2, 2)
    line, band = panels[0, 1].lines[0], panels[0, 1].collections[0].get_datalim(panels[0, 1].transData)
    np.testing.assert_allclose(line.get_ydata(), 0.3 * np.array([1, 2, 3]) / 3)  # without the lowest and the highest
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
    assert 0 <= band.y0 < 0.1 and 0.3 < band.y1 <= 0.9
    np.testing.assert_allclose(panels[1, 0].lines[0].get_ydata()[-1], 1)
    assert panels[0, 0].get_title() == "toy" and panels[1, 1].get_xlabel() == "wall clock in minutes"
    assert [text.get_text() for text in figure.legends[0].texts] == ["crl"]


def test_plot_of_real_runs(toy_runs, tmp_path, capsys):
    out = tmp_path / "a.png"
    assert plot.main(["--out", str(out), *map(str, sorted(toy_runs.iterdir()))]) == 0
    assert capsys.readouterr() == (f"{out}\n", "")
    picture = Image.open(out)
    assert picture.width == 1200
    of_legend, of_curves = (count(picture, np.array(to_rgb(colour)) * 255, within=10) for colour in curves.COLOURS[:2])
    assert of_legend > 20 and of_curves > 200  # the first group's curves may lie under the second's


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "No run is left to show."),
        (["a", "--x", "time"], "--x is 'time'; choose from: steps, wall_clock."),
        (["a", "--out", "a.jpg"], "--out is 'a.jpg'; it must name a file that ends in .png, in a directory that"),
    ],
)
def test_one_sentence_for_wrong_flags(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plot.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"plot.py: {words}") and error.count("\n") == 1
