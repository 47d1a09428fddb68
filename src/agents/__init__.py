"""The algorithms: one file each; importing this package fills the registry `AGENTS`."""

from src.agents import crl
from src.agents.base import AGENTS, Algorithm
