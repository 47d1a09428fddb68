"""The interactive page of a film: one HTML file with everything inside, which needs no network."""

import base64
import html
import json
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from goalax.envs import GoalEnv
from goalax.films import scene
from goalax.films.scene import SHAPES, Film, RenderError
from goalax.whole import aside

VIEWER = Path(__file__).with_name("viewer.html")
VISIBLE_GROUPS = 3  # MuJoCo draws geoms of groups 0, 1 and 2


def save(env: GoalEnv, film: Film, path: Path) -> None:
    """Writes the page, all of it or nothing; RenderError for geoms that the viewer has no mesh for."""
    data = json.dumps(content(env, film)).replace("</", "<\\/")
    text = VIEWER.read_text().replace("{{title}}", html.escape(film.caption))
    with aside(path) as part:
        part.write_text(text.replace("{{film}}", data))


def content(env: GoalEnv, film: Film) -> dict[str, Any]:
    """What the viewer reads; arrays of numbers as base64, float32 or uint8."""
    model = scene.model_of(env)
    bodies, headings = [], []
    for view in scene.views(env, model, film):
        bodies.append(np.concatenate([view.data.xpos[1:], view.data.xquat[1:]], axis=1))
        headings.append(view.heading)
    starts = np.flatnonzero(film.step == 1)
    planes = [geom for geom in range(model.ngeom) if is_plane(model, geom) and visible(model, geom)]
    return {
        "seconds": film.seconds,
        "bodies": model.nbody - 1,  # without the world
        "poses": base64.b64encode(np.array(bodies, np.float32).tobytes()).decode(),
        "success": base64.b64encode(film.success.astype(np.uint8).tobytes()).decode(),
        "starts": starts.tolist(),
        "headings": [headings[start] for start in starts],
        "geoms": [geom_of(model, geom) for geom in range(model.ngeom) if visible(model, geom)],
        "camera": env.camera._asdict(),
        "floor": float(model.geom_pos[planes, 2].min(initial=0.0)),
        "tile": env.camera.distance / scene.TILES,
        "tiles": scene.FLOOR,
        "horizon": scene.SKY[1],
        "sun": scene.SUN.tolist(),
        "reached": scene.REACHED,
    }


def is_plane(model: mujoco.MjModel, geom: int) -> bool:
    return model.geom_type[geom] == SHAPES.mjGEOM_PLANE


def visible(model: mujoco.MjModel, geom: int) -> bool:
    return model.geom_group[geom] < VISIBLE_GROUPS and model.geom_rgba[geom, 3] > 0


def geom_of(model: mujoco.MjModel, geom: int) -> dict[str, Any]:
    """A geom as one of the viewer's meshes, scaled by `size`; the ends of a ball are `half_length` apart from z = 0."""
    x, y, z = (float(part) for part in model.geom_size[geom])
    meshes = {
        SHAPES.mjGEOM_PLANE: ("plane", (1, 1, 1), 0),
        SHAPES.mjGEOM_SPHERE: ("ball", (x, x, x), 0),
        SHAPES.mjGEOM_ELLIPSOID: ("ball", (x, y, z), 0),
        SHAPES.mjGEOM_CAPSULE: ("ball", (x, x, x), y),
        SHAPES.mjGEOM_CYLINDER: ("cylinder", (x, x, y), 0),
        SHAPES.mjGEOM_BOX: ("box", (x, y, z), 0),
    }
    shape = SHAPES(model.geom_type[geom])
    if shape not in meshes:
        raise RenderError(f"the page cannot show geoms of type {shape.name}")
    mesh, size, half_length = meshes[shape]
    return {
        "mesh": mesh,
        "size": size,
        "half_length": half_length,
        "body": int(model.geom_bodyid[geom]),
        "position": model.geom_pos[geom].tolist(),
        "rotation": model.geom_quat[geom].tolist(),
        "color": np.round(model.geom_rgba[geom].astype(float), 3).tolist(),
        "marker": geom in scene.markers(model),
    }
