"""What the agents of 2026 ask of the loop, all at once: chunks, first visits, a mix of goals, commanded goals."""

import jax
import numpy as np
import pytest

from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy

toy.register()
FLAGS = [*toy.TINY, "--agent", "chronosrl", "--commanded_goals", "achieved", "--normalize_observations", "true"]
FLAGS += ["--window", "6", "--time_bins", "3", "--occupancy_bins", "3", "--utd_ratio", "0.2"]


def trained(run, seed):
    """The state after three unrolls with updates: 25 rows, three into the third episode."""
    return run.advance(run.start(seed), 3)


@pytest.fixture(scope="module")
def run():
    return make_run(*read_flags(FLAGS))


@pytest.fixture(scope="module")
def states(run):
    """Of seeds 0 and 1, each by itself."""
    return [jax.device_get(trained(run, seed)) for seed in (0, 1)]


def test_a_chunk_that_has_begun_goes_on_after_a_restart(run, tmp_path):
    state = trained(run, 0)
    taken = np.asarray(state.env.memory.taken)
    assert (taken == 1).any()  # in the midst of a chunk of two
    run.save(state, tmp_path / "saved")
    after, restored = run.advance(state, 2), run.advance(run.restore(tmp_path / "saved"), 2)
    jax.tree.map(np.testing.assert_array_equal, after, restored)
    assert all(np.isfinite(value) for value in run.evaluate(after).values())


@pytest.mark.parametrize("flags", [["--num_devices", "2"], ["--num_seeds", "2"]])
def test_devices_and_seeds_change_nothing(flags, run, states):
    other = make_run(*read_flags([*FLAGS, *flags]))
    state = jax.device_get(trained(other, 0))
    expected = states[0] if "--num_devices" in flags else jax.tree.map(lambda *seeds: np.stack(seeds), *states)
    for part in ("buffer", "env", "agent"):
        found, wanted = (jax.tree.leaves(getattr(each, part)) for each in (state, expected))
        for leaf, other_leaf in zip(found, wanted, strict=True):
            np.testing.assert_allclose(leaf, other_leaf, rtol=1e-3, atol=1e-4, err_msg=part)
