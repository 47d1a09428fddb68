"""The programs of an agent as text: what a flag changes shows in them, and lowering takes a tenth of compiling."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.core.relabel.geometric import geometric
from goalax.core.types import Agent, Batch


def programs(agent: Agent, batch: Batch, discounting: float = 0.9) -> list:
    """Everything that an agent computes from a batch, without what nobody reads, and what it asks of the buffer.

    Two lists are equal where, and only where, the agents do the same with every batch: constants are in the text.
    """
    key, states = jax.random.PRNGKey(0), jnp.ones((2, batch.state.shape[-1]))
    goals = jnp.ones((2, batch.goal.shape[-1]))

    def decide(state, key):
        if agent.memory is None:
            return agent.act(state, states, goals, key)
        return agent.memory.act(state, agent.memory.start(state, 2), states, goals, key)

    def learn(key, batch):
        state, metrics = agent.update(agent.init(key), batch, key)
        return state, metrics, decide(state, key)

    texts = [jax.jit(learn).lower(key, batch).as_text()]
    if agent.switch is not None:  # updates before and after it are one program
        texts.append(jax.jit(agent.switch).lower(jax.eval_shape(agent.init, key), batch, key).as_text())
    uniform, left = jnp.linspace(0, 1, 50, endpoint=False), jnp.full(50, 100)
    needs = agent.needs
    laws = (needs.law or geometric(discounting))(uniform, left), needs.actor_law and needs.actor_law(uniform, left)
    laws = [None if law is None else np.asarray(law).tolist() for law in laws]
    return [*texts, laws, needs._replace(law=None, actor_law=None)]
