"""Policy -> GIF: MuJoCo's offscreen renderer over recorded joint positions, the goal shown by a marker."""

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context
from PIL import Image

from src.rollout import Recording

SIZE = (240, 320)  # height and width in pixels
FRAMES_PER_SECOND = 15
REACHED, WANTED = (0.2, 0.8, 0.3, 0.7), (0.9, 0.25, 0.2, 0.6)  # colours of the marker


class RenderError(RuntimeError):
    """There is no way to draw on this machine."""


def scene(env: Any) -> mujoco.MjModel:
    """The body of an environment with a marker (mocap body 0, geom "goal") in the size of the goal region."""
    spec = env.body()
    marker = spec.worldbody.add_body(name="goal", mocap=True)
    radius = [env.goal_reach_thresh, 0, 0]
    marker.add_geom(
        name="goal", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=radius, contype=0, conaffinity=0, rgba=list(WANTED)
    )
    spec.visual.global_.offheight, spec.visual.global_.offwidth = SIZE
    return spec.compile()


def camera_of(env: Any) -> mujoco.MjvCamera:
    camera, wanted = mujoco.MjvCamera(), env.camera
    camera.distance, camera.elevation, camera.azimuth = wanted.distance, wanted.elevation, wanted.azimuth
    if wanted.lookat is None:
        camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
    else:
        camera.lookat[:] = wanted.lookat
    return camera


def choose_opengl() -> None:
    """On Linux without a screen: EGL, else OSMesa, unless MUJOCO_GL says otherwise; RenderError if there is neither."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL"):
        return
    for name in ("egl", "osmesa"):
        with contextlib.suppress(Exception):  # a missing library shows as ImportError, AttributeError, OSError, ...
            gl_context.GLContext = importlib.import_module(f"mujoco.{name}").GLContext
            return
    raise RenderError("MuJoCo finds no EGL and no OSMesa library to draw with")


def frames(env: Any, recording: Recording, seconds_per_row: float) -> list[np.ndarray]:
    """Pictures [height, width, 3] of the episodes of a recording one after the other, at FRAMES_PER_SECOND.

    Raises:
      RenderError: there is no OpenGL to draw with.
    """
    choose_opengl()
    model = scene(env)
    data, camera = mujoco.MjData(model), camera_of(env)
    try:
        renderer = mujoco.Renderer(model, *SIZE)
    except Exception as error:  # EGL, OSMesa and GLFW all fail in their own way
        raise RenderError(f"MuJoCo cannot draw here ({type(error).__name__}); MUJOCO_GL=osmesa may help") from None
    every = max(1, round(1 / (FRAMES_PER_SECOND * seconds_per_row)))
    pictures = []
    with renderer:
        for effect in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[effect] = False  # most of the time goes there when there is no GPU
        for episode in range(recording.q.shape[1]):
            for row in range(0, int(recording.alive[:, episode].sum()), every):
                goal = recording.goal[row, episode]
                data.qpos[:] = recording.q[row, episode]
                data.mocap_pos[0] = [*goal, *[0.0] * (2 - len(goal)), env.camera.marker_height][:3]
                model.geom("goal").rgba = REACHED if recording.success[row, episode] > 0 else WANTED
                mujoco.mj_forward(model, data)
                renderer.update_scene(data, camera)
                pictures.append(renderer.render())
    return pictures


def save_gif(pictures: list[np.ndarray], path: Path) -> None:
    images = [Image.fromarray(picture).quantize(64, dither=Image.Dither.NONE) for picture in pictures]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // FRAMES_PER_SECOND, loop=0)
