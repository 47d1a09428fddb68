"""The pictures and the table of environments in the README."""

import json

from PIL import Image

from envs import ENVS
from scripts import gallery

NAMES = [name for name in ENVS if not name.startswith("toy")]


def test_table_in_the_readme_is_up_to_date(env_of):
    readme = (gallery.ROOT / "README.md").read_text()
    written = readme.split(gallery.START)[1].split(gallery.END)[0]

    def without_speeds(table):
        return [line.rsplit(" | ", 1)[0] for line in table.splitlines()]

    fresh = gallery.table({name: env_of(name) for name in NAMES})
    assert without_speeds(written) == without_speeds(fresh), "run scripts/gallery.py"


def test_every_environment_has_a_picture():
    files = {path.stem: path for path in (gallery.ROOT / "imgs" / "envs").glob("*")}
    assert set(files) == set(NAMES), "run scripts/gallery.py"
    for path in files.values():
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("PNG", (320, 240))
        assert path.stat().st_size < 30_000


def test_speeds_are_read_from_benchmarks(tmp_path, monkeypatch):
    result = {"flags": {"env_name": "ant", "backend": "spring"}, "env_only": {"median": 12345.6}}
    (tmp_path / "benchmarks").mkdir()
    for name, device in (("a", "2 x cpu (cpu)"), ("b", "1 x NVIDIA H100 80GB HBM3 (gpu)")):
        content = {"machine": {"device": device}, "results": [result]}
        (tmp_path / "benchmarks" / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    assert gallery.speeds() == {("ant", "spring"): "12,346 (cpu), 12,346 (NVIDIA H100 80GB HBM3)"}


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
