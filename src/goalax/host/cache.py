"""The cache of compiled programs on disk."""

import os
import sys
import tempfile
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next start of the same sizes takes seconds.

    Where no file can be written to (a container's user without a home, say) they are not kept, which is told.
    """
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        cache = Path(given or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "goalax" / "xla")
        if "://" not in str(given):  # a bucket is JAX's to look at
            cache.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        why = f"{error.filename or cache}: {error.strerror}" if isinstance(error, OSError) else "no home directory"
        jax.config.update("jax_enable_compilation_cache", False)
        print(f"Compiled programs are not kept ({why}); JAX_COMPILATION_CACHE_DIR names a folder.", file=sys.stderr)
        return
    if not given:
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
