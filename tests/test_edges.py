"""What lies at the edge: numbers that no run could stand, streams of random numbers, bodies that explode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.learning.losses import CONTRASTIVE_LOSSES
from tests.helpers import toy
from tests.helpers.envs import frozen

toy.register()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("utd_ratio", "1e308"),
        ("batch_size", "1e300"),
        ("n_hidden", "1e9"),
        ("h_dim", "1e12"),
        ("repr_dim", "1e18"),
        ("num_evals", "1e12"),
        ("num_envs", "1e15"),
        ("num_eval_envs", "1e15"),
        ("num_seeds", "1e9"),
        ("num_timesteps", "1e16"),
        ("episode_length", "1e17"),
        ("action_repeat", "1e100"),
        ("unroll_length", "1e12"),
        ("min_replay_size", "1e10"),
        ("max_replay_size", "1e10"),
        ("multiplier_num_sgd_steps", "1e200"),
        ("vis_length", "1e18"),
        ("checkpoint_interval", "1e18"),
        ("visualization_interval", "1e18"),
        ("skip_connections", "1e18"),
        ("action_chunk", "1e6"),
        ("num_devices", "1e18"),
    ],
)
def test_numbers_that_no_run_could_stand(flag, value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = list(toy.TINY)
    if flag == "multiplier_num_sgd_steps":  # beside which it would mean nothing
        del sizes[(place := sizes.index("--utd_ratio")) : place + 2]
    assert training.main([*sizes, f"--{flag}", value]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"training.py: --{flag} is ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags", [("--num_envs", "1e7", "--unroll_length", "1000"), ("--num_envs", "1e6", "--utd_ratio", "1000")]
)
def test_unrolls_that_no_counter_could_hold(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*toy.TINY, "--num_timesteps", "1e15", *flags]) == 2
    error = capsys.readouterr().err
    assert "between two looks of the host; lower --num_envs" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_evaluation_has_random_numbers_of_its_own():
    key = jax.random.PRNGKey(3)
    of_train_step, of_evaluation = jax.random.split(key, 4), jax.random.split(key, 5)[4]
    assert not (of_train_step == of_evaluation[None]).all(axis=1).any()
    # This is why it is not `fold_in(key, 1)`:
    assert (jax.random.fold_in(key, 1) == of_train_step[1]).all()


@pytest.mark.parametrize("name", ["simple_u_maze", "ant"])
def test_a_body_that_explodes_ends_its_episode_and_nothing_else(env_functions, name):
    env, state = frozen(env_functions, name)
    broken = jax.tree.map(
        lambda leaf: jnp.full_like(leaf, jnp.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        state.pipeline_state,
    )
    env.pipeline_step = lambda pipeline_state, action: broken
    after = env.step(state, jnp.zeros(env.action_size))
    assert after.done == 1 and after.metrics["broken"] == 1
    np.testing.assert_array_equal(after.obs, state.obs)
    assert all(np.isfinite(value) for value in after.metrics.values()) and np.isfinite(after.reward)
    env.pipeline_step = lambda pipeline_state, action: pipeline_state
    assert env.step(state, jnp.zeros(env.action_size)).metrics["broken"] == 0


@pytest.mark.parametrize("name", ["infonce", "infonce_backward", "symmetric_infonce"])
def test_the_positive_is_left_out_however_large(name):
    """With a positive of 1,000 the negatives decide alone: log(5 exp(0)) - 1000."""
    logits = jnp.eye(6) * 1000.0
    loss = CONTRASTIVE_LOSSES[name](logits, resubs=False)
    sides = 2 if name.startswith("symmetric") else 1
    np.testing.assert_allclose(loss, sides * (np.log(5) - 1000), rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: CONTRASTIVE_LOSSES[name](x, resubs=False))(logits)).all()
