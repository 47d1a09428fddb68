"""The environments: `create_env(name)`; importing this package fills the registry `ENVS` from every file in it."""

import re

from goalax.envs.base import ENVS, GoalEnv
from goalax.envs.maze import MAZES
from goalax.envs.stitching import MARK, split_of
from goalax.registry import import_all
from goalax.words import choices

# By their installed name even where a checkout's own folder is imported as `envs`: nothing must register twice.
import_all("goalax.envs", __path__)


def create_env(env_name: str, backend: str | None = None, dense_reward: bool = False) -> GoalEnv:
    """An environment by name.

    Args:
      env_name: a name of `ENVS`.
      backend: one of its backends; None takes its default.
      dense_reward: shaped reward in place of the sparse one.

    Raises:
      ValueError: unknown name, maze layout or backend, or no dense reward; it lists the choices. A maze that is wrong,
        or a split of it that is impossible; it says why.
    """
    if env_name not in ENVS and re.search("maze(_|$)", env_name):
        for body in sorted(MAZES, key=len, reverse=True):
            if env_name.startswith(f"{body}_"):
                layout = env_name.removeprefix(f"{body}_")
                if MARK in layout:
                    split_of(layout)
                raise ValueError(f"Unknown maze layout: {layout}. Choose from: {choices(layout, list(MAZES[body]))}.")
    return ENVS[env_name](backend=backend, dense_reward=dense_reward)
