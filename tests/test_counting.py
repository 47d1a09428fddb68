"""Tests of counts and sums that must hold for years of training: counters, compensated sums, numbers of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.core import buffer, counting
from goalax.core.counting import Counter
from goalax.core.relabel.geometric import geometric
from goalax.core.types import Needs
from goalax.host import checkpoint, runs
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.rings import filled_ring
from tests.helpers.runs import RUN, rows

toy.register()
FAR = 10**13


def counter_at(number: int) -> Counter:
    return Counter(jnp.int32(number >> counting.LIMB_BITS), jnp.int32(number % 2**counting.LIMB_BITS))


@pytest.mark.parametrize("start", [0, 2**30 - 2, 2**31 - 2, FAR, 2**60])
@pytest.mark.parametrize("steps", [1, 31_744, 2**30 - 1])
def test_counters_count_on_across_their_limbs(start, steps):
    after = jax.jit(lambda counter: counting.plus(counting.plus(counter, steps), steps))(counter_at(start))
    assert int(after) == start + 2 * steps
    assert after.low.dtype == after.high.dtype == jnp.int32 and 0 <= int(after.low) < 2**30


def test_a_counter_of_several_seeds_is_that_of_the_first():
    assert int(jax.tree.map(lambda limb: jnp.stack([limb, limb]), counter_at(FAR))) == FAR


@pytest.mark.parametrize("value", [0.3, -1e-3, 7.0])
def test_means_over_many_updates_are_exact(value):
    """10^8 terms, the last 10^5 of them one by one: of plain float32 sums the mean would be off by 9% and more."""
    many, more = 10**8 - 10**5, 10**5
    parts = np.full(many, value, np.float32).astype(np.float64).sum()
    total = np.float32(parts)
    sums = counting.Sum(jnp.float32(total), jnp.float32(float(total) - parts))
    number = counting.Sum(jnp.float32(many), jnp.float32(0))

    def add(_, carry):
        total, number = carry
        return counting.added(total, jnp.float32(value)), counting.added(number, jnp.float32(1))

    sums, number = jax.jit(lambda carry: jax.lax.fori_loop(0, more, add, carry))((sums, number))
    assert float(number.value) == 10**8
    np.testing.assert_allclose(float(sums.value) / float(number.value), np.float32(value), rtol=1e-6)


def test_a_sum_from_nothing_equals_one_in_float64():
    terms = np.random.default_rng(0).lognormal(0, 3, 300_000).astype(np.float32)
    result = jax.jit(lambda terms: jax.lax.scan(lambda s, x: (counting.added(s, x), None), counting.empty(), terms)[0])
    np.testing.assert_allclose(float(result(terms).value), terms.astype(np.float64).sum(), rtol=2e-7)


def test_a_ring_with_smaller_numbers_of_rows_gives_the_same_samples():
    large, small = filled_ring(12 * 45_000_000), filled_ring(0)
    shift = buffer.excess_rows(large)
    assert int(shift) > 0 and int(shift) % 12 == 0 and int(buffer.excess_rows(small)) == 0
    based = buffer.rebase(large, shift)
    assert 12 <= int(based.count) < 36
    needs = Needs(goals=(0.5, 0.2, 0.3), law=geometric(0.9), horizon=2, within=3)
    for key in jax.random.split(jax.random.PRNGKey(3), 3):
        samples = [buffer.choose(ring, key, 50, needs, 0.9, 5) for ring in (large, based, small)]
        for other in samples[1:]:
            jax.tree.map(np.testing.assert_array_equal, samples[0], other)


@pytest.mark.slow
def test_training_goes_on_bit_for_bit_across_a_rebase(tmp_path, monkeypatch):
    """Rows are renumbered every few unrolls here, and never there."""
    for name, limit in (("never", 2**30), ("often", 90)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setattr(buffer, "MANY_ROWS", limit)
        assert training.main([*toy.TINY, "--num_timesteps", "1200", "--num_evals", "30"]) == 0
    assert rows(tmp_path / "often" / RUN) == rows(tmp_path / "never" / RUN)


@pytest.mark.slow
def test_a_run_counts_on_past_ten_thousand_billion_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags, agent_flags = read_flags(toy.TINY)
    run = make_run(flags, agent_flags)
    state = run.start()
    done = FAR - FAR % run.sizes.steps_per_unroll
    run.save(state._replace(env_steps=counter_at(done), gradient_steps=counter_at(FAR)), RUN)
    assert training.main([*toy.TINY, "--resume", "--num_timesteps", str(done + 60), "--num_evals", "1"]) == 0
    (row,) = runs.read_metrics(RUN / "metrics.csv")
    assert row["training/envsteps"] == done + 60
    assert row["training/gradient_steps"] == FAR + 3 * run.sizes.updates_per_unroll
    assert checkpoint.steps(RUN / "checkpoints") == [done + 60, done]
    assert f"{done + 60:,}" in capsys.readouterr().out
