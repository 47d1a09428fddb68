"""A branch that all seeds of a program take together."""

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap

from goalax.core.types import Array


def together(due: Array, yes: Callable, no: Callable, *args: Any) -> Any:
    """`jax.lax.cond(due, yes, no, *args)`, of which seeds that are `vmap`ped run one branch and not both.

    Args:
      due: [] bool, the same for all seeds: from a count that they share, as that of updates; never from what one of
        them drew or learned.
      yes, no: of args; they close over no traced values.
    """

    @custom_vmap
    def choose(due: Array, *args: Any) -> Any:
        return jax.lax.cond(due, yes, no, *args)

    @choose.def_vmap
    def choose_for_all(size: int, batched: list, due: Array, *args: Any) -> Any:
        one = due[0] if batched[0] else due
        axes = jax.tree.map(lambda each: 0 if each else None, tuple(batched[1:]))
        both = (jax.vmap(branch, in_axes=axes, axis_size=size) for branch in (yes, no))
        result = jax.lax.cond(one, *both, *args)
        return result, jax.tree.map(lambda _: True, result)

    return choose(due, *args)
