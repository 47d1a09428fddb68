"""Batches of two rings: some rows of a run's own beside some of a dataset, in numbers that are fixed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.core import buffer, updates
from goalax.core.sizes import Sizes, samples_of
from goalax.core.types import Array, Batch, BufferState, Needs, Spec


class Rings(NamedTuple):
    """Where batches come from."""

    own: BufferState  # what the run has collected
    data: BufferState  # a dataset


class Draw(NamedTuple):
    """Where samples lie in two rings, and in what order a batch holds them."""

    own: buffer.Choice  # [B - D]
    data: buffer.Choice  # [D]
    order: Array  # [B] int32, a permutation: numbers below B - D are those of `own`


def choices(rings: Rings, key: Array, sizes: Sizes, needs: Needs, spec: Spec, max_episode_steps: int) -> Draw:
    """Samples of all updates of a phase, leaves [updates, ...]: `sizes.offline_rows` of every batch are the dataset's.

    This is the symmetric sampling of RLPD (arXiv 2302.02948) where that is half of the batch. Both parts are drawn by
    the laws that the agent asks for, and each goal lies in the ring of its sample, any stored state too. Their order is
    random: an agent may take the goal of a sample's neighbour, or treat the first part of a batch in its own way, and
    meets both sources there by their shares. So what is negative for a sample, or a random goal, is from either. Of
    samples with original goals, which are the last ones, the same is true among themselves.

    Args:
      max_episode_steps: of the run's own episodes; one of the dataset may be as long as all of it.
    """
    own_key, data_key, order_key = jax.random.split(key, 3)
    rows = sizes.offline_rows
    own, data = sizes._replace(batch_size=sizes.batch_size - rows), sizes._replace(batch_size=rows)
    longest = rings.data.rows.reward.shape[0] - 1
    positions = jnp.broadcast_to(jnp.arange(sizes.batch_size)[None], (sizes.updates_per_unroll, sizes.batch_size))
    return Draw(
        updates.choices(rings.own, own_key, own, needs, spec, max_episode_steps),
        updates.choices(rings.data, data_key, data, needs, spec, longest),
        jax.random.permutation(order_key, positions, axis=1, independent=True),
    )


def gather(rings: Rings, draw: Draw, spec: Spec, needs: Needs) -> Batch:
    """The transitions at a draw, in its order, but for those with original goals, which come last; as `buffer.gather`
    of each ring."""
    sizes = len(draw.own.slot), len(draw.data.slot)
    of_data = samples_of(needs.original, sizes[1])
    originals = samples_of(needs.original, sum(sizes)) - of_data, of_data
    parts = [
        buffer.gather(ring, choice, spec, needs._replace(original=number / size))
        for ring, choice, number, size in zip(rings, (draw.own, draw.data), originals, sizes, strict=True)
    ]
    order = draw.order
    if needs.original:
        last = [jnp.arange(size) >= size - number for size, number in zip(sizes, originals, strict=True)]
        order = order[jnp.argsort(jnp.concatenate(last)[order], stable=True)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[order], *parts)
