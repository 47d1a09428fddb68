"""What lies at the edge: numbers that no run could stand, streams of random numbers, bodies that explode."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import train as training
from goalax.core import counting, rollout, updates
from goalax.core.train import Loop
from goalax.core.types import RunState
from goalax.host.config import read_flags
from goalax.host.make import make_run
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


def test_evaluation_has_random_numbers_of_its_own(monkeypatch):
    """Its key is none of those that a train step and validation take of the same state's, which differ, too."""
    run = make_run(*read_flags(toy.TINY))
    agent = AGENTS["crl"].make(run.agent_config, run.spec)
    loop = Loop(run.env, run.eval_env, agent, run.spec, run.sizes, normalize=False)
    key, taken, given = jax.random.PRNGKey(3), [], []
    sums = {"updates": counting.empty()}
    state = RunState(agent=None, env=None, buffer=None, key=key, env_steps=None, gradient_steps=None, metric_sums=sums)
    split = jax.random.split

    def note(key, returned=None, keys=taken):
        keys.append(np.asarray(key).tolist())
        return returned

    monkeypatch.setattr(jax.random, "split", lambda key, *number: note(key, split(key, *number)))
    monkeypatch.setattr(Loop, "_unroll", lambda loop, state, key: note(key, state))
    monkeypatch.setattr(updates, "choices", lambda ring, key, *sizes: note(key, jnp.arange(updates.HELD_OUT)))
    monkeypatch.setattr(updates, "learn", lambda update, state, ring, drawn, key, number: note(key, state))
    monkeypatch.setattr(rollout, "evaluate", lambda env, policy, key, **sizes: note(key, ({}, None, None), given))
    note(loop._train_step(state, 1).key)  # those of later train steps come from there
    of_training = len(taken)
    data = SimpleNamespace(rows=SimpleNamespace(reward=jnp.zeros(9)))
    offline = updates.offline(lambda agent, *sample: (agent, {}), agent, run.spec, run.sizes, False, None, 1)
    with jax.disable_jit():  # or there would be no keys to see
        offline.validate(state, data)
    of_state = key.tolist()
    assert [taken[0], taken[of_training]] == [of_state] * 2 and (of_training, len(taken)) == (5, 9)
    others = [each for each in taken if each != of_state]
    assert len({tuple(each) for each in others}) == len(others)
    loop.evaluate(state)
    assert len(given) == 1 and given[0] not in [of_state, *others]


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
