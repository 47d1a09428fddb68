"""Where a run lies on several devices: seeds are spread first, then the environments of a seed with their buffer.

Training is the same program on any number of devices, with the same random numbers; XLA divides what `placement` lays
out, and `local` and `look_up` keep physics and the buffer from being divided in any way that would move them.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from goalax.core.types import Array, BufferState, RunState

SEED, ENV = "seed", "env"
DIVIDED, WHOLE = P(ENV), P()  # leaves [N, ...] of which each device holds a part, and leaves that all devices hold


def make_mesh(num_seeds: int, devices: Sequence[jax.Device]) -> Mesh | None:
    """Devices [seeds, environments], the first axis as long as seeds can be spread evenly; None for one device."""
    if len(devices) == 1:
        return None
    seeds = math.gcd(num_seeds, len(devices))
    return jax.make_mesh((seeds, len(devices) // seeds), (SEED, ENV), (AxisType.Auto,) * 2, devices=devices)


def placement(mesh: Mesh | None, num_seeds: int) -> Any:
    """Shardings in the form of a RunState, one per subtree: environments and buffer columns divided, all else whole;
    None for one device."""
    if mesh is None:
        return None

    def over(*axes: str | None) -> Any:  # NamedSharding, in the place of arrays
        return NamedSharding(mesh, P(*([SEED] if num_seeds > 1 else []), *axes))

    whole = over()
    shared: Any = everywhere(mesh)
    return RunState(
        agent=whole,
        env=over(ENV),
        buffer=BufferState(rows=over(None, ENV), count=whole),
        key=whole,
        env_steps=shared,  # every host reads these two
        gradient_steps=shared,
        metric_sums=whole,
    )


def everywhere(mesh: Mesh | None) -> NamedSharding | None:
    """The sharding of what every device holds; None for one device."""
    return None if mesh is None else NamedSharding(mesh, WHOLE)


def put(tree: Any, shardings: Any) -> Any:
    """Arrays of the host, equal on all hosts, on the devices; shardings: a prefix of the tree, or None for one."""
    if shardings is None:
        return jax.device_put(tree)

    def place(leaf, sharding):
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, tree, jax.tree.broadcast(shardings, tree))


def on_devices(
    mesh: Mesh | None,
    num_seeds: int,
    init: Callable,
    advance: Callable,
    fit: Callable,
    evaluate: Callable,
    shared: int = 0,
) -> tuple[Callable, Callable, Callable, Callable]:
    """The functions of one seed (see `train.Train`) as those of all seeds, jitted for the devices.

    shared: datasets that advance takes last, one copy for all seeds.
    """
    init, advance, fit, evaluate = (within(mesh, function) for function in (init, advance, fit, evaluate))
    if num_seeds > 1:
        seeds = functools.partial(jax.vmap, spmd_axis_name=None if mesh is None else SEED)
        advance = seeds(advance, in_axes=(0, None, None, *[None] * shared))
        init, fit, evaluate = seeds(init), seeds(fit), seeds(evaluate)
    state = placement(mesh, num_seeds)
    whole = everywhere(mesh)
    return (
        jax.jit(init, in_shardings=whole, out_shardings=state),
        jax.jit(advance, donate_argnums=0, in_shardings=(state, *[whole] * (2 + shared)), out_shardings=state),
        jax.jit(fit, donate_argnums=0, in_shardings=(state,), out_shardings=state),
        jax.jit(evaluate, in_shardings=(state,), out_shardings=whole),
    )


def within(mesh: Mesh | None, function: Callable) -> Callable:
    """The function, traced so that everything below knows the devices."""
    if mesh is None:
        return function
    abstract = mesh.abstract_mesh

    @functools.wraps(function)
    def traced(*args):
        with jax.sharding.use_abstract_mesh(abstract):
            return function(*args)

    return traced


def _is_local() -> bool:
    """Whether what is traced now runs on one device, or sees only the share of one (inside `local`).

    A mesh without the axis is another trainer's, which has made its own shares.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return ENV not in mesh.axis_names or ENV in mesh.manual_axes


def num_shards() -> int:
    """Devices that share the environments of a seed."""
    return jax.sharding.get_abstract_mesh().shape.get(ENV, 1)


def shard_index() -> Array | int:
    """Inside `local`: which of the `num_shards` devices this is."""
    return 0 if num_shards() == 1 else jax.lax.axis_index(ENV)


def local(function: Callable, in_specs: Any = DIVIDED, out_specs: Any = DIVIDED) -> Callable:
    """The function of every device's own share: no device waits for another one, nor loops as long as another one.

    Args:
      in_specs, out_specs: DIVIDED or WHOLE, as of `jax.shard_map`.
    """

    def call(*args):
        if _is_local():
            return function(*args)
        return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)(*args)

    return call


def look_up(find: Callable[..., Any], rows: Any, column: Array, *rest: Array) -> Any:
    """find(rows, column, *rest), done by the devices that hold the columns asked for.

    Args:
      find: every leaf of its result has the shape [*column.shape, ...], and depends on no column but its own.
      rows: leaves [capacity, N, ...], N divided.
      column, rest: the same on all devices.
    """
    if num_shards() == 1:
        return find(rows, column, *rest)

    def share(rows, column, *rest):
        num = jax.tree.leaves(rows)[0].shape[1]
        mine = column - shard_index() * num
        here = (mine >= 0) & (mine < num)
        found = find(rows, jnp.clip(mine, 0, num - 1), *rest)

        def keep(leaf):
            return jnp.where(here.reshape(*here.shape, *(1,) * (leaf.ndim - here.ndim)), leaf, jnp.zeros_like(leaf))

        return jax.lax.psum(jax.tree.map(keep, found), ENV)

    in_specs = P(None, ENV), WHOLE, *[WHOLE] * len(rest)
    return jax.shard_map(share, in_specs=in_specs, out_specs=WHOLE, check_vma=False)(rows, column, *rest)


def divide(batch: Any) -> Any:
    """Leaves [B, ...] of equal content on all devices, of which each one goes on with its part."""
    return batch if num_shards() == 1 else jax.lax.with_sharding_constraint(batch, DIVIDED)
