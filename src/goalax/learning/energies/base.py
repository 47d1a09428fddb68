"""What an energy is: a similarity of two representations with a form for all pairs; and the registry of them."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from goalax.flags import FlagError
from goalax.learning.quasimetrics import require_pairable, require_same_shape
from goalax.registry import EntryError, Registry
from goalax.words import shape_of


@dataclasses.dataclass(frozen=True)
class Energy:
    """A similarity of representations: `energy(x, y, param)` per pair, `energy.pairwise(x, y, param)` of all pairs.

    Attributes:
      name: its name in `ENERGIES`.
      between: (x [..., D], y [..., D]) -> [...]; takes the parameter as third argument if there is one.
      matrix: the same for all pairs, (x [B, D], y [C, D]) -> [B, C].
      init: initial value of the one learned scalar parameter; None if there is none.
    """

    name: str
    between: Callable[..., Array]
    matrix: Callable[..., Array]
    init: float | None = None

    def init_param(self) -> Array | None:
        """The learned parameter at the start, None if there is none."""
        return None if self.init is None else jnp.float32(self.init)

    def __call__(self, x: Array, y: Array, param: Array | float | None = None) -> Array:
        """Energies of corresponding x and y, [..., D] x [..., D] -> [...]; ValueError on any other shapes."""
        require_same_shape(x, y)
        return self._checked(self.between(x, y, *self._arguments(param)), x.shape[:-1], "two representations [..., D]")

    def pairwise(self, x: Array, y: Array, param: Array | float | None = None) -> Array:
        """Energies of all pairs, [B, D] x [C, D] -> [B, C]; ValueError on any other shapes."""
        require_pairable(x, y)
        pairs = (x.shape[0], y.shape[0])
        return self._checked(self.matrix(x, y, *self._arguments(param)), pairs, "all pairs of [B, D] and [C, D]")

    def _checked(self, result: Array, shape: tuple[int, ...], of: str) -> Array:
        """The result. FlagError unless it is of this shape: a broadcast would train something else without a word."""
        if getattr(result, "shape", None) != shape:
            found = shape_of(result)
            raise FlagError(f"The energy {self.name} of {of} returns {found}; it must return {list(shape)}.")
        return result

    def _arguments(self, param: Array | float | None) -> tuple[Array | float, ...]:
        if self.init is None and param is not None:
            raise ValueError(f"The energy {self.name} has no learned parameter, but got one.")
        if self.init is not None and (param is None or jnp.ndim(param) != 0):
            raise ValueError(f"The energy {self.name} needs its learned parameter, one scalar.")
        return () if param is None else (param,)


ENERGIES: Registry[Energy] = Registry("energy")


def energy(name: str, *aliases: str, pairwise: Callable[..., Array] | None = None, init: float | None = None):
    """Decorator that registers a function of two representations in `ENERGIES` and returns it unchanged.

    Args:
      name: name in the registry.
      *aliases: other names of it.
      pairwise: form for all pairs, [B, D] x [C, D] -> [B, C], if there is one cheaper than calling the function on
        each pair.
      init: initial value of its learned scalar parameter, the third argument of both functions; None if it has none.
    """

    if not isinstance(name, str):
        function = getattr(name, "__name__", name)
        raise EntryError(f'The energy {function} has no name; it must be registered as @energy("name").')

    def register(between: Callable[..., Array]) -> Callable[..., Array]:
        ENERGIES.add(name, Energy(name, between, pairwise or _on_all_pairs(between), init), aliases)
        return between

    return register


def _on_all_pairs(between: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, y, *param: jax.vmap(lambda a: jax.vmap(lambda b: between(a, b, *param))(y))(x)


def minus(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function with the other sign: a distance is small where its energy is large."""
    return lambda *args: -function(*args)
