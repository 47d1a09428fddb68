"""PPO: proximal policy optimization (arXiv 1707.06347), the on-policy baseline, trained by Brax (agents/brax)."""

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.brax.flags import PPOConfig
from goalax.core.sizes import Sizes
from goalax.core.train import Train
from goalax.core.types import Env, Spec


def train(
    env: Env, eval_env: Env, spec: Spec, sizes: Sizes, config: PPOConfig, normalize: bool, num_seeds: int
) -> tuple[Sizes, Train]:
    from goalax.agents.brax.trainer import make_ppo  # here, because importing Brax's trainer makes a start slower

    return make_ppo(env, eval_env, spec, sizes, config, normalize, num_seeds)


# Brax's trainer is given a device.
AGENTS.add("ppo", Algorithm(PPOConfig, train=train, unused=("replay", "devices"), goals=False))
