"""What a law of goals is, and the registry of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from goalax.flags import FlagError
from goalax.registry import Registry

# (uniform [B] in [0, 1), left [B] int32 >= 1, steps to the end of the episode) -> steps ahead [B] int32, 1 to left.
Law = Callable[[Array, Array], Array]

RELABEL: Registry[Callable[[float], Law]] = Registry("law of goals")  # name -> (discounting in (0, 1)) -> Law


def law_of(name: str, discounting: float) -> Law:
    """The law of that name. FlagError if it is no function, or gives something else than whole numbers [B]."""
    law = RELABEL[name](discounting)
    if not callable(law):
        raise FlagError(f"The law of goals {name} returns {law!r}; it must return a function (uniform, left) -> steps.")
    ahead = jax.eval_shape(law, jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32))
    if (getattr(ahead, "shape", None), getattr(ahead, "dtype", None)) != ((2,), jnp.int32):
        raise FlagError(f"The law of goals {name} gives {ahead} for two samples; it must give int32[2], steps ahead.")
    return law
