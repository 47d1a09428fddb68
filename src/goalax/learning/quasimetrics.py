"""Quasimetrics between representations: distances d(x, y) >= 0 that obey the triangle inequality but may be asymmetric.

Every quasimetric has two forms: `d(x, y)`, `[..., D] x [..., D] -> [...]`, and `pairwise_d(x, y)`,
`[B, D] x [C, D] -> [B, C]`, which is d on every pair up to rounding, but cheaper. Both raise ValueError on any other
shapes. A pair of them in `QUASIMETRICS` is an energy (minus the distance) and a choice of every agent that learns a
distance.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from goalax.learning.pairwise import (
    MAX_INTERVALS,
    mean_of,
    pairwise_mean_max_gain,
    pairwise_mean_max_union,
    pairwise_squared_distance,
    union_length,
)
from goalax.registry import Registry

EPS = 1e-6  # under every square root of a sum of squares, so that its gradient is finite at 0


def mrn(x: Array, y: Array, num_components: int = 8) -> Array:
    """Metric residual network: an asymmetric maximum plus a Euclidean distance, mean over the components.

    Each component is a contiguous chunk of D / num_components features: max_i relu(x_i - y_i) over its first half
    plus sqrt(sum_i (x_i - y_i)^2 + EPS) over its second half. So d(x, x) = sqrt(EPS), not 0.

    Args:
      x: [..., D], D a multiple of 2 * num_components.
      y: [..., D].
      num_components: number of chunks.

    Returns:
      [...] distances from x to y.

    Source: Liu et al., "Metric Residual Networks for Sample Efficient Goal-Conditioned RL", arXiv 2208.08133.
    """
    require_same_shape(x, y)
    return _mrn(x, y, num_components, _mean_max_gain, squared_distance)


def pairwise_mrn(x: Array, y: Array, num_components: int = 8) -> Array:
    """`mrn` of all pairs, [B, D] x [C, D] -> [B, C]; its Euclidean half is a matrix product."""
    require_pairable(x, y)
    return _mrn(x, y, num_components, pairwise_mean_max_gain, pairwise_squared_distance)


def mrn_max(x: Array, y: Array, num_components: int = 8) -> Array:
    """The asymmetric part of MRN alone: max_i relu(x_i - y_i) over each component, mean over the components.

    Args:
      x: [..., D], D a multiple of num_components.
      y: [..., D].
      num_components: number of contiguous chunks of D / num_components features.

    Returns:
      [...] distances from x to y.

    Source: temporal metric distillation, arXiv 2509.20478, Eq. 20.
    """
    require_same_shape(x, y)
    return _mean_max_gain(_split(x, num_components), _split(y, num_components))


def pairwise_mrn_max(x: Array, y: Array, num_components: int = 8) -> Array:
    """`mrn_max` of all pairs, [B, D] x [C, D] -> [B, C]."""
    require_pairable(x, y)
    return pairwise_mean_max_gain(_split(x, num_components), _split(y, num_components))


def iqe(x: Array, y: Array, alpha_raw: Array | float, num_components: int = 8) -> Array:
    """Interval quasimetric embedding: how much of the line the intervals [x_i, y_i] with x_i < y_i cover.

    The features are D / num_components contiguous rows of num_components intervals. The length of the union of a
    row's intervals is one distance per row; the result is alpha * mean + (1 - alpha) * max of them.

    Args:
      x: [..., D], D a multiple of num_components.
      y: [..., D].
      alpha_raw: [] learned mixing scalar, alpha = sigmoid(alpha_raw).
      num_components: number of intervals in a row.

    Returns:
      [...] distances from x to y.

    Source: Wang & Isola, "Improved Representation of Asymmetrical Distances with Interval Quasimetric Embeddings",
    arXiv 2211.15120 (IQE-maxmean).
    """
    require_same_shape(x, y)
    x, y = _rows(x, num_components), _rows(y, num_components)
    order = jnp.argsort(x, axis=-1)
    starts, ends = (jnp.moveaxis(jnp.take_along_axis(z, order, axis=-1), -1, 0) for z in (x, y))
    lengths, alpha = union_length(starts, ends), jax.nn.sigmoid(alpha_raw)
    return alpha * jnp.mean(lengths, axis=0) + (1 - alpha) * jnp.max(lengths, axis=0)


def pairwise_iqe(x: Array, y: Array, alpha_raw: Array | float, num_components: int = 8) -> Array:
    """`iqe` of all pairs, [B, D] x [C, D] -> [B, C]; num_components at most MAX_INTERVALS."""
    require_pairable(x, y)
    if num_components > MAX_INTERVALS:
        raise ValueError(f"Expected num_components of at most {MAX_INTERVALS}, got {num_components}.")
    return pairwise_mean_max_union(_rows(x, num_components), _rows(y, num_components), jax.nn.sigmoid(alpha_raw))


def euclidean(x: Array, y: Array, num_components: int = 8) -> Array:
    """The symmetric one, to see what asymmetry adds: sqrt(sum_i (x_i - y_i)^2 + EPS) of each component, their mean.

    Args:
      x: [..., D], D a multiple of num_components.
      y: [..., D].
      num_components: number of contiguous chunks of D / num_components features.

    Returns:
      [...] distances, the same from y to x.
    """
    require_same_shape(x, y)
    return _mean_length(_split(x, num_components), _split(y, num_components), squared_distance)


def pairwise_euclidean(x: Array, y: Array, num_components: int = 8) -> Array:
    """`euclidean` of all pairs, [B, D] x [C, D] -> [B, C], by matrix products."""
    require_pairable(x, y)
    return _mean_length(_split(x, num_components), _split(y, num_components), pairwise_squared_distance)


class Quasimetric(NamedTuple):
    """Both forms take (x, y), then the learned scalar if there is one, and num_components."""

    between: Callable[..., Array]
    pairwise: Callable[..., Array]
    init: float | None = None  # initial value of the learned scalar

    def init_params(self) -> tuple[Array, ...]:
        """The learned scalar, or nothing."""
        return () if self.init is None else (jnp.float32(self.init),)

    def bind(self, params: tuple[Array, ...], num_components: int, scale: float = 1.0) -> "Quasimetric":
        """`scale` times the quasimetric, both forms functions of (x, y) alone."""

        def bound(form: Callable[..., Array]) -> Callable[[Array, Array], Array]:
            return lambda x, y: scale * form(x, y, *params, num_components=num_components)

        return Quasimetric(bound(self.between), bound(self.pairwise))


QUASIMETRICS: Registry[Quasimetric] = Registry("quasimetric")
QUASIMETRICS.add("mrn", Quasimetric(mrn, pairwise_mrn))
QUASIMETRICS.add("mrn_max", Quasimetric(mrn_max, pairwise_mrn_max))
QUASIMETRICS.add("iqe", Quasimetric(iqe, pairwise_iqe, init=0.0))
QUASIMETRICS.add("euclidean", Quasimetric(euclidean, pairwise_euclidean))


def squared_distance(x: Array, y: Array) -> Array:
    """sum_d (x_d - y_d)^2, [..., D] x [..., D] -> [...]."""
    return jnp.sum((x - y) ** 2, axis=-1)


def require_same_shape(x: Array, y: Array) -> None:
    """ValueError unless x and y have one shape, so that nothing is broadcast silently."""
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(f"Expected x and y of one shape [..., D], got {jnp.shape(x)} and {jnp.shape(y)}.")


def require_pairable(x: Array, y: Array) -> None:
    """ValueError unless x is [B, D] and y is [C, D]."""
    if not (jnp.ndim(x) == jnp.ndim(y) == 2 and jnp.shape(x)[1] == jnp.shape(y)[1]):
        raise ValueError(f"Expected x [B, D] and y [C, D], got {jnp.shape(x)} and {jnp.shape(y)}.")


def _mrn(x: Array, y: Array, num_components: int, mean_gain: Callable, sq_distance: Callable) -> Array:
    x, y = _split(x, 2 * num_components), _split(y, 2 * num_components)
    return mean_gain(x[0::2], y[0::2]) + _mean_length(x[1::2], y[1::2], sq_distance)


def _mean_length(x: Array, y: Array, sq_distance: Callable) -> Array:
    """Mean over parts of their Euclidean distances, [K, ., n] x [K, ., n] -> what `sq_distance` gives of a part."""
    # One by one, because XLA's batched products of thin matrices are ten times slower on CPUs than as many single ones.
    return mean_of(jnp.stack([jnp.sqrt(sq_distance(a, b) + EPS) for a, b in zip(x, y, strict=True)]))


def _mean_max_gain(x: Array, y: Array) -> Array:
    """mean_k max_i relu(x_ki - y_ki), [K, ..., n] x [K, ..., n] -> [...]."""
    return jnp.mean(jax.nn.relu(jnp.max(x - y, axis=-1)), axis=0)


def _split(x: Array, num_parts: int) -> Array:
    """Contiguous parts of the last axis, as a new leading axis: [..., D] -> [num_parts, ..., D / num_parts]."""
    _require_multiple(x, num_parts)
    return jnp.moveaxis(x.reshape(*x.shape[:-1], num_parts, -1), -2, 0)


def _rows(x: Array, row_length: int) -> Array:
    """`_split` by the length of a part: [..., D] -> [D / row_length, ..., row_length]."""
    _require_multiple(x, row_length)
    return _split(x, x.shape[-1] // row_length)


def _require_multiple(x: Array, divisor: int) -> None:
    if x.shape[-1] % divisor:
        raise ValueError(f"Expected a number of features D that is a multiple of {divisor}, got {x.shape[-1]}.")
