"""What is asked of an agent's flags and functions, told by name: `fori_loop` and `scan` would speak of their carry."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from goalax.core.types import AgentState, Metrics
from goalax.flags import FlagError

RESERVED = ("updates", "coverage")  # metrics of the loop itself
FEWEST_ROWS = 3  # of a ring: of two, the older one may end an episode, and then no row has its next state beside it


def require_flags(config: type) -> None:
    """TypeError unless a class is a frozen dataclass whose fields are `flag`s of a type, not of its name."""
    frozen = getattr(getattr(config, "__dataclass_params__", None), "frozen", False)
    if not isinstance(config, type) or not dataclasses.is_dataclass(config) or not frozen:
        raise TypeError(f"The flags of an agent are {config!r}; they must be a frozen dataclass.")
    if own := [name for name in vars(config).get("__annotations__", ()) if name not in config.__dataclass_fields__]:
        raise TypeError(f"{config.__name__} has {', '.join(own)} and is no dataclass itself: decorate it.")
    for field in dataclasses.fields(config):
        if "positional" not in field.metadata:
            raise TypeError(f"{config.__name__}.{field.name} has a bare default; it must be a `flag(default, help)`.")
        if isinstance(field.type, str):
            raise TypeError(
                f"The type of {config.__name__}.{field.name} is text: leave `from __future__ import annotations` out."
            )


def pair(result: Any) -> tuple[AgentState, Metrics]:
    """What an update returns, if it is (state, metrics by name); FlagError otherwise."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        return result
    raise FlagError("The agent's `update` must return (state, metrics), where metrics are a dict of names and numbers.")


def require_state(before: AgentState, after: AgentState, function: str = "update") -> None:
    """FlagError unless an update, or a switch, returns a state of the structure, shapes and types it was given."""
    old, new = ({jax.tree_util.keystr(path): leaf for path, leaf in leaves_of(tree)} for tree in (before, after))
    for name in [*old, *new]:
        was, became = (shown(leaves[name]) if name in leaves else "missing" for leaves in (old, new))
        if was != became:
            returned = ", and (state, metrics) is what it returns" if function == "update" else ""
            raise FlagError(
                f"The agent's `{function}` takes a state whose entry {name or 'itself'} is {was}, and returns one where"
                f" it is {became}; both must be equal{returned}."
            )


def require_action(name: str, action: Any, num_envs: int, size: int) -> None:
    """FlagError unless `act` or `mode` returns an action [N, A] of float32."""
    wanted = f"float32[{num_envs}, {size}]"
    if shown(action) != wanted:
        raise FlagError(f"The agent's `{name}` returns {shown(action)}; actions of {num_envs} states are {wanted}.")


def require_horizon(horizon: int, decisions: int, stored: int | None) -> None:
    """FlagError unless an agent draws at most as many rows at once as an episode has decisions, and, if it collects at
    all, fewer than are stored where it begins to learn, where at least FEWEST_ROWS are."""
    if horizon > decisions:
        raise FlagError(
            f"The agent learns from {horizon} actions of one episode at a time, and no episode has more than"
            f" {decisions}: lower --action_chunk or --horizon, or raise --episode_length."
        )
    needed = max(horizon + 1, FEWEST_ROWS)
    if stored is not None and stored < needed:
        raise FlagError(
            f"The agent draws its samples from at least {needed} rows of an environment, and {stored} are stored where"
            " it begins: raise --min_replay_size and --max_replay_size."
        )


def require_scalars(metrics: Metrics) -> None:
    """FlagError that names the metric unless all are scalars, of names that the loop does not use itself."""
    for name, value in metrics.items():
        if name in RESERVED:
            raise FlagError(f"The agent has a metric {name!r}, which is one of the loop's own: give it another name.")
        if value.shape != () or value.dtype != jnp.float32:
            raise FlagError(
                f"The agent's metric {name!r} is {value.dtype}{list(value.shape)}; a metric must be one float32 number,"
                " such as a mean over the batch."
            )


def leaves_of(tree: Any) -> list[tuple[Any, Any]]:
    """(path, leaf) of everything in a pytree."""
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def shown(leaf: Any) -> str:
    """Type and shape in words."""
    if not hasattr(leaf, "dtype"):
        return "nothing" if leaf is None else f"a {type(leaf).__name__}"
    return f"{leaf.dtype}{list(leaf.shape)}"
