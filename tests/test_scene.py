"""What films show: steps, goals, colours, and where the camera looks."""

import json
import types

import mujoco
import numpy as np
import pytest

from goalax.commands import gallery
from goalax.envs import ENVS
from goalax.envs.base import Camera
from goalax.films import page, render, scene
from tests.helpers.films import film_of, recording_of

# Mazes differ by their walls; the tasks that begin with dm_ need a package.
NAMES = list(gallery.families(name for name in ENVS if not name.startswith(("toy", "dm_"))))


def test_film_has_episodes_one_after_the_other_and_nothing_after_their_end(env_of):
    film = film_of(env_of("reacher"))
    assert film.frames == 5 + 8
    np.testing.assert_array_equal(film.episode, [0] * 5 + [1] * 8)
    np.testing.assert_array_equal(film.step, [1, 2, 3, 4, 5, *range(1, 9)])
    np.testing.assert_array_equal(np.flatnonzero(film.success), [12])
    recording = recording_of(env_of("reacher"))
    np.testing.assert_array_equal(film.q, np.concatenate([recording.q[:5, 0], recording.q[:, 1]]))
    np.testing.assert_allclose(film.points[[0, -1], 0], recording.goal[0], rtol=1e-6)
    assert film.seconds == pytest.approx(0.02)
    assert film_of(env_of("reacher"), length=7).frames == 7
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


@pytest.mark.parametrize("name, heading", [("ant", [90, -45]), ("ant_u_maze", [0, 0])])
def test_camera_that_follows_begins_every_episode_with_the_goal_ahead(name, heading, env_of):
    env = env_of(name)
    film = film_of(env)
    here = film.q[[0, 5], :2]
    ahead = np.array([[0.0, 3.0], [3.0, -3.0]])
    points = np.append(here + ahead, [[0], [0]], axis=1)[:, None]
    film = film._replace(points=np.repeat(points, [5, 8], axis=0))
    views = [(view.heading, view.lookat.copy()) for view in scene.views(env, scene.model_of(env), film)]
    np.testing.assert_allclose([turned for turned, _ in views], np.repeat(heading, [5, 8]), atol=1e-3)
    wanted = film.q[:, :3] if env.camera.lookat is None else [env.camera.lookat] * film.frames
    np.testing.assert_allclose([lookat for _, lookat in views], wanted, rtol=1e-6)
    assert page.content(env, film)["headings"] == [views[0][0], views[5][0]]


@pytest.fixture(scope="module")
def made_up():
    """An environment to look at: a body with a coloured part, a fixture, an object, and a plane that only holds it."""
    spec, shape = mujoco.MjSpec(), mujoco.mjtGeom
    world = spec.worldbody
    world.add_geom(name="floor", type=shape.mjGEOM_PLANE, size=[1, 1, 1], pos=[0, 0, -0.6])
    world.add_geom(name="table", type=shape.mjGEOM_PLANE, size=[1, 1, 1], rgba=[0, 0, 0, 0])
    for name in ("fixture", "body", "object"):
        parent = world if name == "fixture" else world.add_body(name=name)
        parent.add_geom(name=name, type=shape.mjGEOM_BOX, size=[0.1, 0.1, 0.1], material="drab")
        if name != "fixture":
            parent.add_freejoint()
    spec.add_material(name="drab")
    hand = spec.body("body").add_body(name="hand")
    hand.add_geom(name="hand", type=shape.mjGEOM_SPHERE, size=[0.1, 0, 0], rgba=[0, 0, 1, 1])
    spec.body("object").add_geom(name="hidden", type=shape.mjGEOM_SPHERE, size=[0.1, 0, 0], rgba=[0, 0, 0, 0])
    spec.add_texture(name="night", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=1, width=8, height=48)
    return types.SimpleNamespace(
        body=spec.copy,
        camera=Camera(1.0),
        goal_dim=6,
        goal_points=lambda goal: goal.reshape(*goal.shape[:-1], 2, 3),
        goal_reach_thresh=0.1,
    )


def test_colours_tell_bodies_objects_and_goals(made_up):
    model = scene.model_of(made_up)
    colours = {
        **{"floor": (1, 1, 1, 1), "table": (0, 0, 0, 0), "hidden": (0, 0, 0, 0), "hand": (0, 0, 1, 1)},
        **{"fixture": scene.FIXTURE, "body": scene.BODY, "object": scene.OBJECT, "goal 0": scene.WANTED},
    }
    for name, colour in colours.items():
        np.testing.assert_allclose(model.geom(name).rgba, colour, atol=1e-6, err_msg=name)
    assert list(model.geom_matid >= 0) == [
        name == "floor" or name.startswith("goal") for name in (model.geom(geom).name for geom in range(model.ngeom))
    ]
    assert (model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX).sum() == 1


def test_each_of_several_points_has_its_share_of_the_threshold(made_up):
    model = scene.model_of(made_up)
    sizes = [model.geom(f"goal {index}").size[0] for index in range(2)]
    np.testing.assert_allclose(np.linalg.norm(sizes), 0.1)


@pytest.mark.parametrize("name", ["simple_u_maze", "humanoid_hardest_maze", "ant_push"])
def test_walls_hide_nothing_that_stands_at_their_foot(name, env_of):
    env = env_of(name)
    film = film_of(env, length=1)
    model = scene.model_of(env)
    walls = [geom for geom in range(model.ngeom) if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX]
    walls = [geom for geom in walls if model.geom_bodyid[geom] == 0]
    tops = model.geom_pos[walls, 2] + model.geom_size[walls, 2]
    np.testing.assert_allclose(tops, env.camera.wall_height)
    np.testing.assert_allclose(model.geom_pos[walls, 2], model.geom_size[walls, 2], atol=1e-6)
    assert json.loads(json.dumps(page.content(env, film)["camera"]))["wall_height"] == env.camera.wall_height


def test_planes_that_cannot_be_seen_are_no_floor(made_up):
    film = scene.Film(np.zeros((1, 14)), np.zeros((1, 2, 3)), np.zeros(1, bool), np.zeros(1), np.ones(1), 1.0, "")
    data = page.content(made_up, film)
    assert data["floor"] == -0.6 and [geom["mesh"] for geom in data["geoms"]].count("plane") == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_environment_can_be_shown(name, env_of, opengl):
    env = env_of(name)
    film = film_of(env, length=1)
    (picture,) = render.pictures(env, film)
    assert picture.size == (320, 240)
    assert len(picture.getcolors(2**17)) > 100, "an empty picture"
    geoms = page.content(env, film)["geoms"]
    assert sum(geom["marker"] for geom in geoms) == film.points.shape[1]
    planes = sum(geom["mesh"] == "plane" for geom in geoms)
    assert planes == 1, "the body of an environment has one plane, the floor"
