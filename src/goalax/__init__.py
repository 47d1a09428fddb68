"""Goalax: goal-conditioned reinforcement learning in JAX. `make` trains from Python, `load` gives a trained policy.

run = goalax.make("reacher", agent="crl", num_envs=64)
state = run.advance(run.start(seed=0), 10)
print(run.evaluate(state)["eval/time_at_goal"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from goalax.agents import AGENTS as AGENTS
    from goalax.core.types import Agent as Agent
    from goalax.envs import ENVS as ENVS
    from goalax.envs import create_env as create_env
    from goalax.flags import FlagError as FlagError
    from goalax.host.cache import enable_compilation_cache as enable_compilation_cache
    from goalax.host.checkpoint import NoCheckpointError as NoCheckpointError
    from goalax.host.loading import load_policy as load
    from goalax.host.make import Run as Run
    from goalax.host.make import make as make
    from goalax.host.policy import Policy as Policy
    from goalax.learning.energies import ENERGIES as ENERGIES
    from goalax.learning.losses import CONTRASTIVE_LOSSES as CONTRASTIVE_LOSSES
    from goalax.learning.quasimetrics import QUASIMETRICS as QUASIMETRICS

# Where each public name lives. They are looked up at their first use: `import goalax` alone does not import JAX.
_HOMES = {
    "AGENTS": ("goalax.agents", "AGENTS"),
    "Agent": ("goalax.core.types", "Agent"),
    "CONTRASTIVE_LOSSES": ("goalax.learning.losses", "CONTRASTIVE_LOSSES"),
    "ENERGIES": ("goalax.learning.energies", "ENERGIES"),
    "ENVS": ("goalax.envs", "ENVS"),
    "FlagError": ("goalax.flags", "FlagError"),
    "NoCheckpointError": ("goalax.host.checkpoint", "NoCheckpointError"),
    "Policy": ("goalax.host.policy", "Policy"),
    "QUASIMETRICS": ("goalax.learning.quasimetrics", "QUASIMETRICS"),
    "Run": ("goalax.host.make", "Run"),
    "create_env": ("goalax.envs", "create_env"),
    "enable_compilation_cache": ("goalax.host.cache", "enable_compilation_cache"),
    "load": ("goalax.host.loading", "load_policy"),
    "make": ("goalax.host.make", "make"),
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'goalax' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
