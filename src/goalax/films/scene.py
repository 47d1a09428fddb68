"""What films show, without drawing it: an environment as a model with floor, light and goal markers, and its poses."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np

from goalax.core.rollout import Recording
from goalax.envs import GoalEnv

BODY, FIXTURE = (0.93, 0.55, 0.20, 1.0), (0.55, 0.59, 0.64, 1.0)  # what a model leaves in its engine's drab default
OBJECT = (0.24, 0.44, 0.84, 1.0)  # what is there to be moved
FLOOR = (0.81, 0.84, 0.87), (0.72, 0.76, 0.80)  # the two colours of its tiles
SKY = (0.75, 0.83, 0.90), (0.94, 0.96, 0.98)  # above, below the horizon
REACHED, WANTED = (0.16, 0.70, 0.36, 0.55), (0.90, 0.20, 0.24, 0.55)  # goal markers
SUN = np.array([0.0, 0.4, -1.0]) / np.hypot(0.4, 1.0)  # the way light goes; skew to both axes, MuJoCo's shadows speckle
TILES = 8  # from the camera to what it looks at

DRAB = (0.4, 0.33, 0.26, 1.0), (0.5, 0.5, 0.5, 1.0)  # colours that Brax's bodies have, and MuJoCo's geoms
SHAPES = mujoco.mjtGeom


class RenderError(RuntimeError):
    """This machine, or this kind of picture, cannot show a film."""


class Film(NamedTuple):
    """Steps to show, episodes one after the other, F in all."""

    q: np.ndarray  # [F, Q] joint positions
    points: np.ndarray  # [F, K, 3] where the goal is, metres
    success: np.ndarray  # [F] bool
    episode: np.ndarray  # [F] from 0
    step: np.ndarray  # [F] steps since the start of the episode, from 1
    seconds: float  # of simulated time from frame to frame
    caption: str

    @property
    def frames(self) -> int:
        return len(self.q)

    def every(self, stride: int) -> "Film":
        """One frame of so many."""
        return self.taken(slice(None, None, stride))._replace(seconds=self.seconds * stride)

    def taken(self, frames: slice) -> "Film":
        """Some of the frames."""
        parts = self.q[frames], self.points[frames], self.success[frames], self.episode[frames], self.step[frames]
        return Film(*parts, self.seconds, self.caption)


class View(NamedTuple):
    """A frame, posed."""

    data: mujoco.MjData  # the same one in every frame
    lookat: np.ndarray  # [3] the point in the middle of the picture, metres
    heading: float  # of the camera, besides its own azimuth, degrees


def film(env: GoalEnv, recording: Recording, length: int, caption: str) -> Film:
    """The first `length` steps of a recording [T, E, ...]; what follows a termination is cut."""
    alive = np.asarray(recording.alive).T
    episode, row = (index[:length] for index in np.nonzero(alive))
    q, goal, success = (np.asarray(leaf)[row, episode] for leaf in recording[:3])
    points = np.asarray(env.goal_points(jnp.asarray(goal)))
    return Film(q, points, success > 0, episode, row + 1, float(env.dt), caption)


def model_of(env: GoalEnv) -> mujoco.MjModel:
    """The body of an environment with a floor and colours to look at, and a mocap body for every point of its goals."""
    spec = env.body()
    for light in list(spec.lights):
        spec.delete(light)
    for texture in list(spec.textures):
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
    sun = spec.worldbody.add_light(type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=SUN)
    sun.diffuse, sun.specular = [0.5] * 3, [0.0] * 3
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.45] * 3, [0.2] * 3
    spec.visual.headlight.specular = [0.05] * 3
    spec.stat.extent = env.camera.distance  # shadows have the resolution for what the camera sees
    add_looks(spec, env.camera.distance / TILES)
    if env.camera.wall_height is not None:
        cut_walls(spec, env.camera.wall_height)
    for geom in spec.geoms:
        if geom.type != SHAPES.mjGEOM_PLANE:
            geom.material = ""
        elif geom.rgba[3] > 0:
            geom.material, geom.rgba, geom.size[:2] = "floor", [1, 1, 1, 1], 0  # endless, as in the physics
    for index in range(env.goal_points(jnp.zeros(env.goal_dim)).shape[0]):
        add_marker(spec, f"goal {index}", env)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of features that old models use
        model = spec.compile()
    if env.goal_dim == 0 and model.nmocap:
        raise RenderError("the target of this task is no joint, and is not recorded")
    paint(model)
    return model


def cut_walls(spec: mujoco.MjSpec, height: float) -> None:
    """Makes boxes that cannot move end at a height in metres."""
    for wall in (geom for geom in spec.worldbody.geoms if geom.type == SHAPES.mjGEOM_BOX):
        foot, top = wall.pos[2] - wall.size[2], min(wall.pos[2] + wall.size[2], height)
        wall.pos[2], wall.size[2] = (foot + top) / 2, (top - foot) / 2


def paint(model: mujoco.MjModel) -> None:
    """Colours what is visible and has none of its own, and everything that is there to be moved.

    The first body and what hangs on it is the one that acts; other bodies that can move are objects.
    """
    for geom in range(model.ngeom):
        body, rgba = model.geom_bodyid[geom], model.geom_rgba[geom]
        if model.geom_type[geom] == SHAPES.mjGEOM_PLANE or model.body_mocapid[body] >= 0 or rgba[3] == 0:
            continue
        if model.body_rootid[body] > 1:
            rgba[:] = OBJECT
        elif any(np.allclose(rgba, drab, atol=0.02) for drab in DRAB):
            rgba[:] = BODY if body else FIXTURE


def add_looks(spec: mujoco.MjSpec, tile: float) -> None:
    """Adds the sky, the material "floor" of tiles of that size in metres, and the shining material "goal"."""
    top, bottom = SKY
    spec.visual.rgba.haze[:3] = np.mean(SKY, axis=0)  # what the sky has at the horizon
    textures = mujoco.mjtTexture
    spec.add_texture(
        **{"name": "sky", "type": textures.mjTEXTURE_SKYBOX, "builtin": mujoco.mjtBuiltin.mjBUILTIN_GRADIENT},
        **{"rgb1": top, "rgb2": bottom, "width": 64, "height": 64 * 6},
    )
    spec.add_texture(
        **{"name": "floor", "type": textures.mjTEXTURE_2D, "builtin": mujoco.mjtBuiltin.mjBUILTIN_CHECKER},
        **{"rgb1": FLOOR[0], "rgb2": FLOOR[1], "width": 256, "height": 256},
    )
    floor = spec.add_material(name="floor", texuniform=True, texrepeat=[1 / (2 * tile)] * 2, specular=0.1)
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    spec.add_material(name="goal", emission=0.4, specular=0.1)


def add_marker(spec: mujoco.MjSpec, name: str, env: GoalEnv) -> None:
    """The goal region: a ball, or where height does not count a column; of several points, each with its share."""
    flat, points = env.goal_dim < 3, max(1, env.goal_dim // 3)
    spec.worldbody.add_body(name=name, mocap=True).add_geom(
        name=name,
        material="goal",
        type=SHAPES.mjGEOM_CYLINDER if flat else SHAPES.mjGEOM_SPHERE,
        size=[
            env.camera.marker_radius or env.goal_reach_thresh / np.sqrt(points),
            max(env.camera.marker_height, 0.02 * env.camera.distance),
            0,
        ],
        rgba=WANTED,
        contype=0,
        conaffinity=0,
    )


def markers(model: mujoco.MjModel) -> list[int]:
    """The geoms of the goal."""
    return [geom for geom in range(model.ngeom) if model.body_mocapid[model.geom_bodyid[geom]] >= 0]


def views(env: GoalEnv, model: mujoco.MjModel, film: Film) -> Iterator[View]:
    """Every frame. A camera that follows turns with the way from the body to the goal as an episode begins."""
    data, heading, begun = mujoco.MjData(model), 0.0, -1
    for q, points, episode in zip(film.q, film.points, film.episode, strict=True):
        data.qpos[:], data.mocap_pos[:] = q, points
        mujoco.mj_kinematics(model, data)
        if env.camera.lookat is None and episode != begun:
            begun = episode
            if len(points):  # else there is no goal, and the camera keeps its direction
                way = points[0] - data.xpos[1]
                heading = float(np.rad2deg(np.arctan2(way[1], way[0])))
        yield View(data, data.xpos[1] if env.camera.lookat is None else np.array(env.camera.lookat), heading)
