"""The algorithms, one file each; importing this package fills the registry `AGENTS` from every file in it."""

from goalax.agents.base import AGENTS, Algorithm
from goalax.registry import import_all

import_all(__name__, __path__)
