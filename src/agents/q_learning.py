"""What SAC and TD3 share: flags, twin critics and their regression, slow targets, hindsight goals."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from src.agents.base import NetworkConfig, PolicyConfig
from src.flags import FlagError, flag
from src.types import Array, Batch, Spec

STRATEGIES = {"uniform": 1.0, "goal_law": None}  # -> Agent.goal_discounting


@dataclasses.dataclass(frozen=True)
class QConfig(PolicyConfig):
    """Learning rates and tau of SAC (arXiv 1812.05905, appendix D); the same tau in TD3 (arXiv 1802.09477, 6.1)."""

    critic_lr: float = flag(3e-4, "learning rate of the critics", above=0)
    tau: float = flag(0.005, "how far a target network moves towards its network in one update", above=0, high=1)
    reward_scaling: float = flag(1.0, "factor of all rewards", above=0)
    use_her: bool = flag(False, "hindsight experience replay: learn from goals that were achieved later, too")
    # Four hindsight goals for a commanded one, uniform over the rest of the episode: arXiv 1707.01495, section 4.5.
    her_ratio: float = flag(0.8, "with --use_her, share of goals replaced by achieved ones", low=0, high=1)
    her_strategy: str = flag("uniform", "with --use_her, law of the time at which a goal is achieved", valid=STRATEGIES)

    @property
    def goal_discounting(self) -> float | None:
        return STRATEGIES[self.her_strategy] if self.use_her else None

    def hindsight(self, batch: Batch, spec: Spec) -> Batch:
        """The batch with its first goals replaced by achieved ones, and the rewards of these; without HER, as it is.

        Samples of a batch are independent, so it does not matter which ones are relabelled.
        """
        if not self.use_her:
            return batch
        count = round(self.her_ratio * batch.reward.shape[0])
        achieved = batch.future_state[:, jnp.array(spec.goal_indices)]
        return batch._replace(
            goal=jnp.concatenate([achieved[:count], batch.goal[count:]]),
            reward=jnp.concatenate([batch.future_reward[:count], batch.reward[count:]]),
        )

    def check_reward(self, spec: Spec) -> None:
        if self.use_her and spec.dense_reward:
            raise FlagError("--use_her rewards success at the achieved goal; it must come without --dense_reward.")


class TwinCritic(NamedTuple):
    """Two networks Q(state, goal, action) of equal shape and different parameters, the parameters stacked."""

    config: NetworkConfig
    spec: Spec

    def init(self, key: Array) -> dict:
        inputs = jnp.zeros(self.spec.state_size + self.spec.goal_size + self.spec.action_size)
        return jax.vmap(self.config.mlp(1).init, in_axes=(0, None))(jax.random.split(key), inputs)

    def __call__(self, params: dict, state: Array, goal: Array, action: Array) -> Array:
        """[B, S], [B, G], [B, A] -> both values, [2, B]."""
        inputs = jnp.concatenate([state, goal, action], axis=-1)
        return jax.vmap(self.config.mlp(1).apply, in_axes=(0, None))(params, inputs)[..., 0]


def bellman_target(batch: Batch, next_value: Array, reward_scaling: float) -> Array:
    """Scaled reward + discount * next value, [B]; the discount is 0 after a true termination, not at a time limit."""
    return reward_scaling * batch.reward + batch.discount * next_value


def critic_loss(values: Array, target: Array) -> tuple[Array, dict[str, Array]]:
    """Squared errors of both critics [2, B] to one target [B], summed over critics, mean over the batch; and metrics.

    arXiv 1802.09477, algorithm 1; arXiv 1812.05905, equation 5 (there halved).
    """
    loss = jnp.mean(jnp.sum((values - target[None]) ** 2, axis=0))
    return loss, {"critic_loss": loss, "q": jnp.mean(values), "q_target": jnp.mean(target)}
