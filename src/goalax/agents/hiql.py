"""HIQL: hierarchical implicit Q-learning (arXiv 2307.11949): one value of goals, and two policies from it: one chooses
where to be some steps later, as a representation, the other goes there; both choose anew at every step.
Its actors see the coordinates of a goal; what else differs from OGBench is in docs/offline.md."""

import dataclasses

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import awr_loss, linear_actor, log_density, with_noise
from goalax.agents.goal_values import GoalValueConfig, Pair, goal_reward, learner, value_loss
from goalax.core.types import Agent, Array, Needs, Spec
from goalax.flags import flag

FLOOR = 1e-12  # under squared lengths, so that the gradient at 0 is finite


@dataclasses.dataclass(frozen=True)
class HIQLConfig(GoalValueConfig):
    expectile: float = flag(0.7, "expectile of the values: 0.5 is the mean, 1 the largest", above=0, below=1)
    low_alpha: float = flag(3.0, "factor of advantages in the weights of imitated actions: larger is greedier", low=0)
    high_alpha: float = flag(3.0, "factor of advantages in the weights of imitated sub-goals", low=0)
    subgoal_steps: int = flag(25, "rows from a state to its sub-goal", low=1, high=100_000)
    repr_dim: int = flag(10, "size of the representations of sub-goals", low=1, most=1_000_000)

    def needs(self, spec: Spec) -> Needs:
        return super().needs(spec)._replace(subgoal=self.subgoal_steps)


def of_fixed_length(x: Array) -> Array:
    """x / |x| * sqrt(D), [..., D] -> [..., D]."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.mean(x**2, axis=-1, keepdims=True), FLOOR))


def make(config: HIQLConfig, spec: Spec) -> Agent:
    encoder, value = config.mlp(config.repr_dim), Pair(config.mlp(1))
    low, high = linear_actor(config.mlp, spec.action_size), linear_actor(config.mlp, config.repr_dim)
    stop = jax.lax.stop_gradient

    def encode(params, state, future_state):
        """Representations [..., D] of goals that future states achieve, as seen from states."""
        goal = config.goal_input(spec, future_state)
        return of_fixed_length(encoder.apply(params["encoder"], jnp.concatenate([state, goal], axis=-1)))

    def values(params, pair, state, future_state):
        """[2, B] by the parameters of a pair; target networks have an encoder in common with their networks."""
        return value.values(pair, state, encode(params, state, future_state))

    def mean_value(params, state, future_state):
        return jnp.mean(values(params, params["value"], state, future_state), axis=0)

    def init(key):
        keys = jax.random.split(key, 4)
        state, goal = jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)
        return start(
            {
                "critic": {
                    "encoder": encoder.init(keys[0], jnp.zeros(spec.state_size + config.goal_size(spec))),
                    "value": value.init(keys[1], spec.state_size + config.repr_dim),
                },
                "actor": {
                    "low": low.init(keys[2], state, jnp.zeros(config.repr_dim)),
                    "high": high.init(keys[3], state, goal),
                },
            }
        )

    def losses(params, target, batch):
        of_critic, fixed = params["critic"], stop(params["critic"])
        goal, near, way, wanted = batch.future_state, batch.subgoals.near, batch.subgoals.way, batch.actor_state
        slow, slow_next = (values(fixed, target, state, goal) for state in (batch.state, batch.next_state))
        found = values(of_critic, of_critic["value"], batch.state, goal)
        reward = goal_reward(batch, spec.discounting)
        critic_loss, _ = value_loss(found, slow, slow_next, *reward, config.expectile)

        advantage = mean_value(fixed, batch.next_state, near) - mean_value(fixed, batch.state, near)
        mean = low.apply(params["actor"]["low"], batch.state, encode(fixed, batch.state, near))
        likelihood = log_density(batch.action, mean)
        low_loss = awr_loss(advantage, likelihood, config.low_alpha)

        high_advantage = mean_value(fixed, way, wanted) - mean_value(fixed, batch.state, wanted)
        high_mean = high.apply(params["actor"]["high"], batch.state, spec.goal_of(wanted))
        high_likelihood = log_density(encode(fixed, batch.state, way), high_mean)
        high_loss = awr_loss(high_advantage, high_likelihood, config.high_alpha)
        metrics = {
            "critic_loss": critic_loss,
            "actor_loss": low_loss + high_loss,
            "low_loss": low_loss,
            "high_loss": high_loss,
            "value": jnp.mean(found),
            "advantage": jnp.mean(advantage),
            "high_advantage": jnp.mean(high_advantage),
            "log_density": jnp.mean(likelihood),
        }
        return critic_loss + low_loss + high_loss, metrics

    def mode(agent, state, goal):
        actors = agent.params["actor"]
        subgoal = of_fixed_length(high.apply(actors["high"], state, goal))
        return jnp.clip(low.apply(actors["low"], state, subgoal), -1, 1)

    def score(agent, state, future_state):
        return mean_value(agent.params["critic"], state, future_state)

    start, update = learner(config, losses, lambda params: params["critic"]["value"])
    return Agent(init, with_noise(mode, config.exploration_noise), mode, update, score, config.needs(spec))


AGENTS.add("hiql", Algorithm(HIQLConfig, make))
