"""What tests of mazes share: every layout, and its picture as an array."""

import numpy as np
import pytest

from goalax.envs.maze import LAYOUTS

every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def grid_of(layout):
    return np.array([list(line) for line in LAYOUTS[layout].split()])
