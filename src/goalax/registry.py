"""A table of named things (environments, energies, losses, agents) that explains itself when a name is wrong."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from goalax.words import choices

T = TypeVar("T")


class RegistryError(ValueError):
    """What somebody has registered that cannot be, in one sentence with its name."""


class EntryError(RegistryError, TypeError):
    """The same, of something that is of a wrong type."""


def import_all(package: str, path: Iterable[str]) -> None:
    """Imports every file of a package, so that all that they register is found: a new entry is a new file."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


class Registry(Mapping[str, T], Generic[T]):
    """Read-only mapping from names and aliases to entries; iterates over the names only, in order of registration."""

    def __init__(self, kind: str, entry_type: type | None = None):
        self.kind, self.entry_type = kind, entry_type
        self._entries: dict[str, T] = {}
        self._names: dict[str, str] = {}  # name or alias -> name

    def add(self, name: str, entry: T, aliases: tuple[str, ...] = ()) -> T:
        """The entry. EntryError for one of a wrong type; RegistryError for a name that is taken or no plain word: names
        of runs, folders and flags are made of them."""
        keys = (name, *aliases)
        for key in keys:
            if not key.replace("_", "").isalnum():
                raise RegistryError(f"The name of a new {self.kind} is {key!r}; it must be of letters, digits and _.")
            if key in self._names:
                raise RegistryError(f"The {self.kind} {key} is registered twice.")
        if self.entry_type is not None and not isinstance(entry, self.entry_type):
            raise EntryError(f"The {self.kind} {name} is {entry!r}; it must be an {self.entry_type.__name__}.")
        self._names.update(dict.fromkeys(keys, name))
        self._entries[name] = entry
        return entry

    def register(self, name: str, *aliases: str) -> Callable[[T], T]:
        """Decorator form of `add`. EntryError for one without parentheses, which would register nothing."""
        if not isinstance(name, str):
            raise EntryError(f'The name of a new {self.kind} is {name!r}; it must be text, as in register("name").')
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
