"""ReBRAC (arXiv 2305.09836): TD3+BC whose penalty for actions far from the stored ones is in the critic, too."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from goalax.agents.actor_critic import noisy_policy
from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.bc import squared_error
from goalax.agents.delayed import DelayedFlags, all_due, delayed, smoothed
from goalax.agents.extraction import SMALLEST_SIZE, require_equal_shapes
from goalax.agents.q_learning import TwinCritic
from goalax.agents.rewards import RewardConfig
from goalax.core.types import Agent, Array, Needs, Spec
from goalax.flags import flag
from goalax.learning.networks import deterministic_actor


@dataclasses.dataclass(frozen=True)
class ReBRACConfig(DelayedFlags, RewardConfig):
    """Networks, rates, delay and noise of the paper, appendix B, with batches of 1,024; the weights are tuned
    for every task there: the actor's 0.001 to 1, the critic's 0 to 1 (AntMaze: gamma 0.999, rewards times 100)."""

    actor_bc: float = flag(0.1, "weight of squared distances to stored actions in the actor's loss", low=0)
    critic_bc: float = flag(0.1, "weight of squared distances to the next stored actions in the back-ups", low=0)
    exploration_noise: float = flag(0.1, "standard deviation of the noise on actions taken", low=0)


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

    def action_of(params, state, goal):
        return jnp.tanh(actor.apply(params, state, goal))

    def backup(target, batch, key):
        """[B]; the action stored in next_state is that of the next row, which the last transition has too."""
        wanted = action_of(target["actor"], batch.next_state, batch.goal)
        action = smoothed(wanted, jax.random.normal(key, wanted.shape), config.target_noise, config.noise_clip)
        value = critic.lower(target["critic"], batch.next_state, batch.goal, action)
        return config.backup(batch, penalised(value, action, batch.next_action, config.critic_bc))

    def actor_loss(params, critics, batch):
        action = action_of(params, batch.state, batch.goal)
        value = critic.lower(critics, batch.state, batch.goal, action)
        return improvement_loss(value, action, batch.action, config.actor_bc)

    init, update = delayed(config, actor, critic, backup, actor_loss)
    due = partial(all_due, config.policy_delay)
    act, mode = noisy_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update, critic.score(mode), Needs(next_action=True), due=due)


AGENTS.add("rebrac", Algorithm(ReBRACConfig, make, goals=False))
