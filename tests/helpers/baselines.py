"""What tests of SAC, TD3 and GCBC share: agents and a made-up batch."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.agents import AGENTS
from goalax.core.types import Batch, Spec

SPEC = Spec(state_size=3, goal_size=2, action_size=2, goal_indices=(0, 2), discounting=0.9, goal_reach_thresh=0.5)
SIZE, GAMMA = 10, 0.9
Q_AGENTS = ("sac", "td3")


def make(name, spec=SPEC, **flags):
    return AGENTS[name].make(AGENTS[name].config(**flags), spec)


def made_up_batch():
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal((SIZE, *shape)).astype(np.float32)  # noqa: E731
    values = Batch(
        state=normal(3),
        action=np.tanh(normal(2)),
        next_state=normal(3),
        goal=normal(2),
        future_state=normal(3),
        future_action=np.tanh(normal(2)),
        reward=normal(),
        future_reward=rng.integers(0, 2, SIZE).astype(np.float32),
        discount=np.where(np.arange(SIZE) % 3 == 0, 0, GAMMA).astype(np.float32),  # every third one terminated
    )
    return jax.tree.map(jnp.asarray, values)
