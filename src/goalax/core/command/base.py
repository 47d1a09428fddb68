"""What a law of commanded goals is, and the registry of them."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from goalax.registry import Registry


class Scene(NamedTuple):
    """What a law of commanded goals can choose from; goals are in the units of the environment."""

    goal_size: int  # G
    achieved: Callable[[Array, int], Array]  # (key, num) -> [num, G], what stored states achieve, drawn uniformly
    evaluated: Callable[[Array], Array]  # (key) -> [G], a goal of the environment that is evaluated


# (scene, key, num) -> [num, G], the goals of the episodes that begin in the next unroll; consumes key.
Law = Callable[[Scene, Array, int], Array]


class Command(NamedTuple):
    """A law of commanded goals."""

    goals: Law
    stored: bool  # it draws from what is stored, so that the episodes of the first unroll have the environment's goals


COMMAND: Registry[Command | None] = Registry("law of commanded goals")
COMMAND.add("env", None)  # what the environment draws


def law(name: str, stored: bool) -> Callable[[Law], Law]:
    """Decorator that registers a law of commanded goals; stored: as in `Command`."""

    def register(goals: Law) -> Law:
        COMMAND.add(name, Command(goals, stored))
        return goals

    return register
