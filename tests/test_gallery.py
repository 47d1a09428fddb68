"""The pictures and the table of environments in the documents."""

import json
import re

import pytest
from PIL import Image

from goalax.commands import gallery
from goalax.envs import ENVS, GoalEnv
from goalax.envs.maze import LAYOUTS, parse
from goalax.study import markdown
from tests.helpers import ROOT

NAMES = [name for name in ENVS if not name.startswith(("toy", "dm_"))]
PICTURES = gallery.pictured(NAMES)


def written(part):
    """The rows of a table of the documents, and the environments that they show."""
    start, end = markdown.marks(part, "gallery.py")
    table = (ROOT / gallery.DOCUMENTS[part]).read_text().split(start)[1].split(end)[0]
    return table, re.findall(r'^\| <img src="../imgs/envs/(\w+)\.png"', table, re.M)


def without_speeds(table):
    return [line.rsplit(" | ", 1)[0] for line in table.splitlines()]


def test_the_table_is_up_to_date(env_of):
    """An environment that somebody adds may be missing; what is there must be right."""
    table, listed = written("environments")
    assert len(listed) >= 24 and set(listed) <= set(NAMES), "run scripts/gallery.py"
    mentioned = {name for name in NAMES if f"`{name}`" in (ROOT / gallery.DOCUMENTS["mazes"]).read_text()}
    fresh = gallery.table({name: env_of(name) for name in listed}, [name for name in NAMES if name in mentioned])
    assert without_speeds(table) == without_speeds(fresh), "run scripts/gallery.py"


def test_the_table_of_mazes_is_up_to_date(monkeypatch):
    """As the other one. Physics is not needed for it, and so is not made."""
    table, listed = written("mazes")
    layouts = re.findall(r"^\| <img [^|]* \| `(\w+)`", table, re.M)
    names = [name for envs in gallery.mazes(NAMES).values() for name in envs.values() if f"`{name}`" in table]
    assert len(layouts) == len(listed) >= 35 and len(names) >= 101, "run scripts/gallery.py"
    monkeypatch.setattr(GoalEnv, "__init__", lambda self: None)
    fresh = gallery.maze_table({name: ENVS[name]() for name in listed}, names)
    assert without_speeds(table) == without_speeds(fresh), "run scripts/gallery.py"


def test_rows_of_environments_and_mazes():
    names = ["ant", "ant_u_maze", "ant_big_maze", "humanoid_big_maze", "arm_push_easy", "arm_push_hard"]
    assert gallery.families(names) == {
        "ant": ["ant"],
        "ant_u_maze": ["ant_u_maze", "ant_big_maze"],
        "humanoid_big_maze": ["humanoid_big_maze"],
        "arm_push_easy": ["arm_push_easy"],
        "arm_push_hard": ["arm_push_hard"],
    }
    assert gallery.mazes(names) == {
        "u_maze": {"ant": "ant_u_maze"},
        "big_maze": {"ant": "ant_big_maze", "humanoid": "humanoid_big_maze"},
    }
    assert gallery.pictured(names) == names
    assert gallery.pictured([*names, "simple_big_maze", "simple_u_maze"])[6:] == ["simple_big_maze"]


def test_how_far_goals_are_away():
    """By hand: the way through u4_maze has ten cells after the start, and only the last four are for evaluation."""
    for layout, steps in (("u4_maze", range(1, 11)), ("u4_maze_eval", range(7, 11)), ("u5_maze_single_eval", [16])):
        assert gallery.cells_away(parse(LAYOUTS[layout], 2.0)) == list(steps)


def test_every_environment_has_a_picture():
    files = {path.stem: path for path in (ROOT / "imgs" / "envs").glob("*")}
    shown = {name for part in ("environments", "mazes") for name in written(part)[1]}
    assert len(files) >= 56 and set(files) == shown <= set(PICTURES), "run scripts/gallery.py"
    for path in files.values():
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("PNG", (320, 240))
        assert path.stat().st_size < 30_000


def test_speeds_are_read_from_benchmarks(tmp_path, monkeypatch):
    ratio = {"median": 0.987, "min": 0.9, "max": 1.1}
    ant = {"env_name": "ant", "backend": "spring", "num_envs": 64, "steps": {"median": 12345.6}}
    results = [{**ant, "brax": {"median": 12500}, "ratio": ratio}, {**ant, "num_envs": 512, "steps": {"median": 20000}}]
    for name, device in (("cpu/envs.json", "2 x cpu (cpu)"), ("gpu/envs/ant.json", "1 x NVIDIA H100 80GB HBM3 (gpu)")):
        path = tmp_path / "benchmarks" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"machine": {"device": device}, "results": results}))
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    words = "12,346 / 20,000 (cpu), 12,346 / 20,000 (NVIDIA H100 80GB HBM3)"
    assert gallery.speeds() == {("ant", "spring"): words}
    compared = gallery.comparison().splitlines()
    assert compared[2] == "| `ant` | spring | 64 (cpu) | 12,346 | 12,500 | 0.99 (0.90 to 1.10) |" and len(compared) == 4


@pytest.mark.parametrize("text", ["{", "[]", '{"machine": {"device": "x"}, "results": [{"env_name": "ant"}]}'])
def test_a_damaged_file_of_speeds_is_one_sentence_before_anything_is_drawn(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    monkeypatch.delattr(gallery, "create_env")
    path = tmp_path / "benchmarks/cpu/envs.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert gallery.main([]) == 2
    words = f"gallery.py: {path} must be a file of `goalax benchmark --all_envs --out FILE`.\n"
    assert capsys.readouterr().err == words


def test_gallery_is_drawn(env_of, opengl, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    gallery.save_pictures({name: env_of(name) for name in ("ant", "ant_u_maze_eval", "reacher")})
    with Image.open(tmp_path / "imgs" / "grid.png") as grid:
        assert grid.size == (2 * 240 + 8, 180 + 30)
    assert {path.name for path in (tmp_path / "imgs" / "envs").iterdir()} == {
        "ant.png",
        "ant_u_maze_eval.png",
        "reacher.png",
    }


def test_what_is_wrong_with_a_document_is_told_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    monkeypatch.delattr(gallery, "create_env")
    assert gallery.main([]) == 2
    words = f"gallery.py: {tmp_path}/docs/environments.md cannot be read or written: No such file or directory.\n"
    assert capsys.readouterr().err == words
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/environments.md").write_text("nothing")
    assert gallery.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gallery.py: {tmp_path}/docs/environments.md: The document is without a place for envir")
    assert error.count("\n") == 1
