"""Inner products, maxima and interval unions over all pairs [B, C] of two sets of vectors, without a [B, C, D] tensor.

The maxima and unions bring their own backward pass. Autodiff would keep a matrix [B, C] for every feature and be four
to ten times slower on a CPU; here the forward pass keeps, for every pair, a few bits that say which features decided.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

FLOOR = 1e-6  # under squared norms
MAX_INTERVALS = 16  # in a row of `pairwise_mean_max_union`: two bits of a 32-bit word each


def unit(x: Array) -> Array:
    """x / |x|, [..., D] -> [..., D]; the floor under |x| keeps value and gradient finite at 0."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), FLOOR))


def pairwise_dot(x: Array, y: Array) -> Array:
    """Inner products of all pairs, [..., B, D] x [..., C, D] -> [..., B, C]."""
    # GPUs would otherwise round the factors to 10 bits (TF32), which no cancelling sum survives.
    return jnp.matmul(x, jnp.swapaxes(y, -1, -2), precision=lax.Precision.HIGHEST)


def pairwise_squared_distance(x: Array, y: Array) -> Array:
    """|x|^2 + |y|^2 - 2 x.y, [..., B, D] x [..., C, D] -> [..., B, C].

    The sum cancels: the absolute error is a few float32 roundings of |x|^2 + |y|^2, that is about
    1e-6 * (|x|^2 + |y|^2), so distances under 1e-3 * |x| are noise. The clamp keeps that noise from being negative.
    """
    x_squared, y_squared = jnp.sum(x**2, axis=-1)[..., :, None], jnp.sum(y**2, axis=-1)[..., None, :]
    return jnp.maximum(x_squared + y_squared - 2 * pairwise_dot(x, y), 0.0)


@jax.custom_vjp
def pairwise_mean_max_gain(x: Array, y: Array) -> Array:
    """mean_k max_i relu(x_ki - y_ki) of all pairs, [K, B, n] x [K, C, n] -> [B, C], float32.

    Too small by less than 2^(b - 23) of its value, b the number of bits in n: 2e-6 for n = 8. The whole gradient of a
    component goes to one feature that has the maximum up to this error.
    """
    return _gain_forward(x, y)[0]


def _gain_forward(x: Array, y: Array) -> tuple[Array, tuple]:
    num_components, b, n = x.shape
    # The index of a feature rides in the last bits of its gain, so one running maximum finds both; two of them would
    # take twice the time. As integers, positive floats are in their order, and negative ones below them.
    index_bits = (1 << n.bit_length()) - 1
    each = []
    for k in range(num_components):
        best = jnp.full((b, y.shape[1]), n, jnp.int32)  # a gain of 0, of no feature
        rows, columns = _transposed(x[k]), _transposed(y[k])
        for i in range(n):
            gain = lax.bitcast_convert_type(rows[i, :, None] - columns[i, None, :], jnp.int32)
            best = jnp.maximum(best, gain & ~index_bits | i)
        each.append(best)
    packed = jnp.stack(each)
    gains = lax.bitcast_convert_type(packed & ~index_bits, jnp.float32)
    # An integer maximum passes over nan; this does not.
    no_number = 0 * (x.sum(axis=(0, 2))[:, None] + y.sum(axis=(0, 2))[None, :])
    winners = (packed & index_bits).astype(jnp.int8 if n < 127 else jnp.int32)
    return mean_of(gains) + no_number, (x, winners)


def _transposed(x: Array) -> Array:
    """[B, n] -> [n, B], laid out like that.

    As a product: XLA would fuse a transposition into its reader, which then takes one number here, one there, and on a
    CPU five times as long. What is not finite spreads over its row, which is nan in the end anyway.
    """
    return jnp.matmul(jnp.eye(x.shape[-1], dtype=x.dtype), x.T, precision=lax.Precision.HIGHEST)


def _gain_backward(residuals: tuple, cotangent: Array) -> tuple[Array, Array]:
    x, winners = residuals

    def gradients_of(i: Array) -> tuple[Array, Array]:
        won = jnp.where(winners == i.astype(winners.dtype), cotangent / x.shape[0], 0.0)
        return _sum_over_y(won), -won.sum(axis=1)

    return _by_feature(gradients_of, x.shape[-1])


pairwise_mean_max_gain.defvjp(_gain_forward, _gain_backward)


@jax.custom_vjp
def pairwise_mean_max_union(x: Array, y: Array, alpha: Array) -> Array:
    """alpha * mean_r + (1 - alpha) * max_r of the length of the union of the intervals [x_ri, y_ri] with x_ri < y_ri.

    Args:
      x: [R, B, K] starts, K at most MAX_INTERVALS.
      y: [R, C, K] ends.
      alpha: [].

    Returns:
      [B, C]. The gradient of the maximum goes to the first of equally long rows.
    """
    return _union_forward(x, y, alpha)[0]


def _union_forward(x: Array, y: Array, alpha: Array) -> tuple[Array, tuple]:
    order = jnp.argsort(x, axis=-1)  # depends on x alone, so it is found B times, not B * C times
    # Two loops over the rows: in one, XLA would compute what both outputs share once for every interval of each.
    lengths = lax.map(lambda row: union_length(*_in_order(*row)), (x, y, order))
    pieces = lax.map(lambda row: _pieces(*_in_order(*row)), (x, y, order))
    mean, longest = jnp.mean(lengths, axis=0), jnp.max(lengths, axis=0)
    residuals = pieces, jnp.argsort(order, axis=-1), jnp.argmax(lengths, axis=0), mean - longest, alpha
    return alpha * mean + (1 - alpha) * longest, residuals


def _in_order(x: Array, y: Array, order: Array) -> tuple[list[Array], list[Array]]:
    """Starts [B, 1] and ends [B, C] of the intervals from x [B, K] to y [C, K], each x's in the order [B, K]."""
    starts = jnp.take_along_axis(x, order, axis=-1).T[:, :, None]
    return list(starts), [y.T[index] for index in order.T]  # not one [K, B, C] gather, which XLA would not fuse


def _walk(starts: Sequence[Array] | Array, ends: Sequence[Array] | Array) -> Iterator[tuple[Array, Array, Array]]:
    """(start, end, how far the line is covered before) of each interval, in ascending order of start."""
    covered = starts[0]
    for start, end in zip(starts, ends, strict=True):
        yield start, end, covered
        covered = jnp.maximum(covered, end)


def union_length(starts: Sequence[Array] | Array, ends: Sequence[Array] | Array) -> Array:
    """Length of the union of the intervals [starts[i], ends[i]], in ascending order of start; [K, ...] -> [...]."""
    # relu: 0 for an interval that ends before its start
    lengths = (jax.nn.relu(end - jnp.maximum(start, covered)) for start, end, covered in _walk(starts, ends))
    return sum(lengths, start=jnp.zeros(()))


def _pieces(starts: list[Array], ends: list[Array]) -> Array:
    """Which of K intervals end (bit i of a word) and begin (bit K + i) a gapless piece of their union; [B, C]."""
    k = len(starts)
    word = last = jnp.zeros(ends[0].shape, jnp.uint32)  # last: the bit of what ends the latest piece so far
    for i, (start, end, covered) in enumerate(_walk(starts, ends)):
        adds, apart = end > jnp.maximum(start, covered), start >= covered
        here = jnp.uint32(1 << i)
        extended = jnp.where(apart, word | jnp.uint32(1 << (k + i)), word & ~last) | here
        word, last = jnp.where(adds, extended, word), jnp.where(adds, here, last)
    return word.astype(jnp.uint16) if k <= 8 else word


def _union_backward(residuals: tuple, cotangent: Array) -> tuple[Array, Array, Array]:
    pieces, rank, longest, mean_minus_max, alpha = residuals
    num_rows, _, k = rank.shape
    is_longest = longest[None] == jnp.arange(num_rows)[:, None, None]

    def gradients_of(i: Array) -> tuple[Array, Array]:
        place = rank[:, :, i, None].astype(pieces.dtype)
        of_row = cotangent[None] * (alpha / num_rows + (1 - alpha) * is_longest)
        ends, begins = (jnp.where(pieces >> bit & 1, of_row, 0.0) for bit in (place, place + k))
        return -_sum_over_y(begins), ends.sum(axis=1)

    return *_by_feature(gradients_of, k), jnp.sum(cotangent * mean_minus_max)


pairwise_mean_max_union.defvjp(_union_forward, _union_backward)


def _by_feature(gradients_of: Callable[[Array], tuple[Array, Array]], n: int) -> tuple[Array, Array]:
    """Gradients [R, B, n] and [R, C, n] from those of each feature, [R, B] and [R, C]."""
    # A loop, because XLA would fuse what computes the cotangent into each of the 2 n sums and do it as many times.
    dx, dy = lax.map(gradients_of, jnp.arange(n))
    return jnp.moveaxis(dx, 0, -1), jnp.moveaxis(dy, 0, -1)


def _sum_over_y(matrix: Array) -> Array:
    """Sum over the last axis, [R, B, C] -> [R, B]."""
    # CPUs add rows to rows in vectors, but the entries of a row one by one: so the sum is taken in lanes.
    lanes = math.gcd(matrix.shape[-1], 16)
    return matrix.reshape(*matrix.shape[:-1], -1, lanes).sum(axis=-2).sum(axis=-1)


def mean_of(parts: Array) -> Array:
    """Mean over the first axis, as a product: XLA would fuse a sum into every reader and run it that often."""
    weights = jnp.full(len(parts), 1 / len(parts))
    return jnp.tensordot(weights, parts, axes=1, precision=lax.Precision.HIGHEST)
