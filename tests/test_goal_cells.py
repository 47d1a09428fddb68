"""Cells of mazes: success by the cell of the goal, and how many cells the stored states visit, against hand counts."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import goalax
from goalax.commands import report
from goalax.commands import train as training
from goalax.core import buffer, goals
from goalax.core.rollout import Outcomes
from goalax.core.types import Spec, Transition
from goalax.envs.maze import LAYOUTS, parse
from goalax.flags import FlagError
from goalax.host import goal_cells
from goalax.host.goal_cells import GoalCells
from goalax.host.runs import read_metrics
from goalax.study import heat_maps, pictures
from tests.helpers import toy, toy_maze
from tests.helpers.experiments import make_run

toy_maze.register()
CELLS = goals.Cells(np.array([[4.0, 4], [4, 8], [8, 8]]), 4.0)
FLAGS = ["--num_eval_envs", "16", "--env_name", "toy_maze", "--exp_name", "x"]


def test_the_free_cells_of_a_picture_are_all_but_walls():
    maze = parse(LAYOUTS["u_maze_eval"], 4.0)
    assert maze.free.tolist() == [[4, 4], [4, 8], [4, 12], [8, 12], [12, 4], [12, 8], [12, 12]]
    assert len(maze.free) + len(maze.walls) == 25


def test_a_maze_has_cells_and_other_environments_have_none(env_of):
    env = env_of("simple_u_maze")
    np.testing.assert_array_equal(env.cells.centres, env.maze.free)
    assert env.cells.places.tolist() == [[1, 1], [1, 2], [1, 3], [2, 3], [3, 1], [3, 2], [3, 3]]
    assert bool(jnp.all(goals.in_cells(env.cells, jnp.asarray(env.maze.goals)).sum(axis=1) == 1))
    assert env_of("reacher").cells is None


@pytest.mark.parametrize(
    ("goal", "cell"),
    [
        ((4, 4), 0),
        ((5.9, 2.1), 0),
        ((6.1, 4), None),  # in the wall below
        ((4, 6.1), 1),
        ((9, 9, 0.7), 2),  # a height changes nothing
        ((0, 0), None),
        ((-4, 4), None),
        ((1e9, -1e9), None),
        ((4, 4 + 4 * 4096), None),
    ],
)
def test_the_cell_of_a_goal(goal, cell):
    inside = goals.in_cells(CELLS, jnp.array(goal, jnp.float32))
    assert inside.tolist() == [number == cell for number in range(3)]


def ring(states, capacity, unrolls):
    """A ring with rows of two environments [T, 2, 3], written in equal parts."""
    states = jnp.asarray(states, jnp.float32)
    zeros = jnp.zeros(states.shape[:2])
    rows = Transition(states, states[..., :2], zeros[..., None], zeros, zeros, zeros.astype(jnp.int32))
    length = len(states) // unrolls
    made = buffer.init(jax.tree.map(lambda leaf: leaf[0], rows), capacity, length)
    for i in range(unrolls):
        made = buffer.add(made, jax.tree.map(lambda leaf, i=i: leaf[i * length : (i + 1) * length], rows))
    return made


def test_coverage_counts_cells_of_stored_states_only():
    spec = Spec(state_size=3, goal_size=2, action_size=1, goal_indices=(1, 2), discounting=0.9, goal_reach_thresh=1)
    at_origin = goals.Cells(np.array([[0.0, 0], [4, 4], [4, 8], [8, 8]]), 4.0)  # where empty rows would lie
    way = [[[0, 4, 4], [0, 4, 4.5]], [[0, 5, 5], [0, 4, 7]], [[0, 20, 20], [0, 4, 4]], [[0, 8, 8], [0, 4, 8]]]
    coverage = lambda rows, capacity, unrolls, cells: buffer.coverage(ring(rows, capacity, unrolls), spec, cells)  # noqa: E731
    assert coverage(way[:2], 6, 1, at_origin) == 2 / 4  # (4, 4) and (4, 8); the empty rows are not counted
    assert coverage(way, 6, 2, at_origin) == 3 / 4
    assert coverage(way, 2, 2, CELLS) == 3 / 3
    assert coverage(way[:1] * 2 + way[2:3] * 2, 2, 2, CELLS) == pytest.approx(1 / 3)  # the first two are overwritten


def by_hand(outcomes):
    """(episodes, reached, time at the goal) of every cell, in loops."""
    cells = [[] for _ in toy_maze.CENTRES]
    for goal, *values in zip(outcomes.goal, outcomes.reached, outcomes.time_at_goal, strict=True):
        (cell,) = (i for i, centre in enumerate(toy_maze.CENTRES) if np.abs(goal - centre).max() < toy_maze.SIZE / 2)
        cells[cell].append(values)
    return [(len(values), *(np.mean(values, axis=0) if values else (np.nan, np.nan))) for values in cells]


def test_a_run_that_never_collects_covers_nothing_and_says_nothing():
    sizes = {"num_envs": 2, "num_eval_envs": 2, "batch_size": 4, "h_dim": 4, "n_hidden": 1, "repr_dim": 4}
    run = goalax.make("toy_maze", dataset="x.npz", offline_steps=5, num_timesteps=0, **sizes)
    told, _, _ = jax.eval_shape(run.train.evaluate, jax.eval_shape(run.train.init, run.keys(0)))
    assert "eval/falls" in told and "training/coverage" not in told


@pytest.mark.slow
@pytest.mark.parametrize(("num_seeds", "num_devices"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_coverage_and_goals_of_a_run_from_python(num_seeds, num_devices):
    sizes = {"num_envs": 4, "num_eval_envs": 16, "unroll_length": 5, "min_replay_size": 10, "max_replay_size": 40}
    sizes |= {"batch_size": 8, "h_dim": 8, "n_hidden": 1, "repr_dim": 4}
    run = goalax.make("toy_maze", num_seeds=num_seeds, num_devices=num_devices, **sizes)
    state = run.advance(run.start(), 2)
    metrics, _, outcomes = jax.device_get(run.compiled.evaluate(state))
    lead = () if num_seeds == 1 else (num_seeds,)
    assert metrics["training/coverage"].shape == metrics["eval/falls"].shape == lead
    rows, stored = np.asarray(state.buffer.rows.state), np.atleast_1d(state.buffer.count)
    for seed in range(num_seeds):
        of_seed = lambda leaf, seed=seed: leaf if num_seeds == 1 else leaf[seed]  # noqa: E731
        seen = of_seed(rows)[: stored[seed]].reshape(-1, 2)
        visited = [np.abs(seen - centre).max(axis=1).min() < toy_maze.SIZE / 2 for centre in toy_maze.CENTRES]
        assert of_seed(metrics["training/coverage"]) == np.mean(visited) > 0
        outcome = jax.tree.map(of_seed, outcomes)
        table = GoalCells.of(toy_maze.ToyMaze.cells, outcome, 7)
        expected = np.array(by_hand(outcome))
        np.testing.assert_allclose(
            np.stack([table.episodes, table.reached, table.time_at_goal], 1), expected, rtol=1e-6
        )
        assert table.episodes[0] == 0 and table.episodes.sum() == 16 and np.nanmax(table.reached) > 0
        counted = table.episodes > 0
        mean = np.sum(table.reached[counted] * table.episodes[counted]) / 16
        assert mean == pytest.approx(of_seed(metrics["eval/episode_success_any"]))


@pytest.mark.slow
def test_runs_in_a_maze_leave_goals_and_a_picture_and_others_do_not(tmp_path, monkeypatch, toy_runs):
    monkeypatch.chdir(tmp_path)
    assert training.main([*toy.TINY, *FLAGS, "--num_seeds", "2"]) == 0
    for seed in range(2):
        folder = tmp_path / "runs" / f"x_s{seed}"
        table, last = goal_cells.read(folder), read_metrics(folder / "metrics.csv")[-1]
        assert table.episodes.sum() == 16 and table.envsteps == last["training/envsteps"] == 120
        assert np.nansum(table.time_at_goal * table.episodes) / 16 == pytest.approx(last["eval/time_at_goal"])
        assert last["training/coverage"] in (0.25, 0.5, 0.75, 1) and 0 <= last["eval/falls"] <= 1
        assert Image.open(folder / "goals.png").width > 300
    assert not list(toy_runs.glob("*/goals.*"))
    assert all("training/coverage" not in row for row in read_metrics(toy_runs / "l2_s0" / "metrics.csv"))
    assert report.main(["runs", "--out", "a.html"]) == 0
    assert "Goals of the maze" in (tmp_path / "a.html").read_text()


def test_goals_tell_the_steps_that_metrics_csv_tells(here):
    """After a dataset, too: what is learned from it are updates, no steps."""
    data = ["--dataset", "data.npz", "--offline_steps", "10", "--num_evals", "1"]
    assert training.main([*toy.TINY, *FLAGS, *data]) == 0
    last = read_metrics(here / "runs" / "x_s0" / "metrics.csv")[-1]
    folder = here / "runs" / "x_s0"
    table = goal_cells.read(folder)
    assert table.envsteps == last["training/envsteps"] == 120
    goal_cells.save(folder, table._replace(envsteps=60, reached=np.zeros(len(table.reached))))  # killed behind the row
    assert training.main([*toy.TINY, *FLAGS, *data, "--resume"]) == 0
    for again, before in zip(goal_cells.read(folder), table, strict=True):
        np.testing.assert_array_equal(again, before)


def table_of(reached, near=(0.5, 0.25, 0.125), goal=((4, 8), (4, 8), (8, 8))):
    return GoalCells.of(CELLS, Outcomes(np.array(goal, np.float32), np.array(reached, float), np.array(near)), 100)


def test_seeds_are_merged_episode_by_episode():
    first, second = table_of((1, 0, 1)), table_of((1,), (0.75,), ((4, 8),))
    both = goal_cells.merged([first, second])
    np.testing.assert_array_equal(both.episodes, [0, 3, 1])
    np.testing.assert_allclose(both.reached, [np.nan, 2 / 3, 1])
    np.testing.assert_allclose(both.time_at_goal, [np.nan, 0.5, 0.125])
    other = first._replace(place=first.place + 1)
    assert goal_cells.merged([]) is None is goal_cells.merged([first, other])


def test_the_file_is_read_as_it_was_written(tmp_path):
    assert goal_cells.read(tmp_path) is None
    table = table_of((1, 0, 1))
    goal_cells.save(tmp_path, table)
    for wrote, got in zip(table, goal_cells.read(tmp_path), strict=True):
        np.testing.assert_array_equal(wrote, got)
    with (tmp_path / "goals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["x"], row["episodes"], row["reached"]) for row in rows] == [
        ("4.0", "0", ""),
        ("4.0", "2", "0.5"),
        ("8.0", "1", "1.0"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["goals.csv"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "a,b\n1,2\n",
        lambda text: text[:-8],
        lambda text: text.replace("4.0", "x"),
        lambda text: text.replace("0.5", "1.5"),
        lambda text: text.replace("1,1,", "-1,1,"),
        lambda text: text.replace("1,1,", "1,10000000,"),
        lambda text: text.replace("100", "nan"),
        lambda text: text.splitlines()[0] + "\n",
        lambda text: "\0",
    ],
)
def test_a_strange_file_is_one_sentence_and_left_out_of_the_report(change, tmp_path):
    for seed in range(2):
        goal_cells.save(make_run(tmp_path / f"a_s{seed}", seed, (0.5, 1)), table_of((1, 0, 1)))
    path = tmp_path / "a_s0" / "goals.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(FlagError, match="goals.csv is not what a run writes"):
        goal_cells.read(path.parent)
    heat_maps.draw(path.parent, "a")
    assert not (path.parent / "goals.png").exists()
    assert report.main([str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text()
    assert f"{path} is not what a run writes. It is left out." in text and "Goals of the maze" in text


def test_seeds_whose_mazes_disagree_have_no_heat_map_and_a_note(tmp_path):
    for seed in range(2):
        table = table_of((1, 0, 1))
        goal_cells.save(make_run(tmp_path / f"a_s{seed}", seed, (0.5, 1)), table._replace(place=table.place + seed))
    assert report.main([str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0
    text = (tmp_path / "a.html").read_text()
    assert "crl in toy has no heat map: its seeds tell of different mazes." in text and "Goals of the maze" not in text


def test_the_picture_shows_shares_walls_and_numbers():
    figure = heat_maps.figure(table_of((1, 0, 1)), "a run")
    reached, near = figure.axes[:2]
    assert [text.get_text() for text in reached.texts] == ["50%\n2", "100%\n1"]
    assert [text.get_text() for text in near.texts] == ["38%\n2", "12%\n1"]
    assert [text.get_position() for text in reached.texts] == [(2, 1), (2, 2)]
    free = np.asarray(reached.images[0].get_array())
    np.testing.assert_array_equal(free, [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])


def test_a_name_with_dollars_is_no_formula_in_either_picture(tmp_path, monkeypatch):
    run, titles = make_run(tmp_path / "a$_$b_s0", 0, (0.5, 1)), []
    goal_cells.save(run, table_of((1, 0, 1)))

    def seen(figure, *args, **options):
        titles.append(figure.get_suptitle() or figure.axes[0].get_title())
        return save(figure, *args, **options)

    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", seen)
    pictures.draw(run)
    assert titles == [r"a\$_\$b_s0"] * 2 and (run / "curves.png").is_file() and (run / "goals.png").is_file()
