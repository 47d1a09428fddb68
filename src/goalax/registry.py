"""A table of named things (environments, energies, losses, agents) that explains itself when a name is wrong."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from goalax.words import choices

T = TypeVar("T")


def import_all(package: str, path: Iterable[str]) -> None:
    """Imports every file of a package, so that all that they register is found: a new entry is a new file."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


class Registry(Mapping[str, T], Generic[T]):
    """Read-only mapping from names and aliases to entries; iterates over the names only, in order of registration."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._names: dict[str, str] = {}  # name or alias -> name

    def add(self, name: str, entry: T, aliases: tuple[str, ...] = ()) -> T:
        keys = (name, *aliases)
        for key in keys:
            if key in self._names:
                raise ValueError(f"The {self.kind} {key} is registered twice.")
        self._names.update(dict.fromkeys(keys, name))
        self._entries[name] = entry
        return entry

    def register(self, name: str, *aliases: str) -> Callable[[T], T]:
        """Decorator form of `add`."""
        return lambda entry: self.add(name, entry, aliases)

    def resolve(self, name: str) -> str:
        """The name behind a name or an alias; ValueError that lists the choices, nearest first, if there is none."""
        if name not in self._names:
            raise ValueError(f"Unknown {self.kind}: {name}. Choose from: {choices(name, list(self._entries))}.")
        return self._names[name]

    def __getitem__(self, name: str) -> T:
        return self._entries[self.resolve(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
