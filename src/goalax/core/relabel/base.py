"""What a law of goals is, and the registry of them."""

from collections.abc import Callable

from jax import Array

from goalax.registry import Registry

# (uniform [B] in [0, 1), left [B] int32 >= 1, steps to the end of the episode) -> steps ahead [B] int32, 1 to left.
Law = Callable[[Array, Array], Array]

RELABEL: Registry[Callable[[float], Law]] = Registry("law of goals")  # name -> (discounting in (0, 1)) -> Law
