"""TD3: twin delayed deterministic policy gradient (arXiv 1802.09477), goal-conditioned; with --use_her, on hindsight
goals (arXiv 1707.01495)."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from goalax.agents.actor_critic import noisy_policy
from goalax.agents.base import AGENTS, Algorithm, NoisyConfig
from goalax.agents.delayed import DelayedFlags, all_due, delayed, smoothed
from goalax.agents.q_learning import QConfig, TwinCritic, bellman_target
from goalax.core.types import Agent, Spec
from goalax.flags import flag
from goalax.learning.networks import deterministic_actor


@dataclasses.dataclass(frozen=True)
class TD3Config(DelayedFlags, QConfig, NoisyConfig):
    """Learning rates, delay and smoothing of the paper, 6.1, and of its authors' code (sfujim/TD3, the first version);
    their exploration noise is 0.1, for dense rewards. HER's authors have the same learning rates (openai/baselines,
    baselines/her)."""

    # Not of TD3 but of HER (arXiv 1707.01495, appendix A; its authors' code weighs squared actions after tanh with 1).
    # Without it the actor saturates: on reacher, --use_her, 600k steps, seed 0, 62% of the episodes reached the goal
    # with 0, and all with 1.
    saturation_penalty: float = flag(1.0, "weight of the mean squared actions before tanh in the actor's loss", low=0)


def make(config: TD3Config, spec: Spec) -> Agent:
    config.check_reward(spec)
    actor, critic = deterministic_actor(config.mlp, spec.action_size), TwinCritic(config, spec)

    def backup(target, batch, key):
        """By the lower one of the target critics, for the target policy with clipped noise, [B] (equation 15)."""
        wanted = jnp.tanh(actor.apply(target["actor"], batch.next_state, batch.goal))
        action = smoothed(wanted, jax.random.normal(key, wanted.shape), config.target_noise, config.noise_clip)
        value = critic.lower(target["critic"], batch.next_state, batch.goal, action)
        return bellman_target(batch, value, config.reward_scaling)

    def actor_loss(params, critics, batch):
        before_tanh = actor.apply(params, batch.state, batch.goal)
        (value,) = critic.values(critics[:1], batch.state, batch.goal, jnp.tanh(before_tanh))
        return config.saturation_penalty * jnp.mean(before_tanh**2) - jnp.mean(value)

    init, learn = delayed(config, actor, critic, backup, actor_loss)

    def update(agent, batch, key):
        return learn(agent, config.hindsight(batch, spec), key)

    due = partial(all_due, config.policy_delay)
    act, mode = noisy_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update, critic.score(mode), config.needs, due=due)


AGENTS.add("td3", Algorithm(TD3Config, make, goals=False))
