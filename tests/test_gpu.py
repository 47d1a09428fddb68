"""Tests that need a GPU, else they are skipped: equal to the CPU, resume, and what TF32 changes."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.host.make import make
from goalax.learning import pairwise
from tests.helpers import toy
from tests.helpers.runs import LONGER, assert_equal_runs

HERE = jax.default_backend() == "gpu"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HERE, reason="needs a GPU, and JAX_PLATFORMS=cuda,cpu")]
toy.register()
SIZES = {"num_envs": 8, "num_eval_envs": 4, "unroll_length": 10, "min_replay_size": 20, "max_replay_size": 100}
SIZES |= {"batch_size": 64, "h_dim": 64, "utd_ratio": 0.1, "episode_length": 20, "num_timesteps": 10_000}


def phase(env_name: str, device: str) -> list[np.ndarray]:
    """The agent and the buffer after the prefill and one learning phase, leaf by leaf."""
    with jax.default_device(jax.local_devices(backend=device)[0]), jax.default_matmul_precision("highest"):
        run = make(env_name, **SIZES)
        state = run.train.init(run.keys(0))
        state = run.train.fit(run.train.advance(state, run.sizes.prefill_unrolls, 0))
        state = run.train.advance(state, 1, run.sizes.updates_per_unroll)
        return [np.asarray(leaf) for leaf in jax.tree.leaves((state.agent, state.buffer))]


@pytest.mark.parametrize("env_name", ["toy", "simple_u_maze"])
def test_a_phase_on_the_gpu_is_that_of_the_cpu(env_name):
    there, here = phase(env_name, "gpu"), phase(env_name, "cpu")
    assert len(there) == len(here) > 10
    for ours, expected in zip(there, here, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    """Up to the order of sums: XLA's scatter and reductions on a GPU may differ in the last bit from run to run."""
    folders = [tmp_path / name for name in ("whole", "resumed")]
    for folder in folders:
        folder.mkdir()
        monkeypatch.chdir(folder)
        if folder.name == "resumed":
            assert training.main([*toy.TINY]) == 0
            assert training.main([*toy.TINY, *LONGER]) == 0
        else:
            assert training.main([*toy.TINY, *LONGER[1:]]) == 0
    runs = [folder / "runs" / "toy_crl_s0" for folder in folders]
    assert_equal_runs(*runs, evaluations=slice(-1, None))


def test_the_same_program_twice_on_the_gpu(capsys):
    """Whether it is bit for bit the same is printed, not asked for; XLA_FLAGS=--xla_gpu_deterministic_ops=true is."""
    first, second = phase("toy", "gpu"), phase("toy", "gpu")
    equal = all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    with capsys.disabled():
        print(f"\ntwice the same phase on the GPU: {'bit for bit equal' if equal else 'not bit for bit equal'}")
    for ours, expected in zip(first, second, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_tf32_rounds_products_and_highest_does_not():
    a, b = (jax.random.normal(key, (512, 512)) for key in jax.random.split(jax.random.PRNGKey(0)))
    exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)

    def error(precision: str) -> float:
        with jax.default_matmul_precision(precision):
            return float(np.abs(np.asarray(jax.jit(jnp.matmul)(a, b)) - exact).max() / np.abs(exact).max())

    assert error("float32") < 1e-5
    assert 1e-5 < error("tensorfloat32") < 1e-2


def test_distances_keep_their_precision_with_tf32_on():
    x = jax.random.normal(jax.random.PRNGKey(0), (64, 16))
    with jax.default_matmul_precision("tensorfloat32"):
        squared = jax.jit(pairwise.pairwise_squared_distance)(x, x + 0.01)
    expected = ((np.asarray(x, np.float64)[:, None] - np.asarray(x + 0.01, np.float64)[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared, expected, atol=2e-4)  # of |x|^2 + |y|^2, about 32; TF32 would lose 1e-2


def test_the_gpu_is_where_it_computes(tmp_path):
    code = f"{toy.START} import jax; assert jax.default_backend() == 'gpu'; sys.exit(train.main({toy.TINY!r}))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert '"device"' in next(tmp_path.glob("runs/*/config.json")).read_text()
