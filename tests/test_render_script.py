"""Films of runs and of random actions: what training leaves, what scripts/render.py shows, and its errors."""

import base64
import re
import types
from pathlib import Path

import pytest
from PIL import Image

from goalax.commands import render as script
from goalax.commands import train as training
from goalax.envs import create_env
from goalax.films import kept, render, scene
from goalax.host import resolve
from goalax.host.config import Flags
from tests.helpers.films import data_of, recording_of


@pytest.fixture
def no_opengl(monkeypatch):
    def refuse():
        raise scene.RenderError("no OpenGL")

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
    for module in (resolve, script):
        monkeypatch.setattr(module, "create_env", lambda *args: still_env)
    return tmp_path


FLAGS = [
    *("--env_name", "simple_u_maze", "--num_envs", "4", "--num_eval_envs", "3", "--unroll_length", "5"),
    *("--episode_length", "6", "--min_replay_size", "10", "--max_replay_size", "40", "--num_timesteps", "120"),
    *("--num_evals", "3", "--batch_size", "8", "--h_dim", "8", "--n_hidden", "1", "--repr_dim", "4"),
    *("--visualization_interval", "1", "--vis_length", "8"),
]


@pytest.mark.slow
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
        ("--env_name", "reacher"): "--env_name is 'reacher', whose",
    }.items():
        if flags[0] == "--env_name":
            monkeypatch.setattr(resolve, "create_env", create_env)
        assert script.main([*argv, *flags]) == 2
        assert re.search(f"^render.py: {words}", capsys.readouterr().err)


def test_training_goes_on_where_nothing_can_be_drawn(env_of, no_opengl, tmp_path):
    env, notes = env_of("reacher"), []
    run = types.SimpleNamespace(config=Flags(eval_env="reacher"), eval_env=env)
    display = types.SimpleNamespace(say=lambda text: None, note=notes.append)
    kept.film(run, recording_of(env), 120, tmp_path, display, last=True)
    assert notes == ["No policy.gif: no OpenGL."]
    assert [path.name for path in tmp_path.iterdir()] == ["policy.html"]


@pytest.mark.parametrize(
    ("steps", "words"), [(120, "120 updates"), (200, "200 updates"), (320, "200 updates and 120 steps")]
)
def test_a_film_says_updates_where_there_were_no_steps(steps, words, env_of, tmp_path):
    env = env_of("reacher")
    config = Flags(eval_env="reacher", dataset="x.npz", offline_steps=200)
    run = types.SimpleNamespace(config=config, eval_env=env)
    display = types.SimpleNamespace(say=lambda text: None, note=lambda text: None)
    (page,) = kept.film(run, recording_of(env), steps, tmp_path, display, last=False)
    assert page.name == f"policy_{steps}.html" and data_of(page.read_text())
    assert f"<title>reacher   crl   {words}</title>" in page.read_text()


@pytest.mark.parametrize("method", ["goal_points", "body"])
def test_training_goes_on_where_an_environment_cannot_be_drawn(method, env_of, monkeypatch, tmp_path):
    def broken(*_):
        raise IndexError("no such leg\nand more")

    env, notes = env_of("reacher"), []
    recording = recording_of(env)
    monkeypatch.setattr(env, method, broken)
    run = types.SimpleNamespace(config=Flags(eval_env="reacher"), eval_env=env)
    display = types.SimpleNamespace(say=lambda text: None, note=notes.append)
    assert kept.film(run, recording, 120, tmp_path, display, last=False) == []
    assert notes == ["No policy_120.html: no such leg."]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", kept.FINAL)
def test_half_a_film_takes_no_place_of_an_older_one(name, env_of, monkeypatch, tmp_path):
    def half(path, *_, **__):
        path.write_bytes(b"half")
        raise IndexError("no such colour")

    env, notes = env_of("reacher"), []
    recording = recording_of(env)
    monkeypatch.setattr(Path, "write_text", half)  # of the page
    monkeypatch.setattr(Image.Image, "save", lambda _, path, *__, **___: half(path))
    (tmp_path / name).write_bytes(b"of before")
    run = types.SimpleNamespace(config=Flags(eval_env="reacher"), eval_env=env)
    display = types.SimpleNamespace(say=lambda text: None, note=notes.append)
    assert kept.film(run, recording, 120, tmp_path, display, last=True) == []
    assert notes == [f"No {each}: no such colour." for each in kept.FINAL]
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"of before"


def test_a_film_that_cannot_be_written_ends_the_run(env_of, tmp_path):
    run = types.SimpleNamespace(config=Flags(eval_env="reacher"), eval_env=env_of("reacher"))
    display = types.SimpleNamespace(say=lambda text: None, note=lambda text: None)
    with pytest.raises(FileNotFoundError):
        kept.film(run, recording_of(run.eval_env), 120, tmp_path / "none", display, last=False)


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
            "--out is 'a.avi'; it must name a file that ends in .html, .gif, .mp4",
        ),
        (["--env_name", "reacher", "--out", "none/a.gif"], "--out is 'none/a.gif'; it must name a file"),
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
