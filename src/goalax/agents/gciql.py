"""GCIQL: goal-conditioned implicit Q-learning, as in OGBench (arXiv 2410.20092, after IQL, arXiv 2110.06169): values of
goals with and without actions, and a policy that improves them near the actions of the dataset.
Its actor sees the coordinates of a goal; what else differs from OGBench is in docs/offline.md."""

import dataclasses

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import (
    AWR,
    awr_alpha_flag,
    awr_loss,
    clipped_policy,
    ddpg_bc_loss,
    expectile,
    extraction_flag,
    linear_actor,
    log_density,
)
from goalax.agents.goal_values import GoalValueConfig, Pair, goal_reward, learner
from goalax.core.types import Agent, Array, Spec
from goalax.flags import flag


@dataclasses.dataclass(frozen=True)
class GCIQLConfig(GoalValueConfig):
    extraction: str = extraction_flag()
    bc_weight: float = flag(0.3, "with ddpg_bc, weight of imitating stored actions", low=0)
    awr_alpha: float = awr_alpha_flag()


def q_loss(values: Array, target: Array) -> Array:
    """Squared errors of two values [2, B] to a target [B], summed over both, mean over the batch, []."""
    return jnp.sum(jnp.mean((values - jax.lax.stop_gradient(target)[None]) ** 2, axis=-1))


def make(config: GCIQLConfig, spec: Spec) -> Agent:
    other = "bc_weight" if config.extraction == AWR else "awr_alpha"
    config.require_unset([other], f"with --extraction {config.extraction}")
    value, critic = config.mlp(1), Pair(config.mlp(1))
    actor = linear_actor(config.mlp, spec.action_size)
    stop = jax.lax.stop_gradient

    def value_of(params, state, goal):
        return value.apply(params["value"], jnp.concatenate([state, goal], axis=-1))[..., 0]

    def lower(params, state, goal, action):
        return jnp.min(critic.values(params, state, goal, action), axis=0)

    def init(key):
        value_key, q_key, actor_key = jax.random.split(key, 3)
        size = spec.state_size + config.goal_size(spec)
        return start(
            {
                "critic": {
                    "value": value.init(value_key, jnp.zeros(size)),
                    "q": critic.init(q_key, size + spec.action_size),
                },
                "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            }
        )

    def losses(params, target, batch):
        goal, wanted = (config.goal_input(spec, state) for state in (batch.future_state, batch.actor_state))
        of_critic, fixed = params["critic"], stop(params["critic"])
        above = lower(target, batch.state, goal, batch.action) - value_of(of_critic, batch.state, goal)
        expectile_loss = expectile(above, above, config.expectile)
        reward, discount = goal_reward(batch, spec.discounting)
        backup = reward + discount * value_of(fixed, batch.next_state, goal)
        values = critic.values(of_critic["q"], batch.state, goal, batch.action)
        bellman_loss = q_loss(values, backup)

        mean = actor.apply(params["actor"], batch.state, spec.goal_of(batch.actor_state))
        likelihood = log_density(batch.action, mean)
        if config.extraction == AWR:
            q = lower(fixed["q"], batch.state, wanted, batch.action)
            actor_loss = awr_loss(q - value_of(fixed, batch.state, wanted), likelihood, config.awr_alpha)
        else:
            q = lower(fixed["q"], batch.state, wanted, jnp.clip(mean, -1, 1))
            actor_loss = ddpg_bc_loss(q, likelihood, config.bc_weight)
        metrics = {
            "critic_loss": expectile_loss + bellman_loss,
            "value_loss": expectile_loss,
            "q_loss": bellman_loss,
            "actor_loss": actor_loss,
            "q": jnp.mean(values),
            "log_density": jnp.mean(likelihood),
        }
        return expectile_loss + bellman_loss + actor_loss, metrics

    start, update = learner(config, losses, lambda params: params["critic"]["q"])
    act, mode = clipped_policy(actor, config.exploration_noise)

    def score(agent, state, future_state):
        action, goal = mode(agent, state, spec.goal_of(future_state)), config.goal_input(spec, future_state)
        return lower(agent.params["critic"]["q"], state, goal, action)

    return Agent(init, act, mode, update, score, config.needs(spec))


AGENTS.add("gciql", Algorithm(GCIQLConfig, make))
