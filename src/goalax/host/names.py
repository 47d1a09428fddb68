"""The names that --env_name takes: those of `ENVS`, and of OGBench's environments, which the host steps."""

from collections.abc import Iterator
from typing import Any

from goalax.data.names import is_ogbench
from goalax.envs import ENVS
from goalax.registry import Registry


class EnvNames(Registry[Any]):
    """`ENVS` as it is at the time, with OGBench's names: whether there is such a one, its package knows."""

    def __init__(self) -> None:
        super().__init__(ENVS.kind)

    def resolve(self, name: str) -> str:
        return name if is_ogbench(name) else ENVS.resolve(name)

    def __getitem__(self, name: str) -> Any:
        return ENVS[name]

    def __contains__(self, name: object) -> bool:
        return name in ENVS or is_ogbench(name)

    def __iter__(self) -> Iterator[str]:
        return iter(ENVS)

    def __len__(self) -> int:
        return len(ENVS)
