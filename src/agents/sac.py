"""SAC: soft actor-critic (arXiv 1812.05905), goal-conditioned; with --use_her, on hindsight goals (arXiv 1707.01495)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from src.agents.base import AGENTS, ActorConfig, Algorithm, actor_goals, entropy_actor_loss, gaussian_policy
from src.agents.q_learning import QConfig, TwinCritic, bellman_target, critic_loss
from src.networks import Actor, sample_action
from src.types import Agent, Batch, Spec


@dataclasses.dataclass(frozen=True)
class SACConfig(QConfig, ActorConfig):
    pass


class SACState(NamedTuple):
    params: dict  # actor, critic, log_alpha
    target: dict  # critic
    optimizer: optax.OptState


def make(config: SACConfig, spec: Spec) -> Agent:
    config.check_reward(spec)
    actor, critic = Actor(config.mlp, spec.action_size), TwinCritic(config, spec)
    rates = {"actor": config.policy_lr, "critic": config.critic_lr, "log_alpha": config.alpha_lr}
    optimizer = optax.partition({name: optax.adam(rate) for name, rate in rates.items()}, {name: name for name in rates})

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(critic_key),
            "log_alpha": jnp.zeros(()),
        }
        return SACState(params, {"critic": params["critic"]}, optimizer.init(params))

    def soft_value(agent, state, goal, key):
        """Of the policy by the slower of the target critics (equation 3), [B]."""
        action, log_density = sample_action(*actor.apply(agent.params["actor"], state, goal), key)
        value = jnp.min(critic(agent.target["critic"], state, goal, action), axis=0)
        return value if config.disable_entropy_actor else value - jnp.exp(agent.params["log_alpha"]) * log_density

    def losses(params, batch: Batch, target, key):
        loss, metrics = critic_loss(critic(params["critic"], batch.state, batch.goal, batch.action), target)
        fixed, goal = jax.lax.stop_gradient(params["critic"]), actor_goals(batch.goal, config.random_goals)
        actor_loss, actor_metrics = entropy_actor_loss(
            config,
            actor.apply(params["actor"], batch.state, goal),
            lambda action: jnp.min(critic(fixed, batch.state, goal, action), axis=0),
            params["log_alpha"],
            key,
        )
        return loss + actor_loss, {**metrics, **actor_metrics}

    def update(agent, batch, key):
        batch = config.hindsight(batch, spec)
        target_key, actor_key = jax.random.split(key)
        next_value = soft_value(agent, batch.next_state, batch.goal, target_key)
        target = bellman_target(batch, next_value, config.reward_scaling)
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, batch, target, actor_key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = optax.apply_updates(agent.params, steps)
        slow = optax.incremental_update({"critic": params["critic"]}, agent.target, config.tau)
        return SACState(params, slow, optimizer_state), metrics

    return Agent(init, *gaussian_policy(actor), update, config.goal_discounting)


AGENTS.add("sac", Algorithm(SACConfig, make))
