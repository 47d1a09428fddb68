"""Counts and sums that stay exact for as long as anybody trains, in 32 bits: JAX has no others by default."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

LIMB_BITS = 30  # of the lower half of a counter: the sum of two such numbers still fits into an int32


class Counter(NamedTuple):
    """A whole number below 2^61, high * 2^30 + low; `int` gives it on the host, of several seeds that of the first."""

    high: Array  # [] int32
    low: Array  # [] int32, less than 2^30

    def __int__(self) -> int:
        high, low = (int(np.ravel(limb)[0]) for limb in self)
        return (high << LIMB_BITS) + low


def zero() -> Counter:
    return Counter(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def plus(counter: Counter, number: Array | int) -> Counter:
    """The counter some steps on, 0 <= number < 2^30."""
    low = counter.low + number
    return Counter(counter.high + (low >> LIMB_BITS), low & ((1 << LIMB_BITS) - 1))


class Sum(NamedTuple):
    """A float32 sum that keeps what rounding would lose (Kahan, Communications of the ACM 8, 1965, page 40).

    A plain one stops growing at 2^24 terms of equal size; of this one a mean over 10^8 terms is right to 1e-6.
    """

    total: Array  # []
    excess: Array  # [] what the total is too large by

    @property
    def value(self) -> Array:
        return self.total - self.excess


def empty() -> Sum:
    return Sum(jnp.zeros(()), jnp.zeros(()))


def added(sum: Sum, term: Array) -> Sum:
    """The sum and one more term."""
    term = term - sum.excess
    total = sum.total + term
    return Sum(total, (total - sum.total) - term)
