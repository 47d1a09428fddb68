"""What tests of InFOM and of DINO with ReBRAC share: small agents and their first updates."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from goalax.agents import AGENTS
from goalax.core.types import Agent, Batch
from tests.helpers.offline import SPEC, batch_of, config_of

NAMES = ("infom", "dino_rebrac")
KEY = jax.random.PRNGKey(5)
TAU = 0.005
OWN = {
    "infom": {"flow_steps": 3, "flow_samples": 2, "kl_weight": 0.3, "bc_weight": 2.0},
    "dino_rebrac": {"actor_bc": 0.3, "critic_bc": 0.2},
}


def config(name, **flags):
    return config_of(name, **{"repr_dim": 4, "actor_interval": 3, **OWN[name], **flags})


class Learner(NamedTuple):
    config: Any
    agent: Agent
    update: Callable  # compiled
    batch: Batch
    before: Any  # its state
    after: Any  # after an update
    tuned: Any  # where fine-tuning begins then


@functools.cache
def learner_of(name):
    agent, some = AGENTS[name].make(config(name), SPEC), batch_of()
    update, before = jax.jit(agent.update), jax.jit(agent.init)(jax.random.PRNGKey(0))
    after, _ = update(before, some, KEY)
    return Learner(config(name), agent, update, some, before, after, agent.switch(after, some, KEY))
