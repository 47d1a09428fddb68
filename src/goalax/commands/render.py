"""Shows an environment under random actions, or the policy of a run: writes an HTML page, a GIF or an MP4 video."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from goalax.core import rollout
from goalax.core.train import RUN_ONCE
from goalax.envs import ENVS, GoalEnv, create_env
from goalax.films import page, render, scene
from goalax.flags import FlagError, flag, parse
from goalax.host import behind, devices, given, loading
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError
from goalax.host.places import writable

SAVE = {".html": page.save, ".gif": render.save_gif, ".mp4": render.save_mp4}


@dataclasses.dataclass(frozen=True)
class RenderConfig(given.GivenFlags):
    """What to show, and where to."""

    env_name: str | None = flag(
        None, "environment, under uniformly random actions; with --run, another one to show its policy in", valid=ENVS
    )
    run: str | None = flag(None, "run directory: shows what its evaluation at the checkpoint saw")
    step: int | None = flag(None, "checkpoint, by its steps and updates on a dataset (default: the newest)", low=0)
    seed: int | None = flag(None, "draws other starts and goals", low=0, high=2**31 - 1)
    backend: str | None = flag(None, "physics engine of --env_name (default: per environment)")
    vis_length: int = flag(1000, "environment steps to show", low=1)
    episode_length: int | None = flag(None, "time limit in environment steps (default: per environment)", low=2)
    height: int = flag(360, "height of pictures in pixels, a multiple of 6; the width is 4/3 of it", low=120, high=2160)
    out: str | None = flag(
        None, "files to write, separated by commas: .html, .gif, .mp4 (default: .html, named after --env_name or --run)"
    )


def check(config: RenderConfig) -> list[Path]:
    """The files to write; FlagError if flags do not fit each other."""
    shown = config.env_name or config.run
    if shown is None:
        raise FlagError("--env_name or --run must say what to show.")
    for name in ("backend", "episode_length") if config.run else ("step",):
        if getattr(config, name) is not None:
            raise FlagError(f"--{name} {'comes from the run with' if config.run else 'means nothing without'} --run.")
    if config.height % 6:
        raise FlagError(f"--height is {config.height}; it must be a multiple of 6, so that the width is even too.")
    names = config.out.split(",") if config.out else [f"{Path(shown).resolve().name}.html"]
    return [writable("out", name, tuple(SAVE)) for name in names]


def random_policy(config: RenderConfig) -> tuple[GoalEnv, rollout.Recording, str]:
    """Environment, recording and caption of random actions."""
    assert config.env_name is not None  # as `check` requires
    devices.check()
    try:
        env = create_env(config.env_name, config.backend)
    except ValueError as error:
        if "Unsupported backend" in str(error):
            raise FlagError(f"--backend is {config.backend!r} with --env_name {config.env_name}: {error}") from None
        raise FlagError(f"--env_name is {config.env_name!r}: {error}") from None
    given.fix(env, *given.from_flags(env, config))
    length = config.episode_length or env.episode_length
    episodes = math.ceil(config.vis_length / length)

    def policy(observed, goal, key):
        return jax.random.uniform(key, (episodes, env.action_size), minval=-1.0)

    def record(key):
        sizes = {"num_envs": episodes, "episode_length": min(length, config.vis_length), "action_repeat": 1}
        return rollout.evaluate(env, rollout.memoryless(policy), key, **sizes, recorded=episodes)[1]

    key = jax.random.PRNGKey(config.seed or 0)
    record = jax.jit(record, compiler_options=RUN_ONCE | env.compiler_options)
    return env, record(key), f"{config.env_name}   random actions"


def trained_policy(config: RenderConfig) -> tuple[GoalEnv, rollout.Recording, str]:
    """Environment, recording and caption of a checkpoint, evaluated as training did."""
    assert config.run is not None  # or random actions are shown
    run, state = loading.load(Path(config.run), config.step, config.env_name, vis_length=config.vis_length)
    given.fix(run.eval_env, *given.from_flags(run.eval_env, config))
    if config.seed is not None:
        state = state._replace(key=jax.random.PRNGKey(config.seed))
    caption = f"{run.config.eval_env}   {run.config.agent}   {behind.in_words(run.config, state)}"
    evaluate = jax.jit(run.train.evaluate, compiler_options=run.train.compiler_options)
    return run.eval_env, evaluate(state)[1], caption


def start() -> None:
    """What it does first where it is a program of its own."""
    enable_compilation_cache()


def main(argv: Sequence[str], prog: str = "render.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Shows an environment or the policy of a run."
        (config,) = parse(argv, RenderConfig(), others={}, prog=prog, description=description)
        paths = check(config)
        env, recording, caption = (trained_policy if config.run else random_policy)(config)
        film = scene.film(env, jax.device_get(recording), config.vis_length, caption)
        for path in paths:
            options = {} if path.suffix == ".html" else {"size": (config.height, config.height * 4 // 3)}
            try:
                SAVE[path.suffix](env, film, path, **options)
            except OSError as error:
                raise FlagError(f"--out names {path}, which cannot be written: {error.strerror or error}") from None
            print(path)
    except (FlagError, NoCheckpointError, scene.RenderError) as error:
        print(f"{prog}: {str(error).rstrip('.')}.", file=sys.stderr)
        return 2
    return 0
