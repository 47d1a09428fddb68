"""IQL: implicit Q-learning (arXiv 2110.06169): values of the better ones of the stored actions, by expectiles, and a
policy that imitates stored actions by their advantage."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import awr_loss, expectile
from goalax.agents.q_learning import TwinCritic
from goalax.agents.rewards import RewardConfig
from goalax.core.types import Agent, Array, Spec
from goalax.flags import flag
from goalax.learning.networks import deterministic_actor

LOG_STD_RANGE = (-5.0, 2.0)


@dataclasses.dataclass(frozen=True)
class IQLConfig(RewardConfig):
    """Networks and rates of the paper, appendix B, whose critics have no LayerNorm; expectile and factor are those of
    its MuJoCo tasks (AntMaze: 0.9 and 10, rewards less 1). The actor's rate stays what it is: no cosine decay."""

    n_hidden: int = flag(2, "hidden layers", low=1, most=10_000)
    use_ln: bool = flag(False, "LayerNorm after every activation of critics; actors have none")
    expectile: float = flag(0.7, "expectile of the values: 0.5 is the mean, 1 the largest", above=0, below=1)
    awr_alpha: float = flag(3.0, "factor of advantages in the weights of imitated actions", low=0)


class IQLState(NamedTuple):
    params: dict  # actor, critic
    target: list  # slow parameters of Q
    optimizer: optax.OptState


def gaussian_log_density(action: Array, mean: Array, log_std: Array) -> Array:
    """Of actions [B, A] under a Gaussian with means and log standard deviations [B, A], without tanh, [B]."""
    deviation = (action - mean) / jnp.exp(log_std)
    return jnp.sum(-0.5 * deviation**2 - log_std - 0.5 * jnp.log(2 * jnp.pi), axis=-1)


def make(config: IQLConfig, spec: Spec) -> Agent:
    value, critic = config.mlp(1), TwinCritic(config, spec)
    actor = deterministic_actor(config.actor_mlp, spec.action_size)
    adam = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}
    optimizer, stop = optax.partition(adam, {name: name for name in adam}), jax.lax.stop_gradient

    def init(key):
        actor_key, value_key, q_key = jax.random.split(key, 3)
        state, goal = jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)
        params = {
            "actor": {"mean": actor.init(actor_key, state, goal), "log_std": jnp.zeros(spec.action_size)},
            "critic": {"value": value.init(value_key, jnp.concatenate([state, goal])), "q": critic.init(q_key)},
        }
        return IQLState(params, params["critic"]["q"], optimizer.init(params))

    def value_of(params, state, goal):
        return value.apply(params["critic"]["value"], jnp.concatenate([state, goal], axis=-1))[..., 0]

    def policy(params, state, goal):
        """Mean and log standard deviation, both [..., A]; the latter is the same in all states."""
        mean = jnp.tanh(actor.apply(params["actor"]["mean"], state, goal))
        return mean, jnp.broadcast_to(jnp.clip(params["actor"]["log_std"], *LOG_STD_RANGE), mean.shape)

    def losses(params, target, batch):
        advantage = critic.lower(target, batch.state, batch.goal, batch.action) - value_of(
            params, batch.state, batch.goal
        )
        value_loss = expectile(advantage, advantage, config.expectile)
        backup = config.backup(batch, stop(value_of(params, batch.next_state, batch.goal)))
        q_loss, metrics = critic.loss(params["critic"]["q"], batch, backup)
        likelihood = gaussian_log_density(batch.action, *policy(params, batch.state, batch.goal))
        actor_loss = awr_loss(advantage, likelihood, config.awr_alpha)
        metrics |= {
            "critic_loss": value_loss + q_loss,
            "value_loss": value_loss,
            "q_loss": q_loss,
            "actor_loss": actor_loss,
            "advantage": jnp.mean(advantage),
        }
        return value_loss + q_loss + actor_loss, metrics

    def update(agent, batch, key):
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, agent.target, batch)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = optax.apply_updates(agent.params, steps)
        slow = optax.incremental_update(params["critic"]["q"], agent.target, config.tau)
        return IQLState(params, slow, optimizer_state), metrics

    def mode(agent, state, goal):
        return policy(agent.params, state, goal)[0]

    def act(agent, state, goal, key):
        mean, log_std = policy(agent.params, state, goal)
        return jnp.clip(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape), -1, 1)

    def score(agent, state, future_state):
        goal = spec.goal_of(future_state)
        return critic.lower(agent.params["critic"]["q"], state, goal, mode(agent, state, goal))

    return Agent(init, act, mode, update, score)


AGENTS.add("iql", Algorithm(IQLConfig, make, goals=False))
