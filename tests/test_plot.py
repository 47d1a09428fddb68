"""The curves of scripts/plot.py: what their lines, axes and legends show, performance profiles, and its flags."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from goalax.commands import evaluate, plot, report
from goalax.study import curves, experiments, profiles
from tests.helpers.experiments import make_run
from tests.helpers.films import count


@pytest.mark.parametrize(("script", "words"), [(plot, "RUNS"), (report, "RUNS"), (evaluate, "RUN")])
def test_help(script, words, capsys):
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    out = capsys.readouterr().out
    usage = " ".join(out.split("\n\n")[0].split())
    assert end.value.code == 0 and words in usage and "run director" in out


def test_curves_are_interquartile_means_with_bands(tmp_path):
    finals = (0.0, 0.2, 0.4, 0.9)
    for seed, final in enumerate(finals):
        make_run(tmp_path / f"a_s{seed}", seed, (final, 0.5))
        make_run(tmp_path / f"b_s{seed}", seed, (final / 3, 1), env_name="toy_eval", eval_env="toy_eval")
    groups, _ = experiments.compare([tmp_path])
    figure = curves.compare(groups, "wall_clock").figure
    panels = np.array(figure.axes).reshape(2, 2)
    line, band = panels[0, 1].lines[0], panels[0, 1].collections[0].get_datalim(panels[0, 1].transData)
    np.testing.assert_allclose(line.get_ydata(), 0.3 * np.array([1, 2, 3]) / 3)  # without the lowest and the highest
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
    assert 0 <= band.y0 < 0.1 and 0.3 < band.y1 <= 0.9
    np.testing.assert_allclose(panels[1, 0].lines[0].get_ydata()[-1], 1)
    assert panels[0, 0].get_title() == "toy" and panels[1, 1].get_xlabel() == "wall clock in minutes"
    assert [text.get_text() for text in figure.legends[0].texts] == ["crl"]
    assert "mean over 4 seeds, bands are 95%" in figure.get_supxlabel()


@pytest.mark.parametrize(
    ("names", "label", "left"),
    [
        (["online"], "environment steps", 0),
        (["offline"], "updates", 0),
        (["online", "offline"], "environment steps, of offline runs updates", 0),
        (["after"], "environment steps, left of 0 updates on a dataset", -20),
        (["after", "offline"], "environment steps, left of 0 and of offline runs updates", -20),
    ],
)
def test_the_horizontal_axis_says_what_all_its_runs_count(names, label, left, tmp_path):
    """And the wall clock begins at 0 whatever came before the first step."""
    runs = {
        "online": {"agent": "crl"},
        "offline": {"agent": "gcbc", "steps": (0, 0, 0), "updates": (20, 40, 60)},
        "after": {"agent": "qrl", "steps": (0, 0, 60), "updates": (20, 40, 40)},
    }
    for name in names:
        make_run(tmp_path / f"{name}_s0", 0, (0.5, 1), **runs[name])
    groups, _ = experiments.compare([tmp_path])
    for axes in curves.compare(groups, "steps").figure.axes:
        assert (axes.get_xlabel(), axes.get_xlim()[0]) == (label, left)
    for axes in curves.compare(groups, "wall_clock").figure.axes:
        assert (axes.get_xlabel(), axes.get_xlim()[0]) == ("wall clock in minutes", 0)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """More groups than there are line styles, with labels of two lines."""
    folder = tmp_path_factory.mktemp("crowd")
    long = {f"name_of_a_flag_{letter}": letter * 20 for letter in "abcd"}
    for index in range(26):
        flags = {name: f"{value}{index}" for name, value in long.items()}
        make_run(folder / f"x{index}_s0", 0, (index / 26, 1), steps=(60,), agent_flags=flags)
    return experiments.compare([folder])[0]


def test_the_legend_is_inside_the_picture_whatever_the_labels(crowd, toy_runs):
    for groups in (crowd, crowd[:3], experiments.compare([toy_runs])[0]):
        figure = curves.compare(groups, "steps").figure
        FigureCanvasAgg(figure).draw()
        box, (legend,) = figure.bbox, figure.legends
        inside = legend.get_window_extent()
        assert box.x0 <= inside.x0 and inside.x1 <= box.x1 and inside.y1 <= box.y1
        assert all(axes.get_window_extent().height > 150 for axes in figure.axes)


def test_no_two_labels_share_a_style(crowd):
    styles = curves.styles_of(crowd)
    assert len(styles) == 25 and len({str(style) for style in styles.values()}) == 25
    assert list(styles)[-1] == "2 others, which end lower" and crowd[0].label not in styles
    lines = curves.compare(crowd, "steps").figure.axes[1].lines
    assert [line.get_color() for line in lines if line.get_ydata()[0] < 0.07] == [curves.OTHERS] * 2


def test_profiles_are_shares_of_runs_of_agents_in_all_environments(tmp_path, capsys):
    for seed, final in enumerate((0.0, 0.25, 0.5, 0.9)):
        for env in ("toy", "toy_eval"):
            make_run(tmp_path / f"{env}_a_s{seed}", seed, (final, final / 2), env_name=env, eval_env=env)
        make_run(tmp_path / f"b_s{seed}", seed, (1, 1), agent="tmd")  # in one of them only
    groups, _ = experiments.compare([tmp_path])
    figure = profiles.compare(groups).figure
    reached, near = figure.axes
    for axes, scores in ((near, (0.0, 0.25, 0.5, 0.9)), (reached, (0.0, 0.125, 0.25, 0.45))):
        (line,) = axes.lines
        np.testing.assert_allclose(line.get_xdata(), profiles.TAUS)
        np.testing.assert_allclose(line.get_ydata(), [np.mean(np.array(scores) > tau) for tau in profiles.TAUS])
    assert [text.get_text() for text in figure.legends[0].texts] == ["crl"]
    assert "mean over 2 environments" in figure.get_supxlabel()
    out = tmp_path / "a.png"
    assert plot.main([str(tmp_path), "--x", "score", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n" and Image.open(out).width == 1200


def test_a_profile_of_one_run_is_refused_in_one_sentence(tmp_path, capsys):
    make_run(tmp_path / "a_s0", 0, (0.5, 1))
    assert plot.main([str(tmp_path), "--x", "score", "--out", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err == (
        "plot.py: A performance profile needs an agent with at least two runs, in every environment one.\n"
    )


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
        ([], "RUNS is missing; name run directories, or folders whose runs are meant, such as runs."),
        (["a", "--x", "time"], "--x is 'time'; choose from: steps, wall_clock, score."),
        (["a", "--out", "a.jpg"], "--out is 'a.jpg'; it must name a file that ends in .png, in a directory that"),
        (["a", "--out", "."], "--out is '.'; it must name a file that ends in .png, in a directory that"),
        (["a", "--out", "b/a.png"], "--out is 'b/a.png'; it must name a file that ends in .png, in a directory that"),
    ],
)
def test_one_sentence_for_wrong_flags(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plot.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"plot.py: {words}") and error.count("\n") == 1


def test_no_formula_is_read_from_a_name():
    names = curves.Legend.of(["a$_$b"]).names
    figure = Figure()
    figure.suptitle(names["a$_$b"])
    figure.savefig(io.BytesIO())
    assert names == {"a$_$b": r"a\$_\$b"}
