"""SAC: soft actor-critic (arXiv 1812.05905), goal-conditioned; with --use_her, on hindsight goals
(arXiv 1707.01495)."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.actor_critic import entropy_actor_loss, entropy_optimizer, gaussian_policy, soft_value
from goalax.agents.base import AGENTS, Algorithm, EntropyConfig
from goalax.agents.q_learning import QConfig, TwinCritic, bellman_target
from goalax.core.types import Agent, Spec
from goalax.learning.networks import gaussian_actor


@dataclasses.dataclass(frozen=True)
class SACConfig(QConfig, EntropyConfig):
    pass


class SACState(NamedTuple):
    params: dict  # actor, critic, log_alpha
    target: list  # slow parameters of the critic
    optimizer: optax.OptState


def make(config: SACConfig, spec: Spec) -> Agent:
    config.require_entropy()
    config.check_reward(spec)
    actor, critic = gaussian_actor(config.mlp, spec.action_size), TwinCritic(config, spec)
    optimizer = entropy_optimizer(config.policy_lr, config.critic_lr, config.alpha_lr)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(critic_key),
            "log_alpha": jnp.log(jnp.float32(config.alpha_init)),
        }
        return SACState(params, params["critic"], optimizer.init(params))

    def next_value(agent, batch, key):
        """Soft value of next_state by the lower one of the target critics, [B]."""
        policy = actor.apply(agent.params["actor"], batch.next_state, batch.goal)
        lower = partial(critic.lower, agent.target, batch.next_state, batch.goal)
        return soft_value(config, policy, lower, agent.params["log_alpha"], key)

    def losses(params, batch, target, key):
        critic_loss, metrics = critic.loss(params["critic"], batch, target)
        fixed = jax.lax.stop_gradient(params["critic"])
        actor_loss, actor_metrics = entropy_actor_loss(
            config,
            actor.apply(params["actor"], batch.state, batch.goal),
            lambda action: critic.lower(fixed, batch.state, batch.goal, action),
            params["log_alpha"],
            key,
        )
        return critic_loss + actor_loss, {**metrics, **actor_metrics}

    def update(agent, batch, key):
        batch = config.hindsight(batch, spec)
        target_key, actor_key = jax.random.split(key)
        target = bellman_target(batch, next_value(agent, batch, target_key), config.reward_scaling)
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, batch, target, actor_key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = optax.apply_updates(agent.params, steps)
        slow = optax.incremental_update(params["critic"], agent.target, config.tau)
        return SACState(params, slow, optimizer_state), metrics

    act, mode = gaussian_policy(actor)
    return Agent(init, act, mode, update, critic.score(mode), config.needs)


AGENTS.add("sac", Algorithm(SACConfig, make, goals=False))
