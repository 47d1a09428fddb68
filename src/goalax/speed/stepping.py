"""Measures stepping alone: an environment, and Brax's own with the same body beside it."""

import dataclasses
import warnings
from typing import Any

import jax

from goalax.host.make import Run, make_run
from goalax.speed.benchmark import BenchmarkFlags, Part, env_only, loop, rate, spread

BRAX_NAMES = {  # of the same bodies, in the same surroundings
    "reacher": "reacher",
    "cheetah": "halfcheetah",
    "pusher_easy": "pusher",
    "pusher_hard": "pusher",
    "pusher_reacher": "pusher",
    "ant": "ant",
    "ant_random_start": "ant",
    "humanoid": "humanoid",
}


def brax_only(run: Run, key: jax.Array) -> Part:
    """As env_only, in Brax's own environment with the same body, and with Brax's wrappers and data collection."""
    from brax.envs import get_environment
    from brax.envs.wrappers import training
    from brax.training import acting

    sizes = run.sizes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that its engines are in maintenance
        env = get_environment(BRAX_NAMES[run.config.env_name], backend=run.env.backend, n_frames=run.env._n_frames)
    env = training.wrap(env, sizes.episode_length, sizes.action_repeat)

    def policy(observed, key):
        return jax.random.uniform(key, (sizes.num_envs, env.action_size), minval=-1.0), {}

    def unroll(state, key):
        return acting.generate_unroll(env, state, policy, key, sizes.unroll_length)

    return loop(run, unroll, jax.jit(env.reset)(jax.random.split(key, sizes.num_envs)), key, sizes.steps_per_unroll)


def measure_env(config: BenchmarkFlags, agent_config: Any, name: str, num_envs: int) -> dict[str, Any]:
    """Steps per second of one environment, of Brax's own where there is one, and their ratio, in turns."""
    run = make_run(dataclasses.replace(config, env_name=name, num_envs=num_envs, num_seeds=1), agent_config)
    key = jax.random.PRNGKey(config.seed)
    measured = {"steps": env_only, "brax": brax_only} if name in BRAX_NAMES else {"steps": env_only}
    parts = {part: make(run, key) for part, make in measured.items()}
    for part in parts.values():
        part.run(1)
    samples = [{part: rate(parts[part], config.seconds) for part in parts} for _ in range(config.repeats)]
    rates = {part: spread([one[part] for one in samples]) for part in parts}
    if "brax" in parts:
        rates["ratio"] = spread([one["steps"] / one["brax"] for one in samples])
    return {"env_name": name, "backend": run.config.backend, "num_envs": num_envs, **rates}
