"""A policy as one file that runs without Goalax: StableHLO or ONNX, and beside it JSON that describes it."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from goalax import __version__
from goalax.core.types import RunState
from goalax.flags import FlagError
from goalax.host.make import Run
from goalax.interop import onnx
from goalax.whole import aside

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")  # that the file runs on


def exported(run: Run, state: RunState) -> export.Exported:
    """The policy's mode (states [N, S], goals [N, G]) -> actions [N, A], of any N, parameters and normalisation inside.

    States and goals are float32 in the units of the environment, actions float32 in [-1, 1].
    """
    act = jax.jit(functools.partial(run.train.mode, state.agent))
    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, size), jnp.float32) for size in (run.spec.state_size, run.spec.goal_size)]
    return export.export(act, platforms=PLATFORMS)(*shapes)


def serialize(function: export.Exported) -> bytes:
    """The file; FlagError without the package that writes it, which JAX does not bring along."""
    try:
        return bytes(function.serialize())
    except ImportError:
        raise FlagError("Exporting needs the package flatbuffers: pip install flatbuffers.") from None


def is_onnx(path: Path) -> bool:
    """Whether the name of a file asks for ONNX."""
    return path.suffix == ".onnx"


def description(run: Run, state: RunState, path: Path, content: bytes) -> dict[str, Any]:
    """What somebody must know to call the file of this content."""
    spec, config, env = run.spec, run.config, run.env
    form = {"format": "onnx"} if is_onnx(path) else {"format": "jax.export", "platforms": list(PLATFORMS)}
    return {
        **form,
        "sha256": hashlib.sha256(content).hexdigest(),
        "env_name": config.env_name,
        "backend": env.backend,
        "agent": config.agent,
        "env_steps": int(state.env_steps),
        "gradient_steps": int(state.gradient_steps),
        "inputs": {
            "state": {"shape": ["batch", spec.state_size], "dtype": "float32"},
            "goal": {"shape": ["batch", spec.goal_size], "dtype": "float32"},
        },
        "outputs": {"action": {"shape": ["batch", spec.action_size], "dtype": "float32", "range": [-1, 1]}},
        "goal_indices": list(spec.goal_indices),  # the entries of the state that make up the goal it achieves
        # At the goal when nearer than this; null where there are no goals, or the environment itself judges.
        "goal_reach_thresh": spec.goal_reach_thresh if spec.goal_reach_thresh > 0 else None,
        "seconds_per_action": float(env.dt) * spec.action_repeat,
        "versions": {"goalax": __version__, "jax": jax.__version__},
    }


def write(run: Run, state: RunState, path: Path) -> tuple[Path, Path]:
    """Writes the policy, and its description under the same name with `.json` behind it; returns both paths.

    Both or none; where something kills it between the two, the description's SHA-256 is not that of the policy.

    Raises:
      FlagError: a package is missing, or ONNX cannot say what the policy does.
      OSError: they cannot be written.
    """
    content = onnx.serialize(run, state) if is_onnx(path) else serialize(exported(run, state))
    about = path.with_name(f"{path.name}.json")
    with aside(path) as policy, aside(about) as words:
        policy.write_bytes(content)
        words.write_text(json.dumps(description(run, state, path, content), indent=2) + "\n")
    return path, about
