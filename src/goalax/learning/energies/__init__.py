"""Energies: similarity of two representations, larger = closer, one family a file; all files here are found.

A new one is a function and a decorator in a file of its own; its name is then a choice of --energy_fn:

    @energy("l4")
    def l4(x, y):
        return -jnp.sum((x - y) ** 4, axis=-1)
"""

from goalax.learning.energies.base import ENERGIES, Energy, energy
from goalax.registry import import_all

import_all(__name__, __path__)
