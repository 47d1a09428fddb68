"""TD3: twin delayed deterministic policy gradient (arXiv 1802.09477), goal-conditioned; with --use_her, on hindsight
goals (arXiv 1707.01495)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.actor_critic import noisy_policy
from goalax.agents.base import AGENTS, Algorithm, NoisyConfig
from goalax.agents.q_learning import QConfig, TwinCritic, bellman_target
from goalax.core.types import Agent, Array, Batch, Spec
from goalax.flags import flag
from goalax.learning.networks import deterministic_actor


@dataclasses.dataclass(frozen=True)
class TD3Config(QConfig, NoisyConfig):
    """Learning rates, delay and smoothing of the paper, 6.1, and of its authors' code (sfujim/TD3); their exploration
    noise is 0.1, for dense rewards. HER's authors have the same learning rates (openai/baselines, baselines/her)."""

    policy_lr: float = flag(1e-3, "learning rate of the actor", above=0)
    critic_lr: float = flag(1e-3, "learning rate of the critics", above=0)
    policy_delay: int = flag(2, "updates of the critics per update of the actor and of the target networks", low=1)
    target_noise: float = flag(0.2, "standard deviation of the noise on actions of the target policy", low=0)
    noise_clip: float = flag(0.5, "largest noise on actions of the target policy", low=0)
    # Not of TD3 but of HER (arXiv 1707.01495, appendix A; its authors' code weighs squared actions after tanh with 1).
    # Without it the actor saturates: on reacher, --use_her, 600k steps, seed 0, 62% of the episodes reached the goal
    # with 0, and all with 1.
    saturation_penalty: float = flag(1.0, "weight of the mean squared actions before tanh in the actor's loss", low=0)


class TD3State(NamedTuple):
    params: dict  # actor, critic
    target: dict  # slow parameters of both
    optimizer: dict  # of each
    updates: Array  # [] int32
    actor_loss: Array  # [] at the newest update of the actor


def make(config: TD3Config, spec: Spec) -> Agent:
    config.check_reward(spec)
    actor, critic = deterministic_actor(config.mlp, spec.action_size), TwinCritic(config, spec)
    adam = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(critic_key),
        }
        optimizer = {name: adam[name].init(params[name]) for name in adam}
        return TD3State(params, params, optimizer, jnp.zeros((), jnp.int32), jnp.zeros(()))

    def next_value(target, batch, key):
        """Value of next_state under the target policy with clipped noise, by the lower one of the target critics, [B].

        Equations 14 and 15 of the paper.
        """
        action = jnp.tanh(actor.apply(target["actor"], batch.next_state, batch.goal))
        noise = config.target_noise * jax.random.normal(key, action.shape)
        action = jnp.clip(action + jnp.clip(noise, -config.noise_clip, config.noise_clip), -1, 1)
        return critic.lower(target["critic"], batch.next_state, batch.goal, action)

    def descend(agent, name, gradients):
        """The agent after one step of Adam of the network `name`."""
        steps, optimizer_state = adam[name].update(gradients, agent.optimizer[name])
        params = optax.apply_updates(agent.params[name], steps)
        return agent._replace(
            params={**agent.params, name: params}, optimizer={**agent.optimizer, name: optimizer_state}
        )

    def improve(agent, batch):
        """The agent after an update of the actor and of the target networks."""

        def loss(params):
            before_tanh = actor.apply(params, batch.state, batch.goal)
            first = agent.params["critic"][:1]
            (value,) = critic.values(first, batch.state, batch.goal, jnp.tanh(before_tanh))
            return config.saturation_penalty * jnp.mean(before_tanh**2) - jnp.mean(value)

        actor_loss, gradients = jax.value_and_grad(loss)(agent.params["actor"])
        agent = descend(agent, "actor", gradients)
        slow = optax.incremental_update(agent.params, agent.target, config.tau)
        return agent._replace(target=slow, actor_loss=actor_loss)

    def update(agent, batch: Batch, key):
        batch = config.hindsight(batch, spec)
        target = bellman_target(batch, next_value(agent.target, batch, key), config.reward_scaling)
        gradients, metrics = jax.grad(critic.loss, has_aux=True)(agent.params["critic"], batch, target)
        agent = descend(agent, "critic", gradients)._replace(updates=agent.updates + 1)
        due = agent.updates % config.policy_delay == 0
        agent = jax.lax.cond(due, improve, lambda agent, batch: agent, agent, batch)
        return agent, {**metrics, "actor_loss": agent.actor_loss}

    act, mode = noisy_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update, critic.score(mode), config.needs)


AGENTS.add("td3", Algorithm(TD3Config, make, goals=False))
