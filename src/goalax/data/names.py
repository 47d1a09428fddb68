"""How names of OGBench's environments and datasets are told from others."""

from typing import TypeGuard

OGBENCH = "ogbench:"  # before the name that the package knows


def is_ogbench(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and name.startswith(OGBENCH)
