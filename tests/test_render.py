"""Pictures of films, as GIF and MP4."""

import itertools
import re
import sys
import types

import av
import numpy as np
import pytest
from PIL import Image

from goalax.films import render, scene
from tests.helpers.films import count, film_of, rgb


@pytest.fixture(scope="module")
def pictures(env_of, opengl):
    return list(render.pictures(env_of("ant"), film_of(env_of("ant")), note="   x2"))


def test_pictures_show_the_motion(pictures):
    assert len(pictures) == 13
    assert all(picture.tobytes() != other.tobytes() for picture, other in itertools.pairwise(pictures))
    assert all(count(picture, rgb(scene.BODY)) > 100 for picture in pictures)


def test_success_is_marked(pictures):
    green = rgb(scene.REACHED)
    assert [count(picture, green) > 2000 for picture in pictures] == [False] * 12 + [True]  # a border is 4,416 pixels
    assert count(pictures[-1].crop((60, 40, 260, 200)), green, 60) > 50  # and the marker


def test_captions(env_of, opengl):
    env = env_of("ant")
    dark = [count(next(render.pictures(env, film_of(env, caption=words))), (40, 48, 56)) for words in ("", "words")]
    assert dark[0] == 0 and dark[1] > 50


def test_gif_is_in_real_time_or_short(env_of, opengl, tmp_path, monkeypatch):
    env = env_of("reacher")
    render.save_gif(env, film_of(env), tmp_path / "a.gif")  # 13 frames of 20 ms, one in four is shown
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.format, gif.size, gif.n_frames, gif.info["duration"]) == ("GIF", (320, 240), 4, 80)
        assert gif.info["loop"] == 0
    monkeypatch.setattr(render, "GIF_FRAMES", 2)
    render.save_gif(env, film_of(env), tmp_path / "b.gif", size=(120, 160))
    with Image.open(tmp_path / "b.gif") as gif:
        assert (gif.size, gif.n_frames) == ((160, 120), 2)


@pytest.mark.parametrize("name, rate, frames", [("ant", 20, 13), ("reacher", 50, 13)])
def test_mp4(name, rate, frames, env_of, opengl, tmp_path):
    env = env_of(name)
    render.save_mp4(env, film_of(env), tmp_path / "a.mp4", size=(120, 160))
    with av.open(tmp_path / "a.mp4") as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 160, 120)
        assert float(stream.average_rate) == pytest.approx(rate)
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    assert len(shown) == frames
    first = np.asarray(next(render.pictures(env, film_of(env), (120, 160))), float)
    assert np.abs(shown[0] - first).mean() < 6


def test_software_rendering_is_taken_where_egl_fails(monkeypatch):
    tried = []

    def run(command, **_):
        tried.append(re.search(r"mujoco\.(\w+)", command[-1])[1])
        return types.SimpleNamespace(returncode=0 if tried[-1] in working else 1)

    monkeypatch.setattr(render.subprocess, "run", run)
    monkeypatch.setattr(render.sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(render.gl_context, "GLContext", None, raising=False)
    fake = types.SimpleNamespace(GLContext="an OSMesa context")
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", fake)
    working = {"osmesa"}
    render.choose_opengl.__wrapped__()
    assert tried == ["egl", "osmesa"] and render.gl_context.GLContext == fake.GLContext
    working = set()
    with pytest.raises(scene.RenderError, match="neither EGL nor OSMesa"):
        render.choose_opengl.__wrapped__()
    monkeypatch.setenv("MUJOCO_GL", "egl")
    render.choose_opengl.__wrapped__()
    assert len(tried) == 4, "MUJOCO_GL is taken at its word"
