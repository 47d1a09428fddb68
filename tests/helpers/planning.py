"""What tests of the planning agent share: golden values, a made-up batch, a small agent, a planner in the plane."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.agents import AGENTS
from goalax.agents.mppi import Plan
from goalax.agents.plans import Planner
from goalax.agents.tdmpc2 import TDMPC2Config
from goalax.core.types import Batch, Path
from tests.helpers import ROOT
from tests.helpers.offline import SPEC
from tests.helpers.rings import stored_steps

FOLDER = ROOT / "tests" / "golden" / "planning"
SMALL = {"encoder_dim": 8, "h_dim": 8, "latent_dim": 16, "num_q": 3, "num_samples": 16, "num_prior": 4}
SMALL |= {"num_elites": 4, "iterations": 2}


def golden(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


def small_batch(horizon=3, size=6, goal_size=2):
    path = Path(
        state=normal(0, size, horizon + 1, 5),
        action=jnp.tanh(normal(1, size, horizon, 3)),
        reward=normal(2, size, horizon) ** 2,
        discount=0.9 * (jnp.arange(size * horizon).reshape(size, horizon) % 4 > 0),
        stored=stored_steps(size, horizon),
        future_reward=(normal(3, size, horizon) > 0).astype(jnp.float32),
    )
    first = path.state[:, 0], path.action[:, 0], path.state[:, 1], normal(4, size, goal_size)
    rest = normal(5, size, 5), path.action[:, 0], path.reward[:, 0], path.future_reward[:, 0], path.discount[:, 0]
    return Batch(*first, *rest, path=path)


def agent_of(spec=SPEC, **flags):
    return AGENTS["tdmpc2"].make(TDMPC2Config(**{**SMALL, **flags}), spec)


def plane(horizon):
    """A planner in the plane, where z is the state: plans go right by 0.1, 0.2, ...; the prior goes up by 0.5."""

    def plan(agent, z, mean, key, explore):
        right = 0.1 * jnp.arange(1.0, horizon + 1).reshape(1, horizon, 1) * jnp.array([1.0, 0.0]).reshape(1, 1, 2)
        return Plan(jnp.tile(right, (z.shape[0], 1, 1)) + z[:, None] / 100, mean + 1)

    return Planner(
        horizon=horizon,
        action_size=2,
        latent_size=2,
        encode=lambda agent, state, goal: state,
        plan=plan,
        predict=lambda agent, z, action: z + 0.3 * action,
        prior=lambda agent, z: jnp.zeros_like(z) + jnp.array([0.0, 0.5])[None],
    )
