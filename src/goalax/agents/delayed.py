"""What TD3 and its offline kin share: twin critics whose actor and target networks move in every few updates only."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import AgentConfig
from goalax.agents.q_learning import TwinCritic
from goalax.core.branch import together
from goalax.core.types import Array, Batch, Metrics
from goalax.flags import flag
from goalax.learning.networks import Network


@dataclasses.dataclass(frozen=True)
class DelayedFlags(AgentConfig):
    """Rates, delay and smoothing of TD3 (arXiv 1802.09477, section 6.1)."""

    policy_lr: float = flag(1e-3, "learning rate of the actor", above=0)
    critic_lr: float = flag(1e-3, "learning rate of the critics", above=0)
    policy_delay: int = flag(2, "updates of the critics per update of the actor and of the target networks", low=1)
    target_noise: float = flag(0.2, "standard deviation of the noise on actions of the target policy", low=0)
    noise_clip: float = flag(0.5, "largest noise on actions of the target policy", low=0)


def require_noise(config: AgentConfig, deviation: str = "target_noise", limit: str = "noise_clip") -> None:
    """FlagError if one of two flags of a noise is set beside the other one that leaves none."""
    if getattr(config, deviation) == 0:
        config.require_unset([limit], f"with --{deviation} 0")
    elif getattr(config, limit) == 0:
        config.require_unset([deviation], f"with --{limit} 0")


class DelayedState(NamedTuple):
    params: dict  # actor, critic
    target: dict  # slow parameters of both
    optimizer: dict  # of each
    updates: Array  # [] int32
    actor_loss: Array  # [] at the newest update of the actor


def all_due(policy_delay: int, agent: Any) -> Any:
    """The state of an agent that counts its updates, where the next one is of all its networks."""
    return agent._replace(updates=agent.updates - agent.updates % policy_delay + policy_delay - 1)


def smoothed(action: Array, noise: Array, deviation: float, limit: float) -> Array:
    """Actions [B, A] with clipped noise, from standard normal numbers [B, A] (arXiv 1802.09477, equation 14)."""
    return jnp.clip(action + jnp.clip(deviation * noise, -limit, limit), -1, 1)


def delayed(
    config: Any,
    actor: Network[Array],
    critic: TwinCritic,
    backup: Callable[[dict, Batch, Array], Array],
    actor_loss: Callable[[dict, list[dict], Batch], Array],
) -> tuple[Callable, Callable]:
    """`init` and `update` of an Agent.

    Args:
      config: has `DelayedFlags` and tau.
      backup: (target, batch, key) -> what the critics are regressed to, [B].
      actor_loss: (parameters of the actor, of the critics, batch) -> loss of the actor, [].
    """
    require_noise(config)
    adam = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}
    spec = critic.spec

    def init(key: Array) -> DelayedState:
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(critic_key),
        }
        optimizer = {name: adam[name].init(params[name]) for name in adam}
        return DelayedState(params, params, optimizer, jnp.zeros((), jnp.int32), jnp.zeros(()))

    def descend(agent: DelayedState, name: str, gradients: Any) -> DelayedState:
        """The agent after one step of Adam of the network `name`."""
        steps, optimizer_state = adam[name].update(gradients, agent.optimizer[name])
        params = {**agent.params, name: optax.apply_updates(agent.params[name], steps)}
        return agent._replace(params=params, optimizer={**agent.optimizer, name: optimizer_state})

    def improve(agent: DelayedState, batch: Batch) -> DelayedState:
        """The agent after an update of the actor and of the target networks."""
        loss, gradients = jax.value_and_grad(actor_loss)(agent.params["actor"], agent.params["critic"], batch)
        agent = descend(agent, "actor", gradients)
        slow = optax.incremental_update(agent.params, agent.target, config.tau)
        return agent._replace(target=slow, actor_loss=loss)

    def update(agent: DelayedState, batch: Batch, key: Array) -> tuple[DelayedState, Metrics]:
        gradients, metrics = jax.grad(critic.loss, has_aux=True)(
            agent.params["critic"], batch, backup(agent.target, batch, key)
        )
        agent = descend(agent, "critic", gradients)._replace(updates=agent.updates + 1)
        due = agent.updates % config.policy_delay == 0
        agent = together(due, improve, lambda agent, batch: agent, agent, batch)
        return agent, {**metrics, "actor_loss": agent.actor_loss}

    return init, update
