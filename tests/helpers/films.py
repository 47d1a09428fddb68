"""What the tests of films share: made-up films, and what to look for in a picture or a page."""

import json
import re

import numpy as np

from goalax.core.rollout import Recording
from goalax.films import scene


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


def rgb(colour):
    """0-255, of a colour of goalax.films.scene."""
    return [round(255 * part) for part in colour[:3]]


def data_of(text):
    """What a page holds for its viewer."""
    return json.loads(re.search(r'<script type="application/json" id="film">(.*?)</script>', text, re.DOTALL)[1])
