"""Tests of scripts/distances.py: places and shortest paths by hand, and the script on a run."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

import goalax
from goalax.commands import distances
from goalax.commands import train as training
from goalax.envs.maze import LAYOUTS, parse

U_MAZE = parse(LAYOUTS["u_maze"], 4.0)


def test_places_are_the_middles_of_parts_of_free_cells():
    free, where = distances.places(U_MAZE, 2)
    assert free.shape == (10, 10) and free.sum() == 4 * 7
    np.testing.assert_allclose(where[2, 2], [3, 3])  # the corner of cell (1, 1), whose middle is (4, 4)
    free, where = distances.places(U_MAZE, 1)
    assert {tuple(place) for place in where[free]} == {tuple(cell) for cell in (*U_MAZE.starts, *U_MAZE.goals)}


def test_shortest_paths_go_around_walls_and_cut_no_corner():
    free, _ = distances.places(U_MAZE, 1)
    paths = distances.shortest_paths(free, 4.0)
    np.testing.assert_allclose(paths, paths.T)
    assert paths[0, -1] == 4 * 4.0  # from the start to the far corner
    assert paths.max() == 6 * 4.0  # from end to end of the U


def test_shortest_paths_take_diagonals_in_the_open():
    paths = distances.shortest_paths(np.ones((3, 3), bool), 1.0)
    np.testing.assert_allclose(paths[0], [0, 1, 2, 1, 2**0.5, 1 + 2**0.5, 2, 1 + 2**0.5, 2 * 2**0.5])


@pytest.mark.parametrize(
    ("argv", "word"), [([], "--run"), (["--run", "nowhere"], "nowhere"), (["--resolution", "0"], "at least 1")]
)
def test_bad_flags(argv, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert distances.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("distances.py: ") and error.count("\n") == 1 and word in error


def test_numbers_are_those_of_what_the_critic_says(tmp_path, monkeypatch):
    """Of a critic that knows the straight way, and that every step east costs a tenth of a metre more."""
    run = goalax.make("simple_u_maze", num_envs=4, num_timesteps=8000)

    def score(state, here, there):
        way = (there - here)[..., jnp.array(run.env.goal_indices)]
        return -jnp.linalg.norm(way, axis=-1) - 0.1 * jnp.maximum(way[..., 0], 0)

    train = types.SimpleNamespace(score=score)
    known = types.SimpleNamespace(config=run.config, env=run.env, train=train)
    state = types.SimpleNamespace(env_steps=0, gradient_steps=0, offline_updates=0)
    monkeypatch.setattr(distances, "load", lambda folder, step: (known, state))
    numbers = distances.measure(distances.DistancesConfig(run=str(tmp_path), resolution=1))
    free, where = distances.places(run.env.maze, 1)
    way = where[free][None] - where[free][:, None]  # [from, to]
    learned = np.linalg.norm(way, axis=-1) + 0.1 * np.maximum(way[..., 0], 0)
    np.testing.assert_allclose(distances.learned_distances(known, state, where[free]), learned, rtol=1e-5)
    others = ~np.eye(len(learned), dtype=bool)
    paths = distances.shortest_paths(free, 4.0)
    np.testing.assert_allclose(numbers["spearman"], spearmanr(learned[others], paths[others])[0], rtol=1e-3)
    np.testing.assert_allclose(numbers["mean_distance"], learned[others].mean(), rtol=1e-5)
    np.testing.assert_allclose(numbers["mean_asymmetry"], 0.1 * np.abs(way[..., 0])[others].mean(), rtol=1e-4)


@pytest.mark.slow
def test_distances_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = "--env_name simple_u_maze --agent tmd --num_envs 16 --num_timesteps 12000 --min_replay_size 250 --h_dim 32"
    assert training.main([*flags.split(), "--episode_length=50", "--num_evals=1", "--vis_length=0"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert distances.main(["--run", str(run), "--resolution", "2"]) == 0
    numbers = json.loads((run / "distances.json").read_text())
    assert numbers["places"] == 28 and -1 <= numbers["spearman"] <= 1 and numbers["mean_distance"] > 0
    assert f"spearman: {numbers['spearman']:.3f}" in capsys.readouterr().out
    assert (run / "distances.png").stat().st_size > 10_000
