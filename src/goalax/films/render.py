"""Pictures of a film by MuJoCo's offscreen renderer, as GIF, MP4 or PNG."""

import contextlib
import functools
import importlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context
from PIL import Image, ImageDraw, ImageFont

from goalax.envs import GoalEnv
from goalax.films import scene
from goalax.films.scene import Film, RenderError
from goalax.whole import aside

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


class Painter:
    """Draws poses of an environment, one after the other; to be closed. RenderError if there is no OpenGL to draw with.

    Attributes:
      model: what it draws, of `scene.model_of`.
    """

    def __init__(self, env: GoalEnv, size: tuple[int, int] = SIZE):
        choose_opengl()
        self.model = scene.model_of(env)
        self.model.vis.global_.offheight, self.model.vis.global_.offwidth = size
        self.model.vis.quality.shadowsize = 1024
        self._goals, self._azimuth, self._camera = scene.markers(self.model), env.camera.azimuth, mujoco.MjvCamera()
        self._camera.distance, self._camera.elevation = env.camera.distance, env.camera.elevation
        try:
            self._renderer = mujoco.Renderer(self.model, *size)
        except Exception as error:  # EGL, OSMesa and GLFW all fail in their own way
            raise RenderError(f"MuJoCo cannot draw here ({type(error).__name__}); another MUJOCO_GL may help") from None
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False

    def __call__(self, view: scene.View, success: bool) -> np.ndarray:
        """The picture of a view, uint8 [height, width, 3]."""
        self.model.geom_rgba[self._goals] = scene.REACHED if success else scene.WANTED
        self._camera.lookat[:], self._camera.azimuth = view.lookat, self._azimuth + view.heading
        mujoco.mj_camlight(self.model, view.data)
        self._renderer.update_scene(view.data, self._camera)
        sun = self._renderer.scene.lights[self._renderer.scene.nlight - 1]
        sun.pos[:] = self._camera.lookat - self._camera.distance * scene.SUN  # shadows are best around this line
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def pictures(env: GoalEnv, film: Film, size: tuple[int, int] = SIZE, note: str = "") -> Iterator[Image.Image]:
    """A picture of every frame, with a green border while the goal is reached, and words if the film has a caption.

    Raises:
      RenderError: there is no OpenGL to draw with.
    """
    with contextlib.closing(Painter(env, size)) as paint:
        episodes, what = film.episode[-1] + 1, "goal" if film.points.shape[1] else "episode"
        for frame, view in enumerate(scene.views(env, paint.model, film)):
            picture = Image.fromarray(paint(view, film.success[frame]))
            words = f"{film.caption}   {what} {film.episode[frame] + 1} of {episodes}   step {film.step[frame]}{note}"
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
    """An endless GIF, in real time or faster if it would have more than GIF_FRAMES frames. RenderError as above.

    Here and below the file is written as a whole; OSError.
    """
    stride = max(1, round(GIF_MILLISECONDS / 1000 / film.seconds), -(-film.frames // GIF_FRAMES))
    speed = stride * film.seconds * 1000 / GIF_MILLISECONDS
    images = list(pictures(env, film.every(stride), size, f"   x{speed:.1f}" if speed > 1.05 else ""))
    palette = palette_of(images[:: max(1, len(images) // 16)])
    # One palette for all, and no dithering: what stands still then costs nothing.
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    with aside(path) as part:
        images[0].save(part, "GIF", save_all=True, append_images=images[1:], duration=GIF_MILLISECONDS, loop=0)


def palette_of(images: list[Image.Image]) -> Image.Image:
    """The COLOURS that suit all of the images."""
    together = np.concatenate([np.asarray(image)[::2, ::2] for image in images])
    # Not the median cut that is the default: it gives all colours to large areas, and none to a small goal.
    return Image.fromarray(together).quantize(COLOURS, Image.Quantize.FASTOCTREE)


def save_mp4(env: GoalEnv, film: Film, path: Path, size: tuple[int, int] = SIZE) -> None:
    """An H.264 video in real time; height and width must be even. RenderError as above, and where PyAV is missing."""
    try:
        import av  # here, because nothing else needs it
    except ImportError as error:  # its FFmpeg may be broken too
        raise RenderError(f"MP4 needs PyAV (pip install av), which cannot be imported here ({error})") from None
    film = film.every(math.ceil(1 / (MP4_RATE * film.seconds) - 1e-6))
    with aside(path) as part, av.open(part, "w", "mp4") as video:
        stream = video.add_stream("h264", rate=Fraction(1 / film.seconds).limit_denominator(1000))
        stream.height, stream.width = size
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20"}  # what every player reads; visually lossless
        for picture in pictures(env, film, size):
            video.mux(stream.encode(av.VideoFrame.from_image(picture)))
        video.mux(stream.encode())
