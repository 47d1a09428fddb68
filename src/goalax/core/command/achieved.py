"""Commanded goals that some state in the buffer achieves."""

from jax import Array

from goalax.core.command.base import Scene, law


@law("achieved", stored=True)
def achieved(scene: Scene, key: Array, num: int) -> Array:
    """What uniformly drawn stored states achieve, [num, G]: goals that can be reached, by some way."""
    return scene.achieved(key, num)
