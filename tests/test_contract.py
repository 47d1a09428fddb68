"""An agent of one's own that returns something else than it should is told so by the name of its function."""

import contextlib
import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from goalax.agents import AGENTS
from goalax.agents.base import Algorithm
from goalax.agents.crl import CRLConfig
from goalax.core import contract
from goalax.core.relabel import RELABEL, law_of
from goalax.core.train import make_train
from goalax.envs.reacher import Reacher
from goalax.flags import FlagError, flag
from goalax.host.make import make
from tests.helpers import toy

toy.register()


@pytest.fixture(scope="module")
def run():
    return make("toy", agent="gcbc", num_envs=4, num_eval_envs=4, unroll_length=5, min_replay_size=10, batch_size=8)


@pytest.fixture(scope="module")
def agent(run):
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


# ---- declarations ----


def not_decorated():
    class Config(CRLConfig):
        sharpness: float = flag(1.0, "of something")

    return Config


def bare():
    @dataclasses.dataclass(frozen=True)
    class Config(CRLConfig):
        sharpness: float = 1.0

    return Config


def postponed():
    @dataclasses.dataclass(frozen=True)
    class Config(CRLConfig):
        sharpness: "float" = flag(1.0, "of something")  # noqa: RUF009

    return Config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (not_decorated, "Config has sharpness and is no dataclass itself: decorate it."),
        (bare, "Config.sharpness has a bare default; it must be a `flag"),
        (postponed, "The type of Config.sharpness is text: leave `from __future__ import annotations` out."),
        (lambda: make, "The flags of an agent are <function make"),
        (lambda: dataclasses.make_dataclass("Thawed", []), "The flags of an agent are <class 'types.Thawed'>"),
    ],
)
def test_flags_are_declared_right(config, words):
    with pytest.raises(TypeError, match=f"^{re.escape(words)}"):
        Algorithm(config(), make)


def test_an_agent_is_an_algorithm_and_made_by_one(monkeypatch):
    with pytest.raises(TypeError, match=r"^The agent mine is <function make .*; it must be an Algorithm.$"):
        AGENTS.add("mine", make)
    monkeypatch.setitem(AGENTS._entries, "gcbc", Algorithm(AGENTS["gcbc"].config, lambda config, spec: None))
    with pytest.raises(FlagError, match=r"^`make` of --agent gcbc returns nothing; it must return an Agent.$"):
        make("toy", agent="gcbc", num_envs=4, num_timesteps=10_000)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        (lambda discounting: None, "The law of goals mine returns None; it must return a function"),
        (lambda discounting: lambda uniform, left: 1.0 * left, "The law of goals mine gives .*float32.*; it must"),
        (lambda discounting: lambda uniform, left: 3, "The law of goals mine gives .*; it must give int32"),
    ],
)
def test_a_law_of_goals_gives_steps(law, words, monkeypatch):
    monkeypatch.setitem(RELABEL._entries, "mine", law)
    monkeypatch.setitem(RELABEL._names, "mine", "mine")
    with pytest.raises(FlagError, match=f"^{words}"):
        law_of("mine", 0.9)


def test_unrolls_are_a_whole_number(run):
    for unrolls in (-1, 1.5):
        with pytest.raises(FlagError, match=f"^`unrolls` is {unrolls}; it must be a whole number"):
            run.advance(None, unrolls)


# ---- environments ----


class Point(Reacher):
    """An environment, with what tests change."""


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"goal_indices": (0, 17)}, "The goal_indices of Point have 17, and its state_dim is 10."),
        ({"state_dim": None}, "Point has no `state_dim`"),
        ({"backends": ("mjxx",)}, "The backends of Point are ('mjxx',); they must be a tuple of some of"),
        ({"backends": "mjx"}, "The backends of Point are 'mjx'; they must be a tuple"),
        ({"sample_goal": lambda self, key: None}, "`sample_goal` of Point returns nothing; it must return [3]."),
        ({"sample_goal": lambda self, key: jnp.zeros(2)}, "`sample_goal` of Point returns [2]; it must return [3]."),
        ({"state_of": lambda self, now: jnp.zeros(4)}, "`state_of` of Point returns [4]; it must return [10]."),
        ({"measures": lambda self, *_: {"dist": 0.0}}, "`measures` of Point must return a dict with success and dist"),
        (
            {"measures": lambda self, *_: {"dist": jnp.zeros(()), "success": jnp.zeros(2)}},
            "`measures` of Point has 'success' of shape [2]; it must be one number [].",
        ),
    ],
)
def test_what_is_wrong_with_an_environment_is_named(attributes, words, monkeypatch):
    for name, value in attributes.items():
        monkeypatch.setattr(Point, name, value)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        jax.eval_shape(Point().reset, jax.random.key(0))
