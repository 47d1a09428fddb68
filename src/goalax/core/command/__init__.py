"""Laws of commanded goals: what episodes that collect are asked to reach; all files here are found.

A new one is a function and a decorator, in a file of its own; its name is then a choice of --commanded_goals:

    @law("origin", stored=False)
    def origin(scene, key, num):
        return jnp.zeros((num, scene.goal_size))
"""

from goalax.core.command.base import COMMAND, Command, Scene, law
from goalax.registry import import_all

import_all(__name__, __path__)
