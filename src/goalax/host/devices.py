"""The devices of a run and the hosts that they belong to: start, choice, even division, and what hosts tell each other.

Without --coordinator_address there is one host, and everything here is free.
"""

import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from goalax.flags import FlagError
from goalax.words import first_line

HOSTS = ("coordinator_address", "num_processes", "process_id")  # flags that name several processes
START_SECONDS = 300  # for process 0 to start; it waits as long for the others
NAME_SECONDS = 60  # for its name and the way to it, which a host that boots does not have from the start
PIECE_BYTES = 2**28  # of an array that lies on several hosts and is gathered


class HostFlags(Protocol):
    """The flags that name several processes; all None for one."""

    @property
    def coordinator_address(self) -> str | None: ...
    @property
    def num_processes(self) -> int | None: ...
    @property
    def process_id(self) -> int | None: ...


def start(flags: HostFlags) -> None:
    """Joins the other processes, if the flags name them; before anything else asks for a device.

    Raises:
      FlagError: flags that do not fit each other, processes that cannot be reached, or as in `check`.
    """
    join(flags)
    check()


def check() -> None:
    """FlagError where JAX finds no device to compute on, or is set to a precision that nothing here is made for."""
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, AssertionError without words, whatever a plugin raises
        wanted = os.environ.get("JAX_PLATFORMS")
        words = f"JAX_PLATFORMS is {wanted!r}, but JAX" if wanted else "JAX"
        reason = first_line(error) if str(error).strip() else ""
        raise FlagError(f"{words} finds no such device{reason and f': {reason}'}.") from None
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        raise FlagError("JAX_ENABLE_X64 is set, but everything here is made for float32: unset it.")


def join(flags: HostFlags) -> None:
    """`start` without `check`."""
    address, processes, process = flags.coordinator_address, flags.num_processes, flags.process_id
    missing = [f"--{name}" for name in HOSTS if getattr(flags, name) is None]
    if len(missing) == len(HOSTS):
        return
    if address is None or processes is None or process is None:
        raise FlagError(f"{' and '.join(missing)} must be given too, because the three flags of hosts go together.")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise FlagError(f"--coordinator_address is {address!r}; it must be HOST:PORT of process 0.")
    if process >= processes:
        most = processes - 1
        raise FlagError(f"--process_id is {process}; with --num_processes {most + 1} it must be at most {most}.")
    if process > 0:
        wait_for(host, int(port))
    try:  # left to itself, JAX would take one device per process on a cluster that it knows, such as Slurm
        jax.distributed.initialize(address, processes, process, cluster_detection_method="deactivate")
    except (RuntimeError, ValueError) as error:
        raise FlagError(f"--coordinator_address is {address!r}, but {first_line(error)}.") from None


def wait_for(host: str, port: int) -> None:
    """Returns when process 0 listens; FlagError if it does not in time, where JAX would abort with a stack trace."""
    begin = time.monotonic()
    while True:
        try:
            socket.create_connection((host.strip("[]"), port), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            is_there = isinstance(error, (ConnectionError, TimeoutError))
            seconds = 0 if isinstance(error, OverflowError) else START_SECONDS if is_there else NAME_SECONDS
            if time.monotonic() > begin + seconds:
                raise FlagError(
                    f"--coordinator_address is '{host}:{port}', where no process 0 answers ({error})."
                ) from None
            time.sleep(1)


def leads() -> bool:
    """Whether this process writes the run directories and speaks; one of all does."""
    return jax.process_index() == 0


def highest(*values: int) -> list[int]:
    """The largest of each value over all processes, so that all go the same way; all must call it."""
    if jax.process_count() == 1:
        return list(values)
    return [int(value) for value in np.max(multihost_utils.process_allgather(np.array(values)), axis=0)]


def fetch(leaf: jax.Array) -> np.ndarray:
    """A copy on the host, wherever the array lies; all processes must call it."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.array(leaf)
    if not leaf.size:
        return np.zeros(leaf.shape, leaf.dtype)
    pieces = jnp.array_split(leaf, -(-leaf.nbytes // PIECE_BYTES))  # each is whole on every device for a moment
    return np.concatenate([multihost_utils.process_allgather(piece, tiled=True) for piece in pieces])


def sharers(num_seeds: int, num_devices: int) -> int:
    """Devices that share the environments of a seed, after seeds have been spread over as many as divide them."""
    return num_devices // math.gcd(num_seeds, num_devices)


def choose(wanted: int | None, num_seeds: int, divided: Mapping[str, int]) -> int:
    """How many devices a run takes: all there are, or as many of them as divide its sizes; on CPUs one.

    The devices of a CPU share its cores, so that several help only where they belong to several hosts.

    Args:
      wanted: --num_devices, None where it is not given.
      divided: flag -> size, of those that the devices which share a seed must divide.

    Raises:
      FlagError: more devices than there are, or sizes that they do not divide.
    """
    there, hosts = jax.device_count(), jax.process_count()
    if wanted is None:
        most = hosts if jax.default_backend() == "cpu" else there
        fitting = [num for num in range(most, 0, -hosts) if not uneven(divided, num_seeds, num)]
        wanted = fitting[0] if fitting else hosts
    if wanted > there or wanted % hosts:
        multiple = f", a multiple of --num_processes {hosts}" if hosts > 1 else ""
        raise FlagError(f"--num_devices is {wanted}; it must be at most {there}, the devices that there are{multiple}.")
    shared = sharers(num_seeds, wanted)
    for name in uneven(divided, num_seeds, wanted):
        value = divided[name]
        near = [str(number) for number in (value // shared * shared, -(-value // shared) * shared) if number]
        raise FlagError(
            f"--{name} is {value}; it must be a multiple of {shared}, the devices that share a seed with --num_seeds"
            f" {num_seeds} and --num_devices {wanted} (nearest: {' and '.join(near)})."
        )
    return wanted


def uneven(divided: Mapping[str, int], num_seeds: int, num_devices: int) -> list[str]:
    """Flags whose sizes the devices do not divide."""
    return [name for name, size in divided.items() if size % sharers(num_seeds, num_devices)]


def chosen(num_devices: int) -> list[jax.Device]:
    """So many devices, equally many of each host, host by host."""
    each = num_devices // jax.process_count()
    return [device for host in range(jax.process_count()) for device in jax.local_devices(host)[:each]]
