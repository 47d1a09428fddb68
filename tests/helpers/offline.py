"""What tests of datasets and offline agents share: files, golden values, made-up batches, runs that a signal ends."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import train as training
from goalax.core.types import Batch, Spec, Subgoals
from goalax.data import sources
from goalax.host.session import Session
from tests.helpers import ROOT

GOLDEN = ROOT / "tests" / "golden" / "offline"
SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
NO_GOALS = SPEC._replace(goal_size=0, goal_indices=(), goal_reach_thresh=0.0)
SMALL = {"h_dim": 8, "n_hidden": 1}
EPISODES, ROWS = 30, 11  # of `walks`
OF_REWARDS = ("bc", "iql", "rebrac", "cql")  # agents
PRETRAINING = ("hilp", "fb", "crl_infonce")  # agents that learn before there are rewards


def walks(seed=0, episodes=EPISODES, turn=0.0):
    """A file of straight walks through `toy`; turn: by how much their actions are turned, in radians."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, 2 * np.pi, episodes)
    step, action = (0.4 * np.stack([np.cos(angle), np.sin(angle)], 1) for angle in (angles, angles + turn))
    start = rng.uniform(-0.2, 0.2, (episodes, 1, 2))
    states = start + 0.3 * step[:, None] * np.arange(ROWS)[None, :, None]
    return {
        "observations": states.reshape(-1, 2),
        "actions": np.repeat(action, ROWS, axis=0),
        "terminals": np.arange(episodes * ROWS) % ROWS == ROWS - 1,
    }


def noisy_walks(episodes=60, rows=11):
    """The same with noise on every action, so that imitation is more than a direction."""
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, episodes)
    wanted = 0.4 * np.stack([np.cos(angles), np.sin(angles)], 1)[:, None]
    action = np.clip(wanted + 0.4 * rng.normal(size=(episodes, rows, 2)), -1, 1)
    way = np.cumsum(0.3 * action, axis=1) - 0.3 * action  # a row is the state before its action
    states = rng.uniform(-0.2, 0.2, (episodes, 1, 2)) + way
    written = {"observations": states.reshape(-1, 2), "actions": action.reshape(-1, 2)}
    return written | {"terminals": np.arange(episodes * rows) % rows == rows - 1}


def read(path, *args):
    return sources.read(str(path), *args)


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


@functools.cache
def formulas():
    """The module that makes the golden values."""
    spec = importlib.util.spec_from_file_location("make_offline_golden", GOLDEN / "make_offline_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def close(value, expected, rtol=1e-5):
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-6)


def batch_of(spec=SPEC, size=64):
    normal = lambda i, *shape: jax.random.normal(jax.random.PRNGKey(i), shape)  # noqa: E731
    return Batch(
        state=normal(0, size, 5),
        action=jnp.tanh(normal(1, size, 3)),
        next_state=normal(2, size, 5),
        goal=normal(3, size, spec.goal_size),
        future_state=normal(4, size, 5),
        future_action=jnp.tanh(normal(5, size, 3)),
        reward=normal(6, size),
        future_reward=jnp.arange(size) % 2.0,
        discount=0.9 * (jnp.arange(size) % 4 > 0),
        next_action=jnp.tanh(normal(7, size, 3)),
    )


def whole_batch(size=12):
    """With goals of the actor and of both levels, and some ends for good: at the goal, as the goal, and elsewhere."""
    normal = lambda i, *shape: jax.random.normal(jax.random.PRNGKey(i), shape)  # noqa: E731
    states = {name: normal(i, size, 5) for i, name in enumerate(("state", "next_state", "future_state", "actor_state"))}
    number = jnp.arange(size)
    flat = {"reward": jnp.zeros(size), "future_reward": (number % 3 == 0).astype(jnp.float32)}
    flat |= {"discount": 0.9 * (number % 4 > 0)}
    return Batch(
        **states,
        **flat,
        action=jnp.tanh(normal(5, size, 3)),
        goal=normal(6, size, 2),
        future_action=jnp.tanh(normal(7, size, 3)),
        same=(number % 5 == 0).astype(jnp.float32),
        subgoals=Subgoals(normal(8, size, 5), normal(9, size, 5)),
    )


def actor_mean(mlp, params, *inputs):
    """Of a linear actor: the network of `mlp` that lies inside of its module."""
    (inner,) = params["params"].values()
    return mlp.apply({"params": inner}, jnp.concatenate(inputs, axis=-1))


def config_of(name, **flags):
    return AGENTS[name].config(**{**SMALL, **flags})


def equal(state, other):
    leaves, others = jax.tree.leaves(state), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(map(np.array_equal, leaves, others))


def interrupted(flags, evaluations):
    """Trains until so many evaluations have been made, as a signal would end it."""
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        plain = Session._evaluate

        def evaluate(self, *args):
            seen.append(1)
            if len(seen) == evaluations:
                self.interrupt_for_test.signal = 15
            return plain(self, *args)

        run = Session.run

        def running(self, state, interrupt, on_steps):
            self.interrupt_for_test = interrupt
            return run(self, state, interrupt, on_steps)

        patch.setattr(Session, "_evaluate", evaluate)
        patch.setattr(Session, "run", running)
        assert training.main(flags) == 128 + 15
