"""What all tests share: strict JAX settings on two CPU devices, a compilation cache, and compiled environments.

The environment variables must be set before the first `import jax`; pytest imports this file before any test module.
Programs that a test starts inherit them.
"""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

flags = ["--xla_force_host_platform_device_count=2"]
if version("jaxlib").startswith("0.10."):  # XLA refuses flags that it does not know
    flags.append("--xla_cpu_use_fusion_emitters=false")  # compiles the environments in 55% of the time; as fast to run
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in flags if flag.split("=")[0] not in given)]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / "goalax" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # tests compile many small functions

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")  # [B] + [B, 1] is a bug until somebody wrote the reshape

NUM_ENVS = 8
STEPS = 50


class EnvFunctions(NamedTuple):
    """An environment and its compiled functions, of fixed sizes so that all tests share one compilation of each."""

    env: Any
    reset: Callable  # keys [NUM_ENVS] -> states
    run: Callable  # (states, actions [STEPS, NUM_ENVS, A]) -> (states after, trace [STEPS, NUM_ENVS] without physics)


@pytest.fixture(scope="session")
def env_functions() -> Callable[..., EnvFunctions]:
    """(name, backend=None) -> EnvFunctions, made once per session."""
    from envs import create_env

    def make(env) -> EnvFunctions:
        def run(states, actions):
            def body(states, action):
                states = jax.vmap(env.step)(states, action)
                return states, states.replace(pipeline_state=None)

            return jax.lax.scan(body, states, actions)

        return EnvFunctions(env, jax.jit(jax.vmap(env.reset)), jax.jit(run))

    made = {}

    def functions(name: str, backend: str | None = None) -> EnvFunctions:
        if (name, backend) not in made:
            env = create_env(name, backend)
            made[name, backend] = made.setdefault((name, env.backend), make(env))
        return made[name, backend]

    return functions


@pytest.fixture(scope="session")
def env_of(env_functions) -> Callable[[str], Any]:
    """name -> environment, the one of env_functions."""
    return lambda name: env_functions(name).env


@pytest.fixture(scope="session")
def opengl() -> None:
    """Skips where nothing can be drawn."""
    from src import render, scene

    try:
        render.choose_opengl()
    except scene.RenderError as error:
        pytest.skip(str(error))
