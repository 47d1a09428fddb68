"""CQL: conservative Q-learning (arXiv 2006.04779) on SAC, which pushes down values of actions that are not stored."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.actor_critic import entropy_actor_loss, gaussian_policy
from goalax.agents.base import AGENTS, Algorithm, EntropyConfig
from goalax.agents.extraction import require_equal_shapes
from goalax.agents.q_learning import TwinCritic
from goalax.agents.rewards import RewardConfig
from goalax.core.types import Agent, Array, Batch, Spec
from goalax.flags import flag
from goalax.learning.networks import gaussian_actor, sample_action

LARGEST_MULTIPLIER = 1e6


@dataclasses.dataclass(frozen=True)
class CQLConfig(RewardConfig, EntropyConfig):
    """CQL(H) as its authors run it on MuJoCo tasks, with LayerNorm in the critics. Others: AntMaze --cql_alpha 5
    --cql_lagrange --cql_gap 0.8 --cql_floor 200 --max_backup --n_hidden 5 --policy_lr 1e-4 --alpha_lr 1e-4
    --reward_scaling 10 --reward_shift -0.5; DeepMind Control (ExORL, arXiv 2201.13425) --cql_alpha 0.01
    --policy_lr 1e-4 --critic_lr 1e-4 --tau 0.01 --cql_samples 3 --no_importance_weights. The penalty is linear in
    values and the Bellman error quadratic: with rewards c times as large, a weight of c times alpha does the same."""

    policy_lr: float = flag(3e-5, "learning rate of the actor", above=0)
    alpha_lr: float = flag(3e-5, "learning rate of the entropy temperature", above=0)
    target_entropy_scale: float = flag(1.0, "target entropy = minus this, times the action size", low=0)
    cql_alpha: float = flag(10.0, "weight of the penalty on values of actions that are not stored", low=0)
    cql_samples: int = flag(10, "random actions, actions in state and in next_state, of each so many", low=1, most=1000)
    cql_temperature: float = flag(1.0, "temperature of the log-sum-exp of the penalty", above=0)
    importance_weights: bool = flag(True, "weigh sampled actions by one over their density; else add the stored one")
    cql_floor: float = flag(0.0, "penalties of samples are at least minus this; 0: any", low=0)
    cql_lagrange: bool = flag(False, "a learned factor of cql_alpha that keeps the penalty at cql_gap")
    cql_gap: float = flag(0.8, "with --cql_lagrange, the penalty to keep", low=0)
    max_backup: bool = flag(False, "back up the best of cql_samples actions in next_state, in place of one")


class CQLState(NamedTuple):
    params: dict  # actor, critic, log_alpha, log_multiplier
    target: list  # slow parameters of the critic
    optimizer: optax.OptState


def penalty(
    stored: Array,
    random: Array,
    current: Array,
    following: Array,
    densities: tuple[float | Array, Array, Array] | None,
    temperature: float = 1.0,
) -> Array:
    """Soft maximum of the values of sampled actions less that of the stored one, for each state, [B].

    Args:
      stored: [B], of stored actions.
      random, current, following: [n, B], of actions drawn uniformly, from the policy in state, and in next_state.
      densities: their log-densities, a number and [n, B] each, for importance weights; None: all actions count alike,
        and the stored one with them.

    Source: arXiv 2006.04779, equation 4 and appendix F.
    """
    samples = [random, current, following]
    if densities is None:
        samples.append(stored[None])
    else:
        for value, density in zip(samples[1:], densities[1:], strict=True):
            require_equal_shapes(value, density)
        samples = [value - density for value, density in zip(samples, densities, strict=True)]
    values = jnp.concatenate(samples, axis=0) / temperature
    return temperature * jax.nn.logsumexp(values, axis=0) - stored


def multiplier_losses(gaps: list[Array], weight: float, log_multiplier: Array) -> tuple[Array, Array]:
    """Losses [] of the critics and of the multiplier, of mean penalties less the one to keep, [] of each critic.

    Source: arXiv 2006.04779, appendix F, equation 30.
    """
    factor = weight * jnp.clip(jnp.exp(log_multiplier), 0, LARGEST_MULTIPLIER)
    both = jnp.sum(jnp.stack(gaps))
    return jax.lax.stop_gradient(factor) * both, -0.5 * factor * jax.lax.stop_gradient(both)


def make(config: CQLConfig, spec: Spec) -> Agent:
    config.require_entropy()
    if not config.cql_lagrange:
        config.require_unset(["cql_gap"], "without --cql_lagrange")
    if config.cql_alpha == 0:
        names = ["cql_temperature", "importance_weights", "cql_floor", "cql_lagrange"]
        config.require_unset([*names, *([] if config.max_backup else ["cql_samples"])], "with --cql_alpha 0")
    actor, critic = gaussian_actor(config.actor_mlp, spec.action_size), TwinCritic(config, spec)
    rates = {"actor": config.policy_lr, "critic": config.critic_lr, "log_alpha": config.alpha_lr}
    rates |= {"log_multiplier": config.critic_lr} if config.cql_lagrange else {}
    optimizer = optax.partition(
        {name: optax.adam(rate) for name, rate in rates.items()}, {name: name for name in rates}
    )
    stop = jax.lax.stop_gradient

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(critic_key),
            "log_alpha": jnp.log(jnp.float32(config.alpha_init)),
        }
        if config.cql_lagrange:
            params["log_multiplier"] = jnp.ones(())  # as its authors' code begins
        return CQLState(params, params["critic"], optimizer.init(params))

    def drawn(params, state, goal, key, number):
        """So many actions of the policy, [n, B, A], and their log-densities [n, B]; consumes key."""
        mean, log_std = (jnp.broadcast_to(part[None], (number, *part.shape)) for part in policy(params, state, goal))
        return sample_action(mean, log_std, key)

    def policy(params, state, goal):
        return actor.apply(params["actor"], state, goal)

    def at(number, array):
        """[B, F] -> [n, B, F]."""
        return jnp.broadcast_to(array[None], (number, *array.shape))

    def next_value(agent, batch, key):
        """Of next_state by the lower one of the target critics, [B], without entropy."""
        number = config.cql_samples if config.max_backup else 1
        action, _ = drawn(agent.params, batch.next_state, batch.goal, key, number)
        inputs = at(number, batch.next_state), at(number, batch.goal)
        return jnp.max(critic.lower(agent.target, *inputs, action), axis=0)

    def penalties(params, batch: Batch, key) -> list[Array]:
        """Mean penalty [] of each critic; consumes key."""
        number, (random_key, key, next_key) = config.cql_samples, jax.random.split(key, 3)
        random = jax.random.uniform(random_key, (number, *batch.action.shape), minval=-1, maxval=1)
        current, density = stop(drawn(params, batch.state, batch.goal, key, number))
        following, next_density = stop(drawn(params, batch.next_state, batch.goal, next_key, number))
        densities = (-spec.action_size * jnp.log(2.0), density, next_density) if config.importance_weights else None
        inputs = at(3 * number, batch.state), at(3 * number, batch.goal)
        sampled = critic.values(params["critic"], *inputs, jnp.concatenate([random, current, following]))
        stored = critic.values(params["critic"], batch.state, batch.goal, batch.action)
        means = []
        for value, values in zip(stored, sampled, strict=True):
            at_random, now, next_ones = jnp.split(values, 3)
            each = penalty(value, at_random, now, next_ones, densities, config.cql_temperature)
            means.append(jnp.mean(jnp.maximum(each, -config.cql_floor) if config.cql_floor else each))
        return means

    def losses(params, batch, target, key):
        penalty_key, actor_key = jax.random.split(key)
        bellman_loss, metrics = critic.loss(params["critic"], batch, target)
        means = penalties(params, batch, penalty_key)
        if config.cql_lagrange:
            gaps = [mean - config.cql_gap for mean in means]
            penalty_loss, multiplier_loss = multiplier_losses(gaps, config.cql_alpha, params["log_multiplier"])
            metrics |= {"log_multiplier": params["log_multiplier"]}
        else:
            penalty_loss, multiplier_loss = config.cql_alpha * jnp.sum(jnp.stack(means)), jnp.zeros(())
        fixed = stop(params["critic"])
        actor_loss, actor_metrics = entropy_actor_loss(
            config,
            policy(params, batch.state, batch.goal),
            lambda action: critic.lower(fixed, batch.state, batch.goal, action),
            params["log_alpha"],
            actor_key,
        )
        metrics |= {
            "critic_loss": bellman_loss + penalty_loss,
            "bellman_loss": bellman_loss,
            "cql_penalty": jnp.mean(jnp.stack(means)),
        }
        return bellman_loss + penalty_loss + multiplier_loss + actor_loss, {**metrics, **actor_metrics}

    def update(agent, batch, key):
        target_key, key = jax.random.split(key)
        target = config.backup(batch, next_value(agent, batch, target_key))
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, batch, target, key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = optax.apply_updates(agent.params, steps)
        slow = optax.incremental_update(params["critic"], agent.target, config.tau)
        return CQLState(params, slow, optimizer_state), metrics

    act, mode = gaussian_policy(actor)
    return Agent(init, act, mode, update, critic.score(mode))


AGENTS.add("cql", Algorithm(CQLConfig, make, goals=False))
