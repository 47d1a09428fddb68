"""Correctors of speculative execution: collects what they learn from, trains one, and evaluates it beside others."""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from goalax.agents.correctors import ARCHITECTURES, Corrector, blank, network_of
from goalax.agents.distillation import acting, collect, distil, distillation_loss, histories
from goalax.agents.speculation import Speculation
from goalax.core import rollout
from goalax.flags import FlagError, flag, parse
from goalax.host import corrector_files as files
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError
from goalax.host.places import writable
from goalax.host.planning_run import OfRun, Trained

TEACHERS = ("action", "mean")
HELD_OUT = 0.1  # of the episodes that were collected, on which a corrector is measured


@dataclasses.dataclass(frozen=True)
class CollectConfig(OfRun):
    """What to collect."""

    out: str = flag("", "npz file to write")
    teacher: str = flag(
        "mean",
        "what is learned: the mean of the search for a new plan, or the action that it begins with",
        valid=TEACHERS,
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What to learn from, and how."""

    data: str = flag("", "npz file that `collect` wrote")
    out: str = flag("", "npz file to write")
    architecture: str = flag(
        "two_tower", "what it sees: the decision at hand, or the last ones too", valid=tuple(ARCHITECTURES)
    )
    history: int = flag(
        4, "with --architecture temporal, the decisions that it sees", low=1, high=files.MOST["history"]
    )
    width: int = flag(256, "width of its layers", low=1, high=files.MOST["width"])
    epochs: int = flag(50, "times that it sees all samples; the best on what is held out is kept", low=1, high=100_000)
    batch_size: int = flag(256, "samples of an update", low=1, high=1_000_000)
    learning_rate: float = flag(3e-4, "of Adam", above=0)
    regularization: float = flag(0.0, "weight of the squared change of an action", low=0)
    seed: int = flag(0, "draws its first parameters and the order of samples", low=0, high=2**31 - 1)

    def steps(self) -> int:
        """Decisions that it sees. FlagError for a history of what sees none."""
        if self.architecture == "temporal":
            return self.history
        if self.history != self.__dataclass_fields__["history"].default:
            raise FlagError(
                f"--history is {self.history}; it means nothing with --architecture {self.architecture}: leave it out."
            )
        return 1


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(OfRun):
    """What to evaluate."""

    seed: int = flag(1, "draws starts and goals: others than those that it learned from", low=0, high=2**31 - 1)
    corrector: str | None = flag(None, "npz file that `train` wrote; without one, there is no row of it")
    replans: float = flag(
        1.0, "share of the episodes that may get a new plan at one decision, where plans are followed", above=0, high=1
    )


def collect_samples(argv: Sequence[str], prog: str) -> None:
    """Writes z, expected, action, teacher [R, ...], episode [R] and which are by old plans, old [R], of decisions."""
    description = "Follows the plans of a run, and writes what new plans would have done."
    (config,) = parse(argv, CollectConfig(), others={}, prog=prog, description=description)
    out = writable("out", config.out, (".npz",))
    trained = Trained(config)

    def gather(key: Any) -> Any:
        sizes = {"num_envs": config.episodes, "decisions": trained.decisions}
        return collect(
            trained.run.eval_env,
            trained.planner,
            trained.rules,
            trained.agent,
            trained.inputs,
            key,
            **sizes,
            action_repeat=trained.run.config.action_repeat,
            smooth=config.teacher == "mean",
        )

    key = jax.random.PRNGKey(config.seed)
    options = trained.run.train.compiler_options
    decisions, made, old = jax.device_get(jax.jit(gather, compiler_options=options)(key))
    files.write_decisions(out, decisions, made, old, trained.origin(config.teacher, config.seed))
    print(f"{out}: {int(old.sum()):,} samples of {int(made.sum()):,} decisions in {config.episodes:,} episodes")


def train_corrector(argv: Sequence[str], prog: str) -> None:
    """Writes the parameters of a corrector, and says how near it is to the teacher on episodes that it has not seen."""
    description = "Trains a corrector on what `collect` wrote."
    (config,) = parse(argv, TrainConfig(), others={}, prog=prog, description=description)
    out = writable("out", config.out, (".npz",))
    path = files.there("data", config.data)
    if os.path.realpath(out) == os.path.realpath(path):
        raise FlagError(f"--out is {config.out!r}, the file of --data; it must be another one.")
    steps, network = config.steps(), network_of(config.architecture, config.width)
    decisions, train, test, origin = files.read_decisions(path, steps, HELD_OUT)
    if len(train.row) < config.batch_size:
        raise FlagError(
            f"--batch_size is {config.batch_size}; {path} has {len(train.row)} samples to learn from, beside those of"
            " the episodes that are held out."
        )
    init_key, order_key = jax.random.split(jax.random.PRNGKey(config.seed))
    params = network.init(init_key, *blank(1, steps, decisions.z.shape[1], decisions.action.shape[1]))

    def learn(params: Any, key: Any) -> Any:
        return distil(
            network,
            params,
            decisions,
            train,
            key,
            steps=steps,
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            regularization=config.regularization,
            held_out=test if len(test.row) else None,
        )

    learned, errors, beyond = jax.jit(learn)(params, order_key)
    size = files.write_corrector(out, learned, config.architecture, config.width, steps, origin)
    print(f"squared error to new plans: {errors[0]:.4g} in the first epoch, {errors[-1]:.4g} in the last")
    if len(test.row):
        seen, teacher = histories(decisions, test, steps), decisions.teacher[test.row]
        of_plans = f"{float(distillation_loss(network, params, seen, teacher, 0.0)[1]):.4g} of the plans themselves"
        best = f"{np.nanmin(beyond):.4g} behind epoch {np.nanargmin(beyond) + 1}, the best and so the one that is kept"
        print(f"on {len(test.row):,} samples of episodes held out: {best}, and {of_plans}")
    else:
        print("on episodes held out: unknown, for no plan was followed in them; the last epoch is kept")
    print(f"{out}: a corrector of {size:,} parameters")


def played(trained: Trained, rules: Speculation, corrector: Corrector | None, config: EvaluateConfig) -> dict[str, Any]:
    """Metrics of an evaluation, and decisions per second of all its episodes together, compilation apart."""
    run = trained.run
    policy = acting(trained.planner, rules, trained.agent, trained.inputs, corrector)
    flags = run.config

    def evaluation(key: Any) -> Any:
        lengths = {"episode_length": flags.episode_length, "action_repeat": flags.action_repeat}
        metrics, _, outcomes = rollout.evaluate(run.eval_env, policy, key, num_envs=config.episodes, **lengths)
        assert outcomes.reward is not None
        return {**metrics, "median_reward": jnp.median(outcomes.reward), "worst_reward": jnp.min(outcomes.reward)}

    key = jax.random.PRNGKey(config.seed)
    ready = jax.jit(evaluation, compiler_options=run.train.compiler_options).lower(key).compile()
    began = time.perf_counter()
    metrics = jax.device_get(ready(key))
    seconds = time.perf_counter() - began
    return {**metrics, "decisions_per_second": config.episodes * trained.decisions / seconds}


def words(origin: files.Origin) -> str:
    """Of which decisions."""
    rules = f"--exec_horizon {origin.exec_horizon} --mismatch {origin.mismatch:g}"
    return f"{origin.run} at {origin.steps:,} steps with {rules}"


COLUMNS = {
    "episode_reward": "return",
    "median_reward": "median",
    "worst_reward": "worst",
    "time_at_goal": "time at goal",
    "plans_per_decision": "plans per decision",
    "corrected_per_decision": "corrected per decision",
    "decisions_per_second": "decisions per second",
}


def evaluate_corrector(argv: Sequence[str], prog: str) -> None:
    """Prints a table of the same episodes by new plans only, by plans that are followed, and by corrected ones."""
    description = "Plays the same episodes with new plans only, with plans that are followed, and corrected."
    (config,) = parse(argv, EvaluateConfig(), others={}, prog=prog, description=description)
    path = None if config.corrector is None else files.there("corrector", config.corrector)
    trained = Trained(config)
    corrector, origin = (None, None) if path is None else files.read_corrector(path, trained.planner)
    if origin is not None and origin != (here := trained.origin(origin.teacher, origin.seed)):
        print(f"{prog}: note: the corrector learned from {words(origin)}; this is {words(here)}.", file=sys.stderr)
    if origin is not None and origin.seed == config.seed:
        note = f"the corrector learned from episodes of --seed {config.seed}, which in the same environment are these"
        print(f"{prog}: note: {note}.", file=sys.stderr)
    if config.replans < 1 and trained.rules._replace(replans=config.replans).room(config.episodes) == config.episodes:
        note = f"--replans is {config.replans:g}, which is room for all of {config.episodes} --episodes"
        print(f"{prog}: note: {note}.", file=sys.stderr)
    ways: list[tuple[str, Speculation, Corrector | None]] = [
        ("new ones only", trained.rules._replace(exec_horizon=1), None),
        ("followed", following := trained.rules._replace(replans=config.replans), None),
    ]
    if corrector is not None:
        ways.append(("corrected", following, corrector))
    results = {name: played(trained, rules, each, config) for name, rules, each in ways}
    names = [name for name in COLUMNS if name in next(iter(results.values()))]
    table = Table("plans", *(COLUMNS[name] for name in names))
    for name, metrics in results.items():
        table.add_row(name, *(f"{float(metrics[column]):.3f}" for column in names))
    Console(highlight=False, width=120).print(table)


ACTIONS = {"collect": collect_samples, "train": train_corrector, "evaluate": evaluate_corrector}


def start() -> None:
    """What it does first where it is a program of its own."""
    enable_compilation_cache()


def main(argv: Sequence[str], prog: str = "correct.py") -> int:
    """Runs a command line, whose first word says what to do; returns the exit code."""
    usage = f"usage: {prog} {{{','.join(ACTIONS)}}} [--help] ..."
    if argv and argv[0] in ("-h", "--help"):
        print(usage)
        return 0
    try:
        if not argv or argv[0] not in ACTIONS:
            given = f"not {argv[0]!r}" if argv else "and nothing is given"
            raise FlagError(f"The first word must be one of {', '.join(ACTIONS)}, {given}.")
        ACTIONS[argv[0]](argv[1:], f"{prog} {argv[0]}")
    except (FlagError, NoCheckpointError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0
