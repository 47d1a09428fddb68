"""PPO: proximal policy optimization (arXiv 1707.06347), the on-policy baseline, trained by Brax (agents/brax)."""

import dataclasses

from goalax.flags import flag


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Arguments of Brax's trainer by its own names, and what the policy and the value network look like.

    A learning phase takes the num_envs * unroll_length actions since the one before, in num_minibatches parts,
    num_updates_per_batch times. Learning rate, gae_lambda and clipping_epsilon are those of the paper (table 3; Brax
    clips at 0.3), num_minibatches is Brax's default.
    """

    h_dim: int = flag(256, "width of hidden layers (swish)", low=1, most=1_000_000)
    n_hidden: int = flag(2, "hidden layers", low=1, most=10_000)
    learning_rate: float = flag(3e-4, "learning rate of policy and value", above=0)
    num_minibatches: int = flag(16, "gradient updates per pass over a learning phase; must divide num_envs", low=1)
    num_updates_per_batch: int = flag(4, "passes over the data of a learning phase", low=1, most=1_000_000)
    gae_lambda: float = flag(0.95, "lambda of generalized advantage estimation (arXiv 1506.02438)", low=0, high=1)
    clipping_epsilon: float = flag(0.2, "how far the ratio of new and old probability may pay, around 1", above=0)
    entropy_cost: float = flag(1e-2, "weight of the entropy bonus", low=0)
    reward_scaling: float = flag(1.0, "factor of all rewards", above=0)
