"""Golden values of SRL, ChronoSRL and MQE, from tests/golden/frontier.npz."""

import jax.numpy as jnp
import numpy as np

from tests.helpers import ROOT

GOLDEN = np.load(ROOT / "tests" / "golden" / "frontier.npz")


def section(name):
    """The arrays of a section of the golden file: inputs and outputs by their names."""
    sides = {}
    for side in ("in", "out"):
        start = f"{name}/{side}/"
        sides |= {key.removeprefix(start): GOLDEN[key] for key in GOLDEN.files if key.startswith(start)}
    return sides


def floats(values):
    return jnp.asarray(values, jnp.float32)
