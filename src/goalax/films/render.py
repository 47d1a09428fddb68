"""Pictures of a film by MuJoCo's offscreen renderer, as GIF, MP4 or PNG."""

import functools
import importlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context
from PIL import Image, ImageDraw, ImageFont

from goalax.envs import GoalEnv
from goalax.films import scene
from goalax.films.scene import Film, RenderError

SIZE = (240, 320)  # height and width of pictures in pixels
GIF_MILLISECONDS, GIF_FRAMES = 80, 250  # per frame; a longer film runs faster
MP4_RATE = 50  # frames per second at most
COLOURS = 128  # of a GIF or a PNG


@functools.cache
def choose_opengl() -> None:
    """On Linux, EGL and else OSMesa, unless MUJOCO_GL says otherwise; RenderError if neither works."""
    if sys.platform != "linux" or os.environ.get("MUJOCO_GL"):
        return
    for name in ("egl", "osmesa"):
        # Tried in another process: a library that fails stays loaded, and the next one would fail because of it.
        attempt = f"from mujoco.{name} import GLContext; GLContext(1, 1).make_current()"
        if subprocess.run([sys.executable, "-c", attempt], capture_output=True).returncode == 0:
            gl_context.GLContext = importlib.import_module(f"mujoco.{name}").GLContext
            return
    raise RenderError("neither EGL nor OSMesa lets MuJoCo draw here (Debian, Ubuntu: install libegl1 or libosmesa6)")


def pictures(env: GoalEnv, film: Film, size: tuple[int, int] = SIZE, note: str = "") -> Iterator[Image.Image]:
    """A picture of every frame, with a green border while the goal is reached, and words if the film has a caption.

    Raises:
      RenderError: there is no OpenGL to draw with.
    """
    choose_opengl()
    model = scene.model_of(env)
    model.vis.global_.offheight, model.vis.global_.offwidth = size
    model.vis.quality.shadowsize = 1024
    goals, episodes = scene.markers(model), film.episode[-1] + 1
    camera = mujoco.MjvCamera()
    camera.distance, camera.elevation = env.camera.distance, env.camera.elevation
    try:
        renderer = mujoco.Renderer(model, *size)
    except Exception as error:  # EGL, OSMesa and GLFW all fail in their own way
        raise RenderError(f"MuJoCo cannot draw here ({type(error).__name__}); another MUJOCO_GL may help") from None
    with renderer:
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        for frame, view in enumerate(scene.views(env, model, film)):
            model.geom_rgba[goals] = scene.REACHED if film.success[frame] else scene.WANTED
            camera.lookat[:], camera.azimuth = view.lookat, env.camera.azimuth + view.heading
            mujoco.mj_camlight(model, view.data)
            renderer.update_scene(view.data, camera)
            sun = renderer.scene.lights[renderer.scene.nlight - 1]
            sun.pos[:] = camera.lookat - camera.distance * scene.SUN  # MuJoCo's shadows are best around this line
            picture = Image.fromarray(renderer.render())
            words = f"{film.caption}   goal {film.episode[frame] + 1} of {episodes}   step {film.step[frame]}{note}"
            yield label(picture, words if film.caption else "", film.success[frame])


def label(picture: Image.Image, words: str, reached: bool) -> Image.Image:
    """The picture with a line of words, and a border if the goal is reached."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    unit = height / 240
    if reached:
        green = tuple(round(255 * part) for part in scene.REACHED[:3])
        draw.rectangle((0, 0, width - 1, height - 1), outline=green, width=round(4 * unit))
    draw.text((8 * unit, height - 8 * unit), words, (40, 48, 56), ImageFont.load_default(10 * unit), anchor="ls")
    return picture


def save_gif(env: GoalEnv, film: Film, path: Path, size: tuple[int, int] = SIZE) -> None:
    """An endless GIF, in real time or faster if it would have more than GIF_FRAMES frames. RenderError as above."""
    stride = max(1, round(GIF_MILLISECONDS / 1000 / film.seconds), -(-film.frames // GIF_FRAMES))
    speed = stride * film.seconds * 1000 / GIF_MILLISECONDS
    images = list(pictures(env, film.every(stride), size, f"   x{speed:.1f}" if speed > 1.05 else ""))
    palette = palette_of(images[:: max(1, len(images) // 16)])
    # One palette for all, and no dithering: what stands still then costs nothing.
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    images[0].save(path, save_all=True, append_images=images[1:], duration=GIF_MILLISECONDS, loop=0)


def palette_of(images: list[Image.Image]) -> Image.Image:
    """The COLOURS that suit all of the images."""
    together = np.concatenate([np.asarray(image)[::2, ::2] for image in images])
    # Not the median cut that is the default: it gives all colours to large areas, and none to a small goal.
    return Image.fromarray(together).quantize(COLOURS, Image.Quantize.FASTOCTREE)


def save_mp4(env: GoalEnv, film: Film, path: Path, size: tuple[int, int] = SIZE) -> None:
    """An H.264 video in real time; height and width must be even. RenderError as above."""
    film = film.every(math.ceil(1 / (MP4_RATE * film.seconds) - 1e-6))
    with av.open(path, "w") as video:
        stream = video.add_stream("h264", rate=Fraction(1 / film.seconds).limit_denominator(1000))
        stream.height, stream.width = size
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20"}  # what every player reads; visually lossless
        for picture in pictures(env, film, size):
            video.mux(stream.encode(av.VideoFrame.from_image(picture)))
        video.mux(stream.encode())
