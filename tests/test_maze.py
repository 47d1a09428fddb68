"""Pictures of mazes: where their walls, starts and goals lie, what is wrong in one, and the layouts of this release."""

import numpy as np
import pytest

from goalax.commands import train as training
from goalax.envs import ENVS
from goalax.envs.maze import LAYOUTS, parse
from goalax.flags import FlagError
from goalax.host.config import Flags
from goalax.host.resolve import resolve
from tests.helpers.mazes import every_layout, grid_of

COUNTS = {  # layout -> rows, columns, walls, starts, goals, balls
    "u_maze": (5, 5, 18, 1, 6, 0),
    "u_maze_eval": (5, 5, 18, 1, 3, 0),
    "big_maze": (8, 8, 38, 1, 25, 0),
    "big_maze_eval": (8, 8, 38, 1, 10, 0),
    "u_maze_single_eval": (5, 5, 18, 1, 1, 0),
    "big_maze_scaling_eval": (8, 8, 38, 1, 9, 0),
    "hardest_maze": (9, 12, 62, 1, 45, 0),
    **{f"u2_maze{end}": (5, 6, 21, 1, goals, 0) for end, goals in (("", 8), ("_eval", 4), ("_single_eval", 1))},
    **{f"u3_maze{end}": (5, 7, 24, 1, goals, 0) for end, goals in (("", 10), ("_eval", 5), ("_single_eval", 1))},
    **{f"u4_maze{end}": (7, 5, 24, 1, goals, 0) for end, goals in (("", 10), ("_eval", 4), ("_single_eval", 1))},
    **{f"u5_maze{end}": (7, 8, 39, 1, goals, 0) for end, goals in (("", 16), ("_eval", 8), ("_single_eval", 1))},
    **{f"u6_maze{end}": (7, 7, 34, 1, goals, 0) for end, goals in (("", 14), ("_eval", 7), ("_single_eval", 1))},
    **{f"u7_maze{end}": (7, 6, 29, 1, goals, 0) for end, goals in (("", 12), ("_eval", 6), ("_single_eval", 1))},
    "ball_u_maze": (5, 5, 18, 1, 5, 1),
    "ball_big_maze": (8, 8, 38, 1, 20, 2),
}


@every_layout
@pytest.mark.parametrize("size", [4.0, 2.0])
def test_parse_puts_cells_where_the_picture_shows_them(layout, size):
    grid, maze = grid_of(layout), parse(LAYOUTS[layout], size)
    for cell, points in (("R", maze.starts), ("G", maze.goals), ("B", maze.balls), ("#", maze.walls)):
        np.testing.assert_array_equal(points, np.argwhere(grid == cell) * size)
    assert maze.height == 0.5 * size


def test_rows_run_along_x():
    maze = parse("####\n#R.#\n##G#\n####", 4.0)
    np.testing.assert_array_equal(maze.starts, [[4, 4]])
    np.testing.assert_array_equal(maze.goals, [[8, 8]])
    walls = maze.walls.tolist()
    assert [8, 4] in walls and [4, 8] not in walls


WRONG = {
    "": "has no start: none of its rows 1 to 1, '', has a cell R.",
    "####\n#RG#\n###": "is ragged: its row 3, '###', has length 3, and its row 1, '####', has length 4.",
    "####\n\n#RG#\n####": "is ragged: its row 2, '', has length 0, and its row 1, '####', has length 4.",
    "####\n#RG.\n####": "is open: there are cells at its border that are no walls.",
    "#####\n#R#G#\n#####": "has no way from its row 2, column 2 to row 2, column 4: walls part them.",
    "####\n#RX#\n####": "has 'X' in its row 2, '#RX#'; cells are # R G B and . only.",
    "####\nR  G\n####": "has ' ' in its row 2, 'R  G'; cells are # R G B and . only.",
    "####\n#r.#\n####": "has 'r' in its row 2, '#r.#'; cells are # R G B and . only.",
    "####\n#R.#\n####": "has no goal: none of its rows 1 to 3, '#### #R.# ####', has a cell G.",
    "####\n#.G#\n####": "has no start: none of its rows 1 to 3, '#### #.G# ####', has a cell R.",
}
every_wrong_picture = pytest.mark.parametrize("picture", WRONG)


@every_wrong_picture
def test_wrong_pictures_say_what_is_wrong(picture):
    for name, maze in (("my_maze", "The maze my_maze "), ("", "The maze ")):
        with pytest.raises(ValueError) as error:
            parse(picture, 4.0, name)
        assert str(error.value) == maze + WRONG[picture]


@every_wrong_picture
def test_wrong_pictures_are_no_fault_of_the_backend(picture, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(LAYOUTS, "u_maze", picture)
    monkeypatch.chdir(tmp_path)
    sentence = f"The maze u_maze {WRONG[picture]}"
    for flags, flag in (({"env_name": "ant_u_maze"}, "env_name"), ({"eval_env": "ant_u_maze"}, "eval_env")):
        with pytest.raises(FlagError) as error:
            resolve(Flags(**{"env_name": "ant", "backend": "spring"} | flags))
        assert str(error.value) == f"--{flag} is 'ant_u_maze': {sentence}"
    assert training.main(["--env_name", "simple_u_maze"]) == 2
    assert capsys.readouterr().err.endswith(f": --env_name is 'simple_u_maze': {sentence}\n")
    assert not list(tmp_path.iterdir())


def test_what_is_the_fault_of_other_flags_is_blamed_on_them():
    for flags, words in (
        ({"env_name": "ant_push", "backend": "spring"}, "--backend is 'spring' with --env_name ant_push: Unsupported"),
        ({"env_name": "simple_u_maze", "dense_reward": True}, "--dense_reward is True with --env_name simple_u_maze: "),
    ):
        with pytest.raises(FlagError, match=f"^{words}"):
            resolve(Flags(**flags))


def test_a_layout_that_is_not_there_lists_the_choices():
    with pytest.raises(ValueError, match="^Unknown maze layout: foo_maze. Choose from: .*hardest_maze"):
        ENVS["ant_u_maze"].func(layout="foo_maze")


def test_every_layout_of_this_release_is_counted():
    assert set(COUNTS) <= set(LAYOUTS)


@pytest.mark.parametrize("layout", COUNTS)
def test_layouts_have_the_cells_of_the_specification(layout):
    grid = grid_of(layout)
    assert (*grid.shape, *((grid == cell).sum() for cell in "#RGB")) == COUNTS[layout]


@pytest.mark.parametrize(
    ("layout", "longest", "far"),
    [("u2", 8, 5), ("u3", 10, 6), ("u4", 10, 7), ("u5", 16, 9), ("u6", 14, 8), ("u7", 12, 7)],
)
def test_corridors_have_the_lengths_of_the_specification(layout, longest, far):
    """Goals lie on every cell of a corridor, those of `_eval` on its farther ones, a single one on the last."""
    ends = {"": range(1, longest + 1), "_eval": range(far, longest + 1), "_single_eval": [longest]}
    for end, distances in ends.items():
        grid = grid_of(f"{layout}_maze{end}")
        steps = {tuple(np.argwhere(grid == "R")[0]): 0}
        for (row, column), step in (queue := list(steps.items())):
            for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if grid[cell] != "#" and cell not in steps:
                    steps[cell] = step + 1
                    queue.append((cell, step + 1))
        assert sorted(steps[tuple(cell)] for cell in np.argwhere(grid == "G")) == list(distances)


@every_layout
def test_layouts_are_closed_and_connected(layout):
    grid = grid_of(layout)
    border = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    assert (border == "#").all()
    reached, before = grid == "R", None
    while before is None or (reached != before).any():
        before = reached.copy()
        for axis in (0, 1):
            for shift in (-1, 1):
                reached |= np.roll(before, shift, axis) & (grid != "#")
    assert reached[grid == "G"].all()


def test_ball_layouts_are_their_mazes_with_other_cells():
    for layout in ("u_maze", "big_maze"):
        assert ((grid_of(layout) == "#") == (grid_of(f"ball_{layout}") == "#")).all()


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.endswith("_eval")])
def test_eval_layouts_are_their_maze_with_fewer_goals(layout):
    grid, other = grid_of(layout.split("_maze")[0] + "_maze"), grid_of(layout)
    for cell in "#R":
        np.testing.assert_array_equal(grid == cell, other == cell)
    assert (grid[other == "G"] == "G").all() and 0 < (other == "G").sum() < (grid == "G").sum()


def test_the_two_big_mazes_for_evaluation_differ_by_one_goal():
    """As JaxGCRL and scaling-crl's ant have them; the other rows are equal."""
    one, other = grid_of("big_maze_eval"), grid_of("big_maze_scaling_eval")
    assert "".join(one[2]) == "#..#.GG#" and "".join(other[2]) == "#..#..G#"
    assert (one != other).sum() == 1 and "".join(one[5]) == "#.#G.#G#"
