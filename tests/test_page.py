"""The page of a film: what it holds, and that a browser without network draws it."""

import base64
import re

import mujoco
import numpy as np
import pytest
from PIL import Image

from goalax.films import page, scene
from tests.helpers.films import count, data_of, film_of, rgb


def test_page_holds_every_pose(env_of, tmp_path):
    env = env_of("ant_u_maze")
    film = film_of(env, caption="a </script> & b")
    page.save(env, film, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "{{" not in text and "<title>a &lt;/script&gt; &amp; b</title>" in text
    data = data_of(text)
    poses = np.frombuffer(base64.b64decode(data["poses"]), np.float32).reshape(film.frames, data["bodies"], 7)
    model = scene.model_of(env)
    state = mujoco.MjData(model)
    for frame in (0, 7):
        state.qpos[:] = film.q[frame]
        mujoco.mj_kinematics(model, state)
        at = model.body_mocapid == -1
        np.testing.assert_allclose(poses[frame, at[1:], :3], state.xpos[1:][at[1:]], atol=1e-5)
        np.testing.assert_allclose(poses[frame, at[1:], 3:], state.xquat[1:][at[1:]], atol=1e-5)
        np.testing.assert_allclose(poses[frame, ~at[1:], :3], film.points[frame], atol=1e-5)
    assert base64.b64decode(data["success"]) == bytes([0] * 12 + [1]) and data["starts"] == [0, 5]
    assert data["seconds"] == pytest.approx(0.05)


def test_page_needs_no_network_and_is_small(env_of, tmp_path):
    env = env_of("ant")
    film = film_of(env)
    page.save(env, film, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert not re.search(r"//[\w-]+\.|\b(src|href)=|@import|\bimport\(|fetch\(|XMLHttp|url\(", text)
    assert (tmp_path / "a.html").stat().st_size + 1000 * 4 / 3 * 4 * 7 * data_of(text)["bodies"] < 1e6  # 1,000 frames


def test_page_says_which_geoms_it_cannot_show(env_of, monkeypatch, tmp_path):
    model = scene.model_of(env_of("ant"))
    model.geom_type[3] = mujoco.mjtGeom.mjGEOM_HFIELD
    monkeypatch.setattr(scene, "model_of", lambda env: model)
    with pytest.raises(scene.RenderError, match="HFIELD"):
        page.save(env_of("ant"), film_of(env_of("ant")), tmp_path / "a.html")


@pytest.mark.slow
def test_page_draws_in_a_browser_without_network(env_of, browser, tmp_path):
    env = env_of("ant")
    page.save(env, film_of(env), tmp_path / "a.html")

    def browse(fragment, *what):
        return browser((tmp_path / "a.html").as_uri() + fragment, "--window-size=640,480", *what).stdout

    shots = []
    for frame in (1, 7, 12):
        browse(f"#frame={frame}", f"--screenshot={tmp_path / 'shot.png'}")
        shots.append(Image.open(tmp_path / "shot.png").convert("RGB").crop((0, 60, 640, 400)))  # the view only
    body = rgb(scene.BODY)
    assert all(count(shot, body) > 300 for shot in shots)
    assert np.mean(np.asarray(shots[0]) != np.asarray(shots[1])) > 0.01
    pixels = np.asarray(shots, int)
    red, green = ((pixels[..., a] - pixels[..., b] > 40).sum((1, 2)) for a, b in ((0, 1), (1, 0)))
    assert green[:2].max() < 20 < green[2]
    assert (red[:2] > count(shots[0], body)).all()

    def written(fragment):
        for _ in range(3):  # on a busy machine the browser may print the page before its script has run
            words = browse(fragment, "--dump-dom")
            if "goal 2 of 2" in words:
                break
        return words

    words = written("#frame=7")
    assert re.search(r"goal 2 of 2 +step 3 +0\.15 s", words) and '<span id="badge" class="on">' not in words
    assert '<span id="badge" class="on">' in written("#frame=12")
