"""What agents share that learn values of goals by expectiles: flags, networks, rewards of goals, the value loss."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import CriticGoalConfig, NoisyConfig, shares_of_goals
from goalax.agents.extraction import GeluConfig, expectile
from goalax.core.relabel import RELABEL, law_of
from goalax.core.types import AgentState, Array, Batch, Metrics, Needs, Spec
from goalax.flags import flag
from goalax.learning.networks import Network


@dataclasses.dataclass(frozen=True)
class GoalValueConfig(CriticGoalConfig, GeluConfig, NoisyConfig):
    """Networks, rates and shares of goals of OGBench (arXiv 2410.20092), whose batches have 1,024 samples.

    Goals are those of `Needs`: here the last state of an episode is one, too, and the ends of the uniform law are as
    likely as the rest.
    """

    h_dim: int = flag(512, "width of hidden layers", low=1, most=1_000_000)
    n_hidden: int = flag(3, "hidden layers", low=1, most=10_000)
    use_ln: bool = flag(True, "LayerNorm after every activation of critics; actors have none")
    use_relu: bool = flag(False, "ReLU in place of GELU (with --depth: of swish)")
    critic_lr: float = flag(3e-4, "learning rate of the values", above=0)
    tau: float = flag(0.005, "how far a target network moves towards its network in one update", above=0, high=1)
    expectile: float = flag(0.9, "expectile of the values: 0.5 is the mean, 1 the largest", above=0, below=1)
    relabel: str = flag("clipped", "law of the steps ahead at which goals of values lie", valid=RELABEL)
    current_goals: float = flag(0.2, "share of goals of values that are the state itself", low=0, high=1)
    any_goals: float = flag(0.3, "share of goals of values that are any stored state", low=0, high=1)
    actor_relabel: str = flag("uniform", "law of the steps ahead at which the actor's goals lie", valid=RELABEL)
    actor_any_goals: float = flag(0.0, "share of the actor's goals that are any stored state", low=0, high=1)

    def needs(self, spec: Spec) -> Needs:
        """What these flags ask of the buffer. FlagError if shares of goals are more than all, or leave a law none."""
        if self.actor_any_goals > 1 - 1e-6:
            self.require_unset(["actor_relabel"], "with --actor_any_goals 1, which are all")
        return Needs(
            goals=shares_of_goals(self),
            law=law_of(self.relabel, spec.discounting),
            actor_goals=(1 - self.actor_any_goals, 0.0, self.actor_any_goals),
            actor_law=law_of(self.actor_relabel, spec.discounting),
            same=True,
        )


class GoalValueState(NamedTuple):
    params: dict  # actor, critic
    target: Any  # slow parameters of a part of the critic
    optimizer: optax.OptState


class Pair(NamedTuple):
    """Two networks of equal shape with one output each; their parameters are a list of two."""

    network: Network[Array]

    def init(self, key: Array, size: int) -> list[Any]:
        return [self.network.init(one, jnp.zeros(size)) for one in jax.random.split(key)]

    # Networks one after the other, not vmapped: XLA's batched products are several times slower on CPUs.
    def values(self, params: list[Any], *inputs: Array) -> Array:
        """Of inputs [B, .], side by side: [2, B]."""
        joint = jnp.concatenate(inputs, axis=-1)
        return jnp.stack([self.network.apply(one, joint)[..., 0] for one in params])


def goal_reward(batch: Batch, discounting: float) -> tuple[Array, Array]:
    """Reward and discount [B] of the goal future_state: -1 and gamma a step, 0 and 0 where it is the sample itself.

    So the value of a goal d steps away is -(1 - gamma^d) / (1 - gamma). Where an action ended the episode for good
    outside of the goal's radius, no later step reaches it: -1 / (1 - gamma); inside it is one step away. (The files of
    OGBench have no such ends.)

    Source: arXiv 2410.20092, "gc_negative".
    """
    assert batch.same is not None  # `GoalValueConfig.needs` asks for it
    lost = (batch.discount == 0) & (batch.future_reward == 0) & (batch.same == 0)
    lost &= jnp.any(batch.next_state != batch.future_state, axis=-1)  # where no radius says what is at a goal
    reward = jnp.where(lost, -1 / (1 - discounting), batch.same - 1)
    return reward, jnp.where(batch.discount == 0, 0.0, discounting * (1 - batch.same))


def value_after(batch: Batch, goal_state: Array, value: Array, discounting: float) -> Array:
    """What actors take for the value [B] of next_state: `value`, but where the action ended the episode for good
    in another state than that of the goal, where no back-up ever teaches values, as for a goal out of reach."""
    elsewhere = jnp.any(batch.next_state != goal_state, axis=-1)
    return jnp.where((batch.discount == 0) & elsewhere, -1 / (1 - discounting), value)


def value_loss(
    values: Array, slow: Array, slow_next: Array, reward: Array, discount: Array, share: float
) -> tuple[Array, Array]:
    """Expectile regression of two values to their own back-ups, [], and the advantages [B] that weigh it.

    Args:
      values: [2, B] of both networks.
      slow, slow_next: [2, B] of their target networks, in state and next_state.
      reward, discount: [B].
      share: the expectile.

    Source: HIQL, arXiv 2307.11949, equation 4; the advantage takes the lower one of both next values.
    """
    slow, slow_next = jax.lax.stop_gradient((slow, slow_next))
    advantage = reward + discount * jnp.min(slow_next, axis=0) - jnp.mean(slow, axis=0)
    targets = reward[None] + discount[None] * slow_next
    losses = [expectile(advantage, target - value, share) for target, value in zip(targets, values, strict=True)]
    return jnp.sum(jnp.stack(losses)), advantage


# (parameters, target, batch) -> loss [], metrics
Losses = Callable[[dict, Any, Batch], tuple[Array, Metrics]]


def learner(config: GoalValueConfig, losses: Losses, slow_part: Callable[[dict], Any]) -> tuple[Callable, Callable]:
    """Two functions: fresh parameters -> state, and the `update` of an Agent with such states.

    Args:
      slow_part: parameters -> those of which `GoalValueState.target` is a slow copy.
    """
    adam = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}
    optimizer = optax.partition(adam, {name: name for name in adam})

    def start(params: dict) -> GoalValueState:
        return GoalValueState(params, slow_part(params), optimizer.init(params))

    def update(agent: GoalValueState, batch: Batch, key: Array) -> tuple[AgentState, Metrics]:
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, agent.target, batch)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = optax.apply_updates(agent.params, steps)
        slow = optax.incremental_update(slow_part(params), agent.target, config.tau)
        return GoalValueState(params, slow, optimizer_state), metrics

    return start, update
