"""The algorithms, one file each; importing this package fills the registry `AGENTS` from every file in it."""

import importlib
import pkgutil

from src.agents.base import AGENTS, Algorithm

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")
