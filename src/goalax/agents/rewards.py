"""What agents share that learn from the rewards of a dataset: flags, networks, back-ups. A goal, where the environment
has one, is an input like the state: the commanded one, with the rewards for it."""

import dataclasses

from goalax.agents.extraction import ACTOR_SCALE, GeluConfig
from goalax.core.types import Array, Batch
from goalax.flags import flag
from goalax.learning.networks import Network


@dataclasses.dataclass(frozen=True)
class RewardFlags(GeluConfig):
    """What needs no target networks."""

    n_hidden: int = flag(3, "hidden layers", low=1, most=10_000)
    use_ln: bool = flag(True, "LayerNorm after every activation of critics; actors have none")
    use_relu: bool = flag(True, "ReLU; without it, GELU (with --depth: swish)")
    skip_connections: int = flag(0, "a residual connection every so many hidden layers; 0: none", low=0)
    critic_lr: float = flag(3e-4, "learning rate of the critics", above=0)
    reward_scaling: float = flag(1.0, "factor of all rewards", above=0)
    reward_shift: float = flag(0.0, "what is added to all rewards before they are scaled")

    def actor_mlp(self, outputs: int) -> Network[Array]:
        """The same for an actor: without LayerNorm, its first actions small."""
        return self.mlp(outputs, use_ln=False, last_scale=ACTOR_SCALE)

    def backup(self, batch: Batch, next_value: Array) -> Array:
        """Scaled reward + discount * next value, [B]; the discount is 0 after a true termination, not at a time limit.

        Rewards of 1 that never end are worth 1 / (1 - gamma), 100 with gamma 0.99; scaled by 1 - gamma, values are of
        the size of rewards.
        """
        return self.rewards(batch) + batch.discount * next_value

    def rewards(self, batch: Batch) -> Array:
        """Scaled, [B]."""
        return self.reward_scaling * (batch.reward + self.reward_shift)


@dataclasses.dataclass(frozen=True)
class RewardConfig(RewardFlags):
    tau: float = flag(0.005, "how far a target network moves towards its network in one update", above=0, high=1)
