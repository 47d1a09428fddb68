"""The stitching split: the order of a corridor, the law of its pairs, exact starts, and names that are impossible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.envs import ENVS, create_env
from goalax.envs.maze import LAYOUTS, grid_of
from goalax.envs.stitching import SPLITS, Stitching, split_of, way_through
from goalax.flags import FlagError
from goalax.host.config import Flags
from goalax.host.resolve import resolve
from tests.helpers.envs import draw

WAYS = {  # (row, column) of every cell, read off the pictures
    "u_maze": [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)],
    "u2_maze": [(1, 1), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4), (3, 3), (3, 2), (3, 1)],
    "u3_maze": [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 5), (3, 5), (3, 4), (3, 3), (3, 2), (3, 1)],
    "u4_maze": [(2, 1), (1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (5, 2), (5, 1), (4, 1)],
    "u5_maze": [
        *[(2, 1), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (2, 6), (3, 6)],
        *[(4, 6), (5, 6), (5, 5), (5, 4), (5, 3), (5, 2), (5, 1), (4, 1)],
    ],
}
NAMES = {  # split -> cells of the way after the start, distances
    "u_maze_gen_1f": (6, (1,)),
    "u_maze_gen_1f2f": (6, (1, 2)),
    "u_maze_gen_1f2f3f": (6, (1, 2, 3)),
    "u_maze_gen_1f2f3f4f": (6, (1, 2, 3, 4)),
    "u2_maze_gen_1f2f3f": (8, (1, 2, 3)),
    "u3_maze_gen_1f2f3f": (10, (1, 2, 3)),
    "u4_maze_gen_1f2f3f": (10, (1, 2, 3)),
    "u5_maze_gen_1f2f3f": (16, (1, 2, 3)),
}


def law_of(layout, cell_size=4.0):
    """The laws of a split, without a body or physics."""
    split = object.__new__(Stitching)
    _, way, split.pairs = split_of(layout)
    split.way = way * cell_size
    return split


def pair(split, key):
    """Start [2] and goal [2] of an episode."""
    goal_key, start_key = jax.random.split(key)
    goal = split.goal_position(goal_key)
    return split.start_position(start_key, goal), goal


@pytest.mark.parametrize("maze", WAYS)
def test_the_way_has_the_order_of_the_corridor(maze):
    np.testing.assert_array_equal(way_through(grid_of(LAYOUTS[maze]), maze), WAYS[maze])


@pytest.mark.parametrize("split", NAMES)
def test_pairs_have_the_law_of_the_paper(split):
    steps, distances = NAMES[split]
    law = {(i, i + k): 1 / len(distances) / (steps + 1 - k) for k in distances for i in range(steps + 1 - k)}
    way = {(4.0 * i, 4.0 * j): index for index, (i, j) in enumerate(WAYS[split.partition("_gen_")[0]])}
    starts, goals = draw(lambda key: pair(law_of(split), key), num=20_000)
    drawn = [(way[tuple(start)], way[tuple(goal)]) for start, goal in zip(starts.tolist(), goals.tolist(), strict=True)]
    counts = {pair: drawn.count(pair) for pair in set(drawn)}
    assert set(counts) == set(law)
    assert stats.chisquare([counts[pair] for pair in law], 20_000 * np.array([*law.values()])).pvalue > 1e-3


def test_the_law_is_not_uniform_over_pairs():
    """Far pairs are fewer, so each is more often than a near one: the chi-square test above tells the two apart."""
    _, _, pairs = split_of("u5_maze_gen_1f2f3f")
    assert pairs[0, 1] < pairs[0, 2] < pairs[0, 3] and pairs[0, 4] == pairs[1, 0] == 0
    assert pairs.sum() == pytest.approx(1) and (pairs > 0).sum() == 16 + 15 + 14
    np.testing.assert_allclose([np.trace(pairs, offset) for offset in (1, 2, 3)], 1 / 3)


@pytest.mark.parametrize("body", ["ant", "humanoid", "simple"])
def test_bodies_start_and_end_exactly_on_cells(body, env_of):
    env = env_of(
        {"ant": "ant_u2_maze_gen_1f2f3f", "humanoid": "humanoid_u_maze_gen_1f"}.get(body, "simple_u_maze_gen_1f2f3f")
    )

    def fresh(key):
        goal_key, start_key = jax.random.split(key)
        goal = env.sample_goal(goal_key)
        return (*env.sample_start(start_key, goal), goal)

    q, qd, goals = draw(fresh, num=200)
    way = env.way.tolist()
    starts, ends = ([way.index(point) for point in points[:, :2].tolist()] for points in (q, goals))  # no noise
    assert env.pairs[starts, ends].min() > 0 and len(set(zip(starts, ends, strict=True))) > 4
    if body == "humanoid":
        np.testing.assert_array_equal(goals[:, 2], 1.25)
        assert env.cell_size == 2.0
    else:
        others = np.concatenate([(q - np.asarray(env.sys.init_q))[:, 2:], qd], axis=1)
        assert (others.std(axis=0) > 0.03).all()  # the other joints keep their noise
    np.testing.assert_array_equal(np.unique(env.maze.starts, axis=0), np.unique(q[:, :2], axis=0))
    np.testing.assert_array_equal(np.unique(env.maze.goals, axis=0), np.unique(goals[:, :2], axis=0))


def test_episodes_of_an_environment_are_pairs_of_the_split(env_functions):
    env, reset, _ = env_functions("simple_u_maze_gen_1f2f3f")
    way, pairs = env.way.tolist(), set()
    for seed in range(20):
        states = reset(jax.random.split(jax.random.key(seed), 8))
        obs = np.asarray(states.obs)
        pairs |= {(way.index(one[:2].tolist()), way.index(one[4:].tolist())) for one in obs}
    assert pairs <= set(zip(*np.nonzero(env.pairs), strict=True)) and len(pairs) > 10


def test_a_goal_by_hand_on_the_first_cell_has_its_start_elsewhere(env_functions):
    """No pair of the split leads there."""
    env, *_ = env_functions("simple_u_maze_gen_1f2f3f")
    first = jnp.asarray(env.way[0], jnp.float32)
    starts = jax.vmap(env.start_position, (0, None))(jax.random.split(jax.random.key(0), 200), first)
    away = jnp.linalg.norm(starts - first[None], axis=1)
    assert float(away.min()) >= env.cell_size and len(np.unique(np.asarray(starts), axis=0)) > 2


@pytest.mark.parametrize("split", NAMES)
def test_what_is_evaluated_is_never_trained(split):
    maze, way, pairs = split_of(split)
    far = np.argwhere(grid_of(LAYOUTS[f"{maze}_eval"]) == "G").tolist()
    trained = [index for index, cell in enumerate(way.tolist()) if cell in far and pairs[0, index]]
    assert trained == ([4] if split.endswith("4f") else [])


def test_every_split_is_registered_for_every_walker():
    assert [f"{maze}_gen_{split}" for maze, splits in SPLITS.items() for split in splits] == list(NAMES)
    assert all(f"{body}_{split}" in ENVS for body in ("ant", "humanoid", "simple") for split in NAMES)
    assert not [name for name in ENVS if "ball" in name and "_gen_" in name]


def test_a_split_is_evaluated_in_its_maze():
    setup = resolve(Flags(env_name="simple_u_maze_gen_1f2f3f", eval_env="simple_u_maze_eval"))
    assert isinstance(setup.env, Stitching) and not isinstance(setup.eval_env, Stitching)
    shapes = [jax.eval_shape(env.reset, jax.random.key(0)).obs.shape for env in (setup.env, setup.eval_env)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ("u_maze_gen_7f", "The split u_maze_gen_7f is impossible: no goal lies 7 cells ahead on a way of 6 cells."),
        (
            "u2_maze_gen_1f9f",
            "The split u2_maze_gen_1f9f is impossible: no goal lies 9 cells ahead on a way of 8 cells.",
        ),
        *(
            (f"u_maze_gen_{split}", f"The split u_maze_gen_{split} is not understood: after _gen_ come different")
            for split in ("", "1", "f", "1b", "0f", "1f1f", "1f2", "-1f", "1f 2f")
        ),
        (
            "big_maze_gen_1f",
            "The maze big_maze cannot be split: it is no corridor, but branches at cell 3 of its row 3,",
        ),
        ("hardest_maze_gen_1f", "The maze hardest_maze cannot be split: it is no corridor, but branches at cell "),
        ("nix_maze_gen_1f", "Unknown maze layout: nix_maze. Choose from: "),
    ],
)
def test_impossible_splits_say_why(layout, sentence):
    for construct in (lambda: ENVS["ant_u_maze_gen_1f"].func(layout=layout), lambda: create_env(f"ant_{layout}")):
        with pytest.raises(ValueError) as error:
            construct()
        assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        ("#####\n#GRG#\n#####", "The maze my_maze cannot be split: it needs one cell R, at one end of its corridor."),
        ("#####\n#RGR#\n#####", "The maze my_maze cannot be split: it needs one cell R, at one end of its corridor."),
        (
            "####\n#RG#\n#GG#\n####",
            "The maze my_maze cannot be split: it needs one cell R, at one end of its corridor.",
        ),
        (
            "#####\n#RG##\n###G#\n#####",
            "The maze my_maze cannot be split: no way leads to cell 4 of its row 3, '###G#'.",
        ),
    ],
)
def test_mazes_that_are_no_corridor_say_why(picture, sentence):
    with pytest.raises(ValueError) as error:
        way_through(grid_of(picture, "my_maze"), "my_maze")
    assert str(error.value) == sentence


def test_a_split_that_is_not_there_is_one_sentence_of_the_command_line():
    with pytest.raises(FlagError, match="^--env_name is 'ant_u_maze_gen_7f'; choose from: ant_u_maze_gen_1f"):
        resolve(Flags(env_name="ant_u_maze_gen_7f"))


def test_a_goal_of_another_law_starts_somewhere_on_the_way():
    """A goal that the split never draws, such as one that is commanded: the start is a cell, and no number is lost."""
    split = law_of("u_maze_gen_1f2f3f")
    starts = draw(lambda key: split.start_position(key, jnp.array([4.1, 3.9])), num=50)
    assert set(map(tuple, starts.tolist())) <= set(map(tuple, split.way.tolist()))
