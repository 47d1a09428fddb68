"""Films: what they show, as pictures, GIF, MP4, and as the page, opened in a browser without network."""

import base64
import itertools
import json
import re
import shutil
import subprocess
import sys
import types

import av
import mujoco
import numpy as np
import pytest
from PIL import Image

import training
import utils
from envs import ENVS, create_env
from scripts import gallery
from scripts import render as script
from src import page, render, scene
from src.rollout import Recording

NAMES = [name for name in ENVS if not name.startswith("toy")]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def env_of(env_functions):
    return lambda name: env_functions(name).env


@pytest.fixture(scope="module")
def opengl():
    try:
        render.choose_opengl()
    except render.RenderError as error:
        pytest.skip(str(error))


def recording_of(env, steps=8):
    """Two made-up episodes: the joints go their way, the goal is reached in the last step, the first one ends early."""
    q = np.tile(env.sys.init_q, (steps, 2, 1)) + 0.1 * np.arange(steps)[:, None, None]
    goal = np.tile(np.linspace(0.1, 0.2, 2 * env.goal_dim).reshape(2, -1), (steps, 1, 1))
    alive = np.ones((steps, 2), bool)
    alive[5:, 0] = False
    success = np.zeros((steps, 2))
    success[-1] = 1
    return Recording(q, goal, success, alive)


def film_of(env, length=100, caption="words"):
    return scene.film(env, recording_of(env), length, caption)


def count(picture, colour, within=40):
    """Pixels of about that colour."""
    return int((np.abs(np.asarray(picture.convert("RGB"), int) - colour).max(-1) < within).sum())


# ---- Films -----------------------------------------------------------------------------------------------------------


def test_film_has_episodes_one_after_the_other_and_nothing_after_their_end(env_of):
    film = film_of(env_of("reacher"))
    assert len(film) == 5 + 8
    np.testing.assert_array_equal(film.episode, [0] * 5 + [1] * 8)
    np.testing.assert_array_equal(film.step, [1, 2, 3, 4, 5, *range(1, 9)])
    np.testing.assert_array_equal(np.flatnonzero(film.success), [12])
    recording = recording_of(env_of("reacher"))
    np.testing.assert_array_equal(film.q, np.concatenate([recording.q[:5, 0], recording.q[:, 1]]))
    np.testing.assert_allclose(film.points[[0, -1], 0], recording.goal[0], rtol=1e-6)
    assert film.seconds == pytest.approx(0.02)
    assert len(film_of(env_of("reacher"), length=7)) == 7
    assert film.every(3).step.tolist() == [1, 4, 2, 5, 8] and film.every(3).seconds == pytest.approx(0.06)


@pytest.mark.parametrize(
    "goal, points",
    [([3], [[3, 0, 0.5]]), ([3, 4], [[3, 4, 0.5]]), (range(3), [range(3)]), (range(6), [[0, 1, 2], [3, 4, 5]])],
)
def test_where_goals_are_shown(env_of, monkeypatch, goal, points):
    env = env_of("ant")
    monkeypatch.setattr(type(env), "goal_dim", len(goal))
    shown = np.asarray(env.goal_points(np.array([goal, goal], np.float32)))
    np.testing.assert_array_equal(shown, [np.array(points)] * 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_environment_can_be_shown(name, env_of, opengl):
    env = env_of(name)
    film = gallery.still(env)
    (picture,) = render.pictures(env, film)
    assert picture.size == (320, 240)
    assert len(picture.getcolors(2**17)) > 100, "an empty picture"
    geoms = page.content(env, film)["geoms"]
    assert sum(geom["marker"] for geom in geoms) == film.points.shape[1]
    assert sum(geom["mesh"] == "plane" for geom in geoms) == 1


# ---- Pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(env_of, opengl):
    return list(render.pictures(env_of("ant"), film_of(env_of("ant")), note="   x2"))


def test_pictures_show_the_motion(pictures):
    assert len(pictures) == 13
    assert all(picture.tobytes() != other.tobytes() for picture, other in itertools.pairwise(pictures))
    assert all(count(picture, [round(255 * part) for part in scene.BODY[:3]]) > 100 for picture in pictures)


def test_success_is_marked(pictures):
    green = [round(255 * part) for part in scene.REACHED[:3]]
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
    with pytest.raises(render.RenderError, match="neither EGL nor OSMesa"):
        render.choose_opengl.__wrapped__()
    monkeypatch.setenv("MUJOCO_GL", "egl")
    render.choose_opengl.__wrapped__()
    assert len(tried) == 4, "MUJOCO_GL is taken at its word"


# ---- The page --------------------------------------------------------------------------------------------------------


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="film">(.*?)</script>', text, re.DOTALL)[1])


def test_page_holds_every_pose(env_of, tmp_path):
    env = env_of("ant_u_maze")
    film = film_of(env, caption="a </script> & b")
    page.save(env, film, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "{{" not in text and "<title>a &lt;/script&gt; &amp; b</title>" in text
    data = data_of(text)
    poses = np.frombuffer(base64.b64decode(data["poses"]), np.float32).reshape(len(film), data["bodies"], 7)
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


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_page_draws_in_a_browser_without_network(env_of, tmp_path):
    env = env_of("ant")
    page.save(env, film_of(env), tmp_path / "a.html")

    def browse(fragment, *what):
        software = ("--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
        offline = ("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking")
        window = ("--window-size=640,480", "--hide-scrollbars", "--virtual-time-budget=1000")
        command = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            f"--user-data-dir={tmp_path / 'profile'}",
            *software,
            *offline,
        ]
        command += [*window, *what, (tmp_path / "a.html").as_uri() + fragment]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    shots = []
    for frame in (1, 7, 12):
        browse(f"#frame={frame}", f"--screenshot={tmp_path / 'shot.png'}")
        shots.append(Image.open(tmp_path / "shot.png").convert("RGB").crop((0, 60, 640, 400)))  # the view only
    body = [round(255 * part) for part in scene.BODY[:3]]
    assert all(count(shot, body) > 300 for shot in shots)
    assert np.mean(np.asarray(shots[0]) != np.asarray(shots[1])) > 0.01
    pixels = np.asarray(shots, int)
    red, green = ((pixels[..., a] - pixels[..., b] > 40).sum((1, 2)) for a, b in ((0, 1), (1, 0)))
    assert green[:2].max() < 20 < green[2]
    assert (red[:2] > count(shots[0], body)).all()
    words = browse("#frame=7", "--dump-dom")
    assert re.search(r"goal 2 of 2 +step 3 +0\.15 s", words) and '<span id="badge" class="on">' not in words
    assert '<span id="badge" class="on">' in browse("#frame=12", "--dump-dom")


# ---- Runs, and the script --------------------------------------------------------------------------------------------


@pytest.fixture
def no_opengl(monkeypatch):
    def refuse():
        raise render.RenderError("no OpenGL")

    monkeypatch.setattr(render, "choose_opengl", refuse)


@pytest.fixture(scope="module")
def still_env():
    """An environment whose physics stands still, which compiles at once."""
    env = create_env("simple_u_maze")
    env.pipeline_step = lambda pipeline_state, action: pipeline_state
    return env


@pytest.fixture
def in_folder(still_env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in (utils, script):
        monkeypatch.setattr(module, "create_env", lambda *args: still_env)
    return tmp_path


FLAGS = [
    *("--env_name", "simple_u_maze", "--num_envs", "4", "--num_eval_envs", "3", "--unroll_length", "5"),
    *("--episode_length", "6", "--min_replay_size", "10", "--max_replay_size", "40", "--num_timesteps", "120"),
    *("--num_evals", "3", "--batch_size", "8", "--h_dim", "8", "--n_hidden", "1", "--repr_dim", "4"),
    *("--visualization_interval", "1", "--vis_length", "8"),
]


def test_a_run_and_its_film(in_folder, opengl, monkeypatch, capsys):
    assert training.main(FLAGS) == 0
    run = in_folder / "runs" / "simple_u_maze_crl_s0"
    assert {path.name for path in run.glob("policy*")} == {
        "policy_60.html",
        "policy_100.html",
        "policy.html",
        "policy.gif",
    }
    assert "runs/simple_u_maze_crl_s0/policy.html" in capsys.readouterr().out
    text = (run / "policy.html").read_text()
    assert "simple_u_maze   crl   120 steps" in text
    assert data_of(text)["starts"] == [0, 6] and len(base64.b64decode(data_of(text)["success"])) == 8
    goals = {data_of((run / name).read_text())["poses"] for name in ("policy_60.html", "policy.html")}
    assert len(goals) == 2, "every evaluation draws its own episodes"

    # The script shows the same, and other episodes if asked to.
    argv = ["--run", str(run), "--vis_length", "8"]
    assert script.main([*argv, "--out", "same.html,same.gif"]) == 0
    assert (in_folder / "same.html").read_text() == text
    with Image.open(in_folder / "same.gif") as gif:
        assert gif.size == (480, 360)
    assert script.main([*argv, "--seed", "5", "--step", "100", "--out", "other.html"]) == 0
    assert data_of((in_folder / "other.html").read_text())["poses"] != data_of(text)["poses"]

    for flags, words in {
        ("--step", "7"): "--step is 7; .*checkpoints holds: 120, 100.",
        ("--backend", "mjx"): "--backend comes from the run with --run.",
        ("--env_name", "reacher"): "--eval_env is 'reacher', whose",
    }.items():
        if flags[0] == "--env_name":
            monkeypatch.setattr(utils, "create_env", create_env)
        assert script.main([*argv, *flags]) == 2
        assert re.search(f"^render.py: {words}", capsys.readouterr().err)


def test_training_goes_on_where_nothing_can_be_drawn(env_of, no_opengl, tmp_path):
    env, notes = env_of("reacher"), []
    run = types.SimpleNamespace(config=utils.Config(eval_env="reacher"), eval_env=env)
    display = types.SimpleNamespace(say=lambda text: None, note=notes.append)
    training.film(run, recording_of(env), 120, tmp_path, display, last=True)
    assert notes == ["No policy.gif: no OpenGL."]
    assert [path.name for path in tmp_path.iterdir()] == ["policy.html"]


def test_random_actions_are_shown(in_folder, capsys):
    assert script.main(["--env_name", "simple_u_maze", "--episode_length", "5", "--vis_length", "12"]) == 0
    assert capsys.readouterr().out == "simple_u_maze.html\n"
    data = data_of((in_folder / "simple_u_maze.html").read_text())
    assert data["starts"] == [0, 5, 10] and len(base64.b64decode(data["success"])) == 12


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "--env_name or --run must say what to show."),
        (["--env_name", "antt"], "--env_name is 'antt'; choose from: ant,"),
        (["--env_name", "reacher", "--backend", "warp"], "--backend is 'warp' with --env_name reacher: Unsupported"),
        (["--env_name", "reacher", "--step", "3"], "--step means nothing without --run."),
        (["--env_name", "reacher", "--height", "200"], "--height is 200; it must be a multiple of 6"),
        (
            ["--env_name", "reacher", "--out", "a.avi"],
            "--out is 'a.avi'; it must name files that end in .html, .gif, .mp4",
        ),
        (["--env_name", "reacher", "--out", "none/a.gif"], "--out is 'none/a.gif'; it must name files"),
        (["--run", "none"], "There is no run in none: its config.json cannot be read."),
        (["--speed", "3"], "Unknown flag --speed"),
    ],
)
def test_one_sentence_for_what_is_wrong(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"render.py: {words}") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_opengl_is_one_sentence_too(in_folder, no_opengl, capsys):
    argv = ["--env_name", "simple_u_maze", "--episode_length", "5", "--vis_length", "12", "--out", "a.html,a.gif"]
    assert script.main(argv) == 2
    assert capsys.readouterr().err == "render.py: no OpenGL.\n"
    assert (in_folder / "a.html").exists()


# ---- The gallery -----------------------------------------------------------------------------------------------------


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
