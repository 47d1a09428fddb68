"""What SAC and TD3 share: flags, twin critics and their regression, hindsight goals."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.base import HindsightConfig, NetworkConfig, PolicyConfig
from goalax.core.sizes import samples_of
from goalax.core.types import Array, Batch, Spec
from goalax.flags import FlagError, flag


@dataclasses.dataclass(frozen=True)
class RelabelConfig(HindsightConfig):
    """Goals that were achieved later, for some of the commanded ones."""

    use_her: bool = flag(False, "hindsight experience replay: learn from goals that were achieved later, too")
    # Four hindsight goals for a commanded one: arXiv 1707.01495, section 4.5.
    her_ratio: float = flag(0.8, "with --use_her, share of goals replaced by achieved ones", low=0, high=1)

    def check_reward(self, spec: Spec) -> None:
        """FlagError if relabelled rewards would be of another kind than those of the environment."""
        if not self.use_her:
            self.require_unset(["her_ratio", "her_strategy"], "without --use_her")
        elif self.her_ratio == 0:
            self.require_unset(["her_strategy"], "with --her_ratio 0")
        if self.use_her and spec.goal_size == 0:
            raise FlagError("--use_her learns from achieved goals, and the environment has none: leave it out.")
        if self.use_her and spec.dense_reward:
            raise FlagError("--use_her rewards success at the achieved goal; it must come without --dense_reward.")
        if self.use_her and spec.action_repeat > 1:  # states between the first and the last step are not stored
            raise FlagError(
                f"--use_her cannot count the steps at an achieved goal within --action_repeat {spec.action_repeat};"
                " it must come with --action_repeat 1."
            )


@dataclasses.dataclass(frozen=True)
class QConfig(RelabelConfig, PolicyConfig):
    """Learning rates and tau of SAC (arXiv 1812.05905, appendix D); TD3 has the same tau (arXiv 1802.09477, 6.1)."""

    critic_lr: float = flag(3e-4, "learning rate of the critics", above=0)
    tau: float = flag(0.005, "how far a target network moves towards its network in one update", above=0, high=1)
    reward_scaling: float = flag(1.0, "factor of all rewards", above=0)

    def hindsight(self, batch: Batch, spec: Spec) -> Batch:
        """The batch with its first goals replaced by achieved ones, and the rewards of these; without HER, as it is.

        Samples of a batch are independent, so it does not matter which ones are relabelled.
        """
        if not self.use_her:
            return batch
        count = samples_of(self.her_ratio, len(batch.goal))
        return batch._replace(
            goal=jnp.concatenate([spec.goal_of(batch.future_state)[:count], batch.goal[count:]]),
            reward=jnp.concatenate([batch.future_reward[:count], batch.reward[count:]]),
        )


class TwinCritic(NamedTuple):
    """Two networks Q(state, goal, action) of equal shape; their parameters are a list of two."""

    config: NetworkConfig
    spec: Spec

    def init(self, key: Array) -> list[dict]:
        inputs = jnp.zeros(self.spec.state_size + self.spec.goal_size + self.spec.action_size)
        return [self.config.mlp(1).init(one, inputs) for one in jax.random.split(key)]

    # Networks one after the other, not vmapped: XLA's batched products are several times slower on CPUs.
    def values(self, params: list[dict], state: Array, goal: Array, action: Array) -> list[Array]:
        """[B, S], [B, G], [B, A] -> the value [B] of each network."""
        inputs = jnp.concatenate([state, goal, action], axis=-1)
        return [self.config.mlp(1).apply(one, inputs)[..., 0] for one in params]

    def lower(self, params: list[dict], state: Array, goal: Array, action: Array) -> Array:
        """The lower one of both values, [B]."""
        return jnp.minimum(*self.values(params, state, goal, action))

    def loss(self, params: list[dict], batch: Batch, target: Array) -> tuple[Array, dict[str, Array]]:
        """Squared errors to a target [B], summed over both networks, mean over the batch, []; and metrics.

        arXiv 1802.09477, algorithm 1; arXiv 1812.05905, equation 5 (there halved).
        """
        values = self.values(params, batch.state, batch.goal, batch.action)
        first, second = (jnp.mean((value - target) ** 2) for value in values)
        loss = first + second
        return loss, {"critic_loss": loss, "q": jnp.mean(values[0]), "q_target": jnp.mean(target)}

    def score(self, mode: Callable) -> Callable:
        """`score` of an Agent with that `mode`, whose state holds the parameters as params["critic"]."""

        def score(agent, state, future_state):
            goal = self.spec.goal_of(future_state)
            return self.lower(agent.params["critic"], state, goal, mode(agent, state, goal))

        return score


def bellman_target(batch: Batch, next_value: Array, reward_scaling: float) -> Array:
    """Scaled reward + discount * next value, [B]; the discount is 0 after a true termination, not at a time limit."""
    return reward_scaling * batch.reward + batch.discount * next_value
