"""GCIVL: goal-conditioned implicit value learning, as in OGBench (arXiv 2410.20092, after IQL, arXiv 2110.06169):
values of goals by expectiles, without actions, and a policy that imitates the steps towards the goal.
Its actor sees the coordinates of a goal; what else differs from OGBench is in docs/offline.md."""

import dataclasses

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import awr_loss, clipped_policy, linear_actor, log_density
from goalax.agents.goal_values import GoalValueConfig, Pair, goal_reward, learner, value_after, value_loss
from goalax.core.types import Agent, Spec
from goalax.flags import flag


@dataclasses.dataclass(frozen=True)
class GCIVLConfig(GoalValueConfig):
    awr_alpha: float = flag(10.0, "factor of advantages in the weights of imitated actions: larger is greedier", low=0)


def make(config: GCIVLConfig, spec: Spec) -> Agent:
    value, actor = Pair(config.mlp(1)), linear_actor(config.mlp, spec.action_size)

    def init(key):
        value_key, actor_key = jax.random.split(key)
        return start(
            {
                "critic": value.init(value_key, spec.state_size + config.goal_size(spec)),
                "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            }
        )

    def losses(params, target, batch):
        goal, wanted = (config.goal_input(spec, state) for state in (batch.future_state, batch.actor_state))
        slow, slow_next = (value.values(target, state, goal) for state in (batch.state, batch.next_state))
        values, reward = value.values(params["critic"], batch.state, goal), goal_reward(batch, spec.discounting)
        critic_loss, _ = value_loss(values, slow, slow_next, *reward, config.expectile)

        here, there = (value.values(params["critic"], state, wanted) for state in (batch.state, batch.next_state))
        then = value_after(batch, batch.actor_state, jnp.mean(there, axis=0), spec.discounting)
        advantage = jax.lax.stop_gradient(then - jnp.mean(here, axis=0))
        mean = actor.apply(params["actor"], batch.state, spec.goal_of(batch.actor_state))
        likelihood = log_density(batch.action, mean)
        actor_loss = awr_loss(advantage, likelihood, config.awr_alpha)
        metrics = {
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "value": jnp.mean(values),
            "advantage": jnp.mean(advantage),
            "log_density": jnp.mean(likelihood),
        }
        return critic_loss + actor_loss, metrics

    def score(agent, state, future_state):
        return jnp.mean(value.values(agent.params["critic"], state, config.goal_input(spec, future_state)), axis=0)

    start, update = learner(config, losses, lambda params: params["critic"])
    act, mode = clipped_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update, score, config.needs(spec))


AGENTS.add("gcivl", Algorithm(GCIVLConfig, make))
