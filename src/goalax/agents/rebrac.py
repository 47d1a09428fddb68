"""ReBRAC (arXiv 2305.09836): TD3+BC whose penalty for actions far from the stored ones is in the critic, too."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.actor_critic import noisy_policy
from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.bc import squared_error
from goalax.agents.extraction import SMALLEST_SIZE, require_equal_shapes
from goalax.agents.q_learning import TwinCritic
from goalax.agents.rewards import RewardConfig
from goalax.core.types import Agent, Array, Needs, Spec
from goalax.flags import flag
from goalax.learning.networks import deterministic_actor


@dataclasses.dataclass(frozen=True)
class ReBRACConfig(RewardConfig):
    """Networks, rates, delay and noise of the paper, appendix B, with batches of 1,024; the weights are tuned
    for every task there: the actor's 0.001 to 1, the critic's 0 to 1 (AntMaze: gamma 0.999, rewards times 100)."""

    policy_lr: float = flag(1e-3, "learning rate of the actor", above=0)
    critic_lr: float = flag(1e-3, "learning rate of the critics", above=0)
    actor_bc: float = flag(0.1, "weight of squared distances to stored actions in the actor's loss", low=0)
    critic_bc: float = flag(0.1, "weight of squared distances to the next stored actions in the back-ups", low=0)
    policy_delay: int = flag(2, "updates of the critics per update of the actor and of the target networks", low=1)
    target_noise: float = flag(0.2, "standard deviation of the noise on actions of the target policy", low=0)
    noise_clip: float = flag(0.5, "largest noise on actions of the target policy", low=0)
    exploration_noise: float = flag(0.1, "standard deviation of the noise on actions taken", low=0)


class ReBRACState(NamedTuple):
    params: dict  # actor, critic
    target: dict  # slow parameters of both
    optimizer: dict  # of each
    updates: Array  # [] int32
    actor_loss: Array  # [] at the newest update of the actor


def smoothed(action: Array, noise: Array, deviation: float, limit: float) -> Array:
    """Actions [B, A] with clipped noise, from standard normal numbers [B, A] (TD3, arXiv 1802.09477, equation 14)."""
    return jnp.clip(action + jnp.clip(deviation * noise, -limit, limit), -1, 1)


def penalised(value: Array, action: Array, stored: Array, weight: float) -> Array:
    """Values [B] less the weighted squared distance of actions [B, A] to stored ones [B, A] (the paper, equation 4)."""
    distance = squared_error(action, stored)
    require_equal_shapes(value, distance)
    return value - weight * distance


def improvement_loss(value: Array, action: Array, stored: Array, weight: float) -> Array:
    """- mean value [B] over its mean size, which has no gradient, + weight * mean squared distance to stored actions,
    [] (the paper, equation 3; normalised as in TD3+BC, arXiv 2106.06860, equation 5)."""
    size = jax.lax.stop_gradient(jnp.mean(jnp.abs(value)) + SMALLEST_SIZE)
    return weight * jnp.mean(squared_error(action, stored)) - jnp.mean(value) / size


def make(config: ReBRACConfig, spec: Spec) -> Agent:
    actor, critic = deterministic_actor(config.actor_mlp, spec.action_size), TwinCritic(config, spec)
    adam = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(critic_key),
        }
        optimizer = {name: adam[name].init(params[name]) for name in adam}
        return ReBRACState(params, params, optimizer, jnp.zeros((), jnp.int32), jnp.zeros(()))

    def action_of(params, state, goal):
        return jnp.tanh(actor.apply(params, state, goal))

    def next_value(target, batch, key):
        """Of next_state, [B]; the action stored there is that of the next row, which the last transition has too."""
        wanted = action_of(target["actor"], batch.next_state, batch.goal)
        noise = jax.random.normal(key, wanted.shape)
        action = smoothed(wanted, noise, config.target_noise, config.noise_clip)
        value = critic.lower(target["critic"], batch.next_state, batch.goal, action)
        return penalised(value, action, batch.next_action, config.critic_bc)

    def descend(agent, name, gradients):
        """The agent after one step of Adam of the network `name`."""
        steps, optimizer_state = adam[name].update(gradients, agent.optimizer[name])
        params = {**agent.params, name: optax.apply_updates(agent.params[name], steps)}
        return agent._replace(params=params, optimizer={**agent.optimizer, name: optimizer_state})

    def improve(agent, batch):
        """The agent after an update of the actor and of the target networks."""

        def loss(params):
            action = action_of(params, batch.state, batch.goal)
            value = critic.lower(agent.params["critic"], batch.state, batch.goal, action)
            return improvement_loss(value, action, batch.action, config.actor_bc)

        actor_loss, gradients = jax.value_and_grad(loss)(agent.params["actor"])
        agent = descend(agent, "actor", gradients)
        slow = optax.incremental_update(agent.params, agent.target, config.tau)
        return agent._replace(target=slow, actor_loss=actor_loss)

    def update(agent, batch, key):
        target = config.backup(batch, next_value(agent.target, batch, key))
        gradients, metrics = jax.grad(critic.loss, has_aux=True)(agent.params["critic"], batch, target)
        agent = descend(agent, "critic", gradients)._replace(updates=agent.updates + 1)
        due = agent.updates % config.policy_delay == 0
        agent = jax.lax.cond(due, improve, lambda agent, batch: agent, agent, batch)
        return agent, {**metrics, "actor_loss": agent.actor_loss}

    act, mode = noisy_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update, critic.score(mode), Needs(next_action=True))


AGENTS.add("rebrac", Algorithm(ReBRACConfig, make, goals=False))
