"""An agent of one's own that returns something else than it should is told so by the name of its function."""

import contextlib

import jax
import jax.numpy as jnp
import pytest

from goalax.core import contract
from goalax.core.train import make_train
from goalax.flags import FlagError
from goalax.host.make import make
from tests.helpers import toy

toy.register()


@pytest.fixture(scope="module")
def run():
    return make("toy", agent="gcbc", num_envs=4, num_eval_envs=4, unroll_length=5, min_replay_size=10, batch_size=8)


@pytest.fixture(scope="module")
def agent(run):
    from goalax.agents import AGENTS

    return AGENTS["gcbc"].make(run.agent_config, run.spec)


def grown(state):
    """A state whose first array has one entry more."""
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, [jnp.zeros(leaves[0].size + 1), *leaves[1:]])


WRONG = {
    "another shape": (
        "update",
        lambda agent: lambda *args: (grown(args[0]), {}),
        r"`update` takes a state whose entry .* and",
    ),
    "half of it": (
        "update",
        lambda agent: lambda state, *_: (jax.tree.leaves(state)[0], {}),
        r"is missing and|is missing; both",
    ),
    "no metrics": ("update", lambda agent: lambda state, *_: state, r"`update` must return \(state, metrics\)"),
    "nothing": ("update", lambda agent: lambda *_: None, r"`update` must return \(state, metrics\)"),
    "a list": ("update", lambda agent: lambda state, *_: (state, [1.0]), r"`update` must return \(state, metrics\)"),
    "long actions": (
        "act",
        lambda agent: lambda *args: jnp.concatenate([agent.act(*args)] * 2, axis=-1),
        r"`act` returns float32\[2, 4\]; actions of 2 states are float32\[2, 2\]",
    ),
    "one action": ("mode", lambda agent: lambda *args: agent.mode(*args)[0], r"`mode` returns float32\[2\]; actions"),
    "whole numbers": (
        "mode",
        lambda agent: lambda *args: agent.mode(*args).astype(jnp.int32),
        r"`mode` returns int32\[2, 2\]",
    ),
    "no action": ("act", lambda agent: lambda *_: None, r"`act` returns nothing"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(wrong, run, agent):
    name, function, words = WRONG[wrong]
    bad = agent._replace(**{name: function(agent)})
    train = make_train(run.env, run.eval_env, bad, run.spec, run.sizes, True, 1)
    with pytest.raises(FlagError, match=words) as error:
        jax.eval_shape(train.init, jax.random.PRNGKey(0))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("name", contract.RESERVED)
def test_metrics_do_not_take_the_names_of_the_loop(name):
    with pytest.raises(FlagError, match=f"^The agent has a metric '{name}', which is one of the loop's own: "):
        contract.require_scalars({"loss": jnp.zeros(()), name: jnp.zeros(())})


def test_a_right_one_is_left_alone(run, agent):
    train = make_train(run.env, run.eval_env, agent, run.spec, run.sizes, True, 1)
    jax.eval_shape(train.init, jax.random.PRNGKey(0))


@pytest.mark.parametrize(
    ("horizon", "stored", "words"),
    [
        (11, None, "no episode has more than 10: lower --action_chunk"),
        (10, 10, "at least 11 rows of an environment, and 10 are stored where it begins: raise --min_replay_size"),
        (1, 2, "at least 3 rows of an environment, and 2 are stored"),
        (1, 3, None),
        (10, 11, None),
        (10, None, None),  # it never collects
    ],
)
def test_windows_fit_into_episodes_and_into_what_is_stored(horizon, stored, words):
    with pytest.raises(FlagError, match=words) if words else contextlib.nullcontext():
        contract.require_horizon(horizon, 10, stored)
