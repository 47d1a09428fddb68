"""TD3: twin delayed deep deterministic policy gradient (arXiv 1802.09477), goal-conditioned; with --use_her, on
hindsight goals (arXiv 1707.01495)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from src.agents.base import AGENTS, Algorithm, actor_goals
from src.agents.q_learning import QConfig, TwinCritic, bellman_target, critic_loss
from src.flags import flag
from src.types import Agent, Array, Batch, Spec


@dataclasses.dataclass(frozen=True)
class TD3Config(QConfig):
    """Delay and smoothing of the paper (section 6.1), which explores with less noise, 0.1, and rewards that are dense."""

    policy_delay: int = flag(2, "updates of the critics per update of actor and targets", low=1)
    target_noise: float = flag(0.2, "standard deviation of the noise on actions of the target policy", low=0)
    noise_clip: float = flag(0.5, "largest noise on actions of the target policy", low=0)
    exploration_noise: float = flag(0.4, "standard deviation of the noise on actions taken", low=0)


class TD3State(NamedTuple):
    params: dict  # actor, critic
    target: dict  # actor, critic
    optimizer: dict  # actor, critic
    updates: Array  # [] int32
    actor_loss: Array  # [] at the newest update of the actor


def make(config: TD3Config, spec: Spec) -> Agent:
    config.check_reward(spec)
    actor, critic = config.mlp(spec.action_size), TwinCritic(config, spec)
    optimizers = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}

    def policy(params, state, goal):
        return jnp.tanh(actor.apply(params, jnp.concatenate([state, goal], axis=-1)))

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        actor_params = actor.init(actor_key, jnp.zeros(spec.state_size + spec.goal_size))
        params = {"actor": actor_params, "critic": critic.init(critic_key)}
        optimizer = {name: optimizers[name].init(params[name]) for name in params}
        return TD3State(params, params, optimizer, jnp.zeros((), jnp.int32), jnp.zeros(()))

    def mode(agent, state, goal):
        return policy(agent.params["actor"], state, goal)

    def act(agent, state, goal, key):
        action = mode(agent, state, goal)
        return jnp.clip(action + config.exploration_noise * jax.random.normal(key, action.shape), -1, 1)

    def smoothed_value(target, state, goal, key):
        """Of the target policy with clipped noise, by the lower of the target critics (equations 10 and 14), [B]."""
        action = policy(target["actor"], state, goal)
        noise = jnp.clip(config.target_noise * jax.random.normal(key, action.shape), -config.noise_clip, config.noise_clip)
        return jnp.min(critic(target["critic"], state, goal, jnp.clip(action + noise, -1, 1)), axis=0)

    def descend(agent, name, gradients):
        """The agent after one step of Adam of the network `name`."""
        steps, optimizer_state = optimizers[name].update(gradients, agent.optimizer[name])
        params = optax.apply_updates(agent.params[name], steps)
        return agent._replace(
            params={**agent.params, name: params}, optimizer={**agent.optimizer, name: optimizer_state}
        )

    def update(agent, batch: Batch, key):
        batch = config.hindsight(batch, spec)
        next_value = smoothed_value(agent.target, batch.next_state, batch.goal, key)
        target = bellman_target(batch, next_value, config.reward_scaling)

        def loss_of_critics(params):
            return critic_loss(critic(params, batch.state, batch.goal, batch.action), target)

        gradients, metrics = jax.grad(loss_of_critics, has_aux=True)(agent.params["critic"])
        agent = descend(agent, "critic", gradients)

        def delayed(agent):
            goal = actor_goals(batch.goal, config.random_goals)

            def loss_of_actor(params):
                action = policy(params, batch.state, goal)
                return -jnp.mean(critic(agent.params["critic"], batch.state, goal, action)[0])

            actor_loss, gradients = jax.value_and_grad(loss_of_actor)(agent.params["actor"])
            agent = descend(agent, "actor", gradients)
            slow = optax.incremental_update(agent.params, agent.target, config.tau)
            return agent._replace(target=slow, actor_loss=actor_loss)

        agent = jax.lax.cond(agent.updates % config.policy_delay == 0, delayed, lambda agent: agent, agent)
        return agent._replace(updates=agent.updates + 1), {**metrics, "actor_loss": agent.actor_loss}

    return Agent(init, act, mode, update, config.goal_discounting)


AGENTS.add("td3", Algorithm(TD3Config, make))
