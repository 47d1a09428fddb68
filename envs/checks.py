"""What is asked of an environment's attributes and hooks, told by name: JAX would speak of shapes that do not fit."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from goalax.words import shape_of


def require_goal(env: Any, known: Sequence[str]) -> None:
    """ValueError unless backends are some of Brax's, and goals are entries of the state."""
    name, size = type(env).__name__, getattr(env, "state_dim", None)
    if not isinstance(size, int):
        raise ValueError(f"{name} has no `state_dim`; it must be the number of entries of its state.")
    if outside := [index for index in env.goal_indices if not 0 <= index < size]:
        raise ValueError(f"The goal_indices of {name} have {outside[0]}, and its state_dim is {size}.")
    if not isinstance(env.backends, tuple) or not set(env.backends) <= set(known):
        raise ValueError(f"The backends of {name} are {env.backends!r}; they must be a tuple of some of {known}.")


def require_shape(env: Any, what: str, found: Array, size: int) -> None:
    """ValueError unless a hook of an environment has returned a vector of that size."""
    if getattr(found, "shape", None) != (size,):
        raise ValueError(f"`{what}` of {type(env).__name__} returns {shape_of(found)}; it must return [{size}].")


def require_measures(env: Any, measures: Any) -> None:
    """ValueError unless they are a dict of scalars [] with success and dist."""
    name = type(env).__name__
    if not isinstance(measures, dict) or not measures.keys() >= {"success", "dist"}:
        raise ValueError(f"`measures` of {name} must return a dict with success and dist in it.")
    for key, value in measures.items():
        if jnp.shape(value) != ():
            shape = list(jnp.shape(value))
            raise ValueError(f"`measures` of {name} has {key!r} of shape {shape}; it must be one number [].")
