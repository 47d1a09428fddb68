"""Gives memory back to the system that the C library keeps after a compilation."""

import ctypes
import sys


def trim() -> None:
    """Returns what was freed to the system: what compiles leaves hundreds of MiB in glibc's arenas.

    Only glibc has such a call; elsewhere nothing happens.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
