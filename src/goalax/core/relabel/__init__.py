"""Laws of goals: how many steps ahead a relabelled goal lies; all files here are found.

A new one is a function of the discount that returns a `Law`, and a decorator, in a file of its own; its name is then a
choice of --relabel:

    @RELABEL.register("next")
    def next_state(discounting):
        return lambda uniform, left: jnp.ones_like(left)
"""

from goalax.core.relabel.base import RELABEL, Law, law_of
from goalax.registry import import_all

import_all(__name__, __path__)
