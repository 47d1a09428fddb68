"""A policy as an ONNX file, by the package jax2onnx, compared with the policy before it is written."""

import contextlib
import functools
import io
import logging
from typing import Any

import jax
import numpy as np

from goalax.core.types import RunState
from goalax.flags import FlagError
from goalax.host.make import Run
from goalax.words import first_line

TOLERANCE = 1e-5  # largest difference of an action
ROWS = 64  # states and goals of the comparison
NAMES = ["state", "goal"], ["action"]
INSTALL = "Exporting to ONNX needs jax2onnx: pip install -e .[onnx], then pip install --no-deps jax2onnx."


def serialize(run: Run, state: RunState) -> bytes:
    """The file: inputs state [batch, S] and goal [batch, G], output action [batch, A], as of `export.exported`.

    Raises:
      FlagError: a package is missing, the policy has an operation that ONNX lacks, or what runs differs from it by more
        than TOLERANCE.
    """
    try:
        import onnxruntime

        with quiet():
            from jax2onnx import to_onnx
    except ImportError:
        raise FlagError(INSTALL) from None
    act = functools.partial(run.train.mode, state.agent)
    sizes = run.spec.state_size, run.spec.goal_size
    shapes: list[Any] = [("batch", size) for size in sizes]
    try:
        with quiet():
            model = to_onnx(lambda state, goal: act(state, goal), shapes, input_names=NAMES[0], output_names=NAMES[1])
    except Exception as error:  # whatever the converter comes up with
        raise FlagError(
            f"This policy cannot be written as ONNX ({first_line(error)}); StableHLO takes every one."
        ) from None
    content = model.SerializeToString()
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(ROWS, size)).astype(np.float32) for size in sizes]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, dict(zip(NAMES[0], given, strict=True)))
    difference = float(np.max(np.abs(found - np.asarray(jax.jit(act)(*given)))))
    if not difference <= TOLERANCE:
        raise FlagError(f"The ONNX file would differ from the policy by {difference:g}; StableHLO does not.")
    return bytes(content)


@contextlib.contextmanager
def quiet() -> Any:
    """Keeps to itself what jax2onnx says of packages for examples that are not there."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(previous)
