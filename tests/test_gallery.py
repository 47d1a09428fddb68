"""The pictures and the table of environments in the documents."""

import json
import re

from PIL import Image

from goalax.commands import gallery
from goalax.envs import ENVS
from goalax.study import markdown
from tests.helpers import ROOT

NAMES = [name for name in ENVS if not name.startswith("toy")]


def test_the_table_is_up_to_date(env_of):
    """An environment that somebody adds may be missing; what is there must be right."""
    document = (ROOT / gallery.DOCUMENTS["environments"]).read_text()
    start, end = markdown.marks("environments", "gallery.py")
    written = document.split(start)[1].split(end)[0]

    def without_speeds(table):
        return [line.rsplit(" | ", 1)[0] for line in table.splitlines()]

    listed = re.findall(r"^\| <img [^|]* \| `(\w+)`", written, re.M)
    assert len(listed) >= 29 and set(listed) <= set(NAMES), "run scripts/gallery.py"
    fresh = gallery.table({name: env_of(name) for name in listed})
    assert without_speeds(written) == without_speeds(fresh), "run scripts/gallery.py"


def test_every_environment_has_a_picture():
    files = {path.stem: path for path in (ROOT / "imgs" / "envs").glob("*")}
    assert len(files) >= 29 and set(files) <= set(NAMES), "run scripts/gallery.py"
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
