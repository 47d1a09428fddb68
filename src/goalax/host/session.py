"""One training session on the host: calls the pure functions, logs, saves, and stops cleanly when asked to."""

import contextlib
import time
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from goalax.core import sharding
from goalax.core.rollout import Outcomes, Recording
from goalax.core.train import compile_train, forget_metrics
from goalax.core.types import AgentState, Metrics, RunState
from goalax.flags import FlagError
from goalax.host import checkpoint, devices
from goalax.host.interrupt import Interrupt
from goalax.host.make import Run
from goalax.host.phases import spread
from goalax.host.runs import OFFLINE, MetricsFile

CHUNK_SECONDS = 1.0  # how often the host looks up from training


class NonFiniteError(ArithmeticError):
    """A loss or a parameter is not finite."""


@jax.jit
def nonfinite_parameters(agent_state: AgentState) -> jax.Array:
    """Number of entries of the agent's state that are not finite."""
    floats = [leaf for leaf in jax.tree.leaves(agent_state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum((jnp.sum(~jnp.isfinite(leaf)) for leaf in floats), jnp.zeros((), jnp.int32))


class Evaluation(NamedTuple):
    """What an evaluation found, once it is on disk."""

    number: int  # from 1
    env_steps: int  # before them come updates on a dataset
    rows: list[dict[str, float]]  # new rows of metrics.csv, one per seed; none in a process that does not write
    recording: Recording
    outcomes: Outcomes
    last: bool

    @property
    def means(self) -> dict[str, float]:
        """The rows' means over seeds."""
        return {name: float(np.mean([row[name] for row in self.rows])) for name in self.rows[0]} if self.rows else {}


class Session:
    """The runs of one program: one per seed, each with its own directory, metrics and checkpoints.

    Of several processes all train, with equal calls in equal order, and one writes.
    """

    def __init__(self, run: Run, directories: list[Path], seeds: list[int]):
        """directories: one per seed; a process that does not write needs them only to read what it resumes."""
        self.train, self.sizes, self.directories, self.num_seeds = run.train, run.sizes, directories, len(seeds)
        self.progress, self.data, self.phases, self.mixed_in = run.progress, run.data, run.phases, run.mixed_in
        self.offline_steps = run.phases.updates
        self.init, self.validate = run.train.init, run.validate  # init is for shapes: `compile` replaces it
        self.written = directories if devices.leads() else []
        self.placement = sharding.placement(run.mesh, len(seeds))
        self.checkpoint_interval = run.config.checkpoint_interval
        # Takes a sentence about a file that is not as it should be, and what became of it.
        self.note: Callable[[str], object] = warnings.warn
        self.damaged: set[Path] = set()  # checkpoints that could not be read
        self.savers: list[checkpoint.Saver] = []  # of `written`, while it runs
        self.stopped_by: int | None = None  # the signal that ended training early
        # Positions at which to evaluate: updates on a dataset, then train steps more. The distances between those of a
        # phase differ by one train step at most, or by as many updates as follow an unroll.
        self.boundaries = run.phases.boundaries(run.config.num_evals)
        if run.config.num_timesteps > 0:
            online = spread(run.sizes.train_steps(run.config.num_timesteps), run.config.num_evals)
            self.boundaries += [self.offline_steps + number for number in online]
        self.key, self.seeds = run.keys(seeds[0]), seeds

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps(self.boundaries[-1])

    def steps(self, position: int) -> int:
        """Environment steps up to a position, and before them updates on a dataset."""
        if position <= self.offline_steps and self.data is not None:
            return position
        train_steps = position - self.offline_steps
        return self.offline_steps + (train_steps + self.sizes.prefill_unrolls) * self.sizes.steps_per_unroll

    def position(self, state: RunState) -> int:
        """Updates on a dataset and train steps that a state has behind it."""
        if self.data is not None and int(state.env_steps) == 0:
            return int(state.gradient_steps)
        train_steps = int(state.env_steps) // self.sizes.steps_per_unroll - self.sizes.prefill_unrolls
        return self.offline_steps + train_steps

    def of_seed(self, tree: Any, index: int) -> Any:
        """What belongs to one seed; with a single seed there is no axis to take it from."""
        return tree if self.num_seeds == 1 else jax.tree.map(lambda leaf: leaf[index], tree)

    def compile(self) -> None:
        if self.train.ahead:
            self.train = compile_train(self.train, self.key, *self.mixed_in)

    def fresh(self) -> RunState:
        """The state after the prefill, or before the first update on a dataset."""
        state = self.train.init(self.key)
        if self.data is not None and self.train.offline is not None:
            return self.train.offline.fit(state, self.data)
        return self.train.fit(self._prefilled(state))

    def _prefilled(self, state: RunState) -> RunState:
        return self.train.advance(state, self.sizes.prefill_unrolls, 0, *self.mixed_in)

    def _trained(self, state: RunState, done: int, boundary: int, chunk: int) -> tuple[RunState, int, int]:
        """The state some steps on, its position, and how many times learning began: at most `chunk` times."""
        if done < self.offline_steps:
            return self.phases.trained(state, done, boundary, chunk)
        number = min(chunk, boundary - done)
        updates = self.sizes.updates_per_unroll
        return self.train.advance(state, number, updates, *self.mixed_in), done + number, number

    def restored(self) -> RunState:
        """The newest state that can be read for every seed; NoCheckpointError if there is none, FlagError if a budget
        is less than what lies behind it."""
        template = jax.eval_shape(self.init, self.key)
        if self.num_seeds > 1:
            template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), template)
        at_most = None
        while True:
            folders = [directory / "checkpoints" for directory in self.directories]
            states = [checkpoint.restore(folder, template, at_most, self.damaged) for folder in folders]
            steps = {self.progress(state) for state in states}
            if len(steps) == 1:
                state = states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: np.stack(leaves), *states)
                if self.data is not None and int(state.env_steps) == 0:
                    self.phases.require(int(state.gradient_steps))
                if self.position(state) > self.boundaries[-1]:
                    behind = f"the run has {int(state.env_steps):,} steps behind it already"
                    raise FlagError(f"--num_timesteps is too small: {behind}.")
                return sharding.put(state, self.placement)
            at_most = min(steps)

    def run(
        self, state: RunState, interrupt: Interrupt, on_steps: Callable[[int], object]
    ) -> Generator[Evaluation, None, None]:
        """Trains to the end, or until it is interrupted, and yields every evaluation.

        What was yielded is on disk, and so is its checkpoint soon if one was due. `stopped_by` tells afterwards whether
        a signal ended training early; then the last state is saved.

        Args:
          on_steps: called with the steps so far, every second or so.

        Raises:
          NonFiniteError: a metric or a parameter is not finite; nothing of it is saved.
          SaveError, OSError: a checkpoint or a row cannot be written.
        """
        self._put_aside(self.progress(state))
        with contextlib.ExitStack() as stack:
            self.savers = [stack.enter_context(checkpoint.Saver(path / "checkpoints")) for path in self.written]
            files = [MetricsFile(path, self.progress(state), self.note) for path in self.written]
            done, chunk, stop = self.position(state), 1, 0
            before = self._seconds_of(state)  # of training since the last row, until this call
            if done < self.offline_steps and self.train.offline is not None and self.data is not None:
                for data in self.phases.from_here(done):
                    state = self.phases.learn(state, data, 0)  # compiles it
            for number, boundary in enumerate(self.boundaries, start=1):
                if boundary <= done:
                    continue
                seconds = 0.0
                if self.data is not None and done == self.offline_steps and int(state.env_steps) == 0:
                    state, chunk = self._prefilled(state), 1
                since = self.progress(state)
                while done < boundary:
                    chunk, stop = devices.highest(chunk, interrupt.signal or 0)
                    if stop:
                        break
                    started = time.monotonic()
                    state, done, length = self._trained(state, done, boundary, chunk)
                    jax.block_until_ready(state)
                    elapsed = time.monotonic() - started
                    seconds += elapsed
                    chunk = max(1, round(CHUNK_SECONDS * length / elapsed))
                    on_steps(self.steps(done))
                evaluation, last = None, number == len(self.boundaries)
                if done == boundary:
                    rows, recording, outcomes = self._evaluate(state, files, seconds, since, before)
                    evaluation = Evaluation(number, self.steps(done), rows, recording, outcomes, last)
                    state, before, seconds = forget_metrics(state), 0.0, 0.0
                    (stop,) = devices.highest(interrupt.signal or 0)
                due = self.checkpoint_interval > 0 and number % self.checkpoint_interval == 0
                if last or due or stop:
                    self._check_parameters(state)
                    self._save(state, before + seconds)
                self.stopped_by = stop if stop and done < self.boundaries[-1] else None
                if evaluation is not None:
                    yield evaluation
                if stop:
                    return

    def _seconds_of(self, state: RunState) -> float:
        """Of training between the last row and the checkpoint that a state is from; 0 for one that has just begun."""
        found = [checkpoint.seconds_of(path / "checkpoints", self.progress(state)) for path in self.written]
        return max(found, default=0.0)

    def _put_aside(self, done: int) -> None:
        """Renames newer checkpoints than the one to go on from: they would keep others from being saved."""
        for folder in [path / "checkpoints" for path in self.written]:
            for step in [step for step in checkpoint.steps(folder) if step > done]:
                word = "damaged" if folder / str(step) in self.damaged else "later"
                aside = checkpoint.put_aside(folder, step, word)
                self.note(f"The checkpoint {folder / str(step)} is kept as {aside.name}; training goes on before it.")

    def seen(self) -> tuple[Recording, Outcomes]:
        """What the last evaluation saw, once more: it depends on nothing but the newest checkpoint."""
        _, recording, outcomes = jax.device_get(self.train.evaluate(self.restored()))
        return recording, outcomes

    def _evaluate(
        self, state: RunState, files: list[MetricsFile], seconds: float, since: int, before: float
    ) -> tuple[list[dict[str, float]], Recording, Outcomes]:
        """Evaluates, appends a row to every metrics.csv, and returns these rows and what the evaluation saw.

        since: progress before the `seconds` of training that it follows.
        before: seconds of training between the last row and that, of an earlier call that was stopped there.
        """
        started = time.monotonic()
        metrics, recording, outcomes = jax.device_get(self.train.evaluate(state))
        evaluation_seconds = time.monotonic() - started
        metrics |= self.validate(state)
        whole_seconds = time.monotonic() - started
        env_steps, updates = int(state.env_steps), int(state.gradient_steps)
        self._check_metrics(metrics, self.progress(state))
        self._check_parameters(state)
        rows = []
        for index, file in enumerate(files):
            values = {name: float(value) for name, value in sorted(self.of_seed(metrics, index).items())}
            row = {
                "training/envsteps": env_steps,
                "training/gradient_steps": updates,
                **({} if self.data is None else {OFFLINE: min(updates, self.offline_steps)}),
                "training/walltime": file.walltime + before + seconds + whole_seconds,
                "training/sps": (self.progress(state) - since) / seconds,
                **values,
                "eval/sps": self.sizes.num_eval_envs * self.sizes.episode_length / evaluation_seconds,
                "eval/epoch_eval_time": evaluation_seconds,
            }
            rows.append(row)
        for row, file in zip(rows, files, strict=True):
            file.append(row)
        return rows, recording, outcomes

    def _save(self, state: RunState, seconds: float) -> None:
        for saver in self.savers:  # before one of the next begins, or seeds might have none in common
            saver.wait()
        for index in range(self.num_seeds):
            fetched = jax.tree.map(lambda leaf, index=index: devices.fetch(self.of_seed(leaf, index)), state)
            if self.savers:
                checkpoint.save(self.savers[index], fetched, self.progress(state), seconds)

    def _check_metrics(self, metrics: Metrics, steps: int) -> None:
        for name, value in sorted(metrics.items()):
            of_seeds = np.ravel(value)
            for index in np.flatnonzero(~np.isfinite(of_seeds)):
                self._stop_nonfinite(f"{name} is {of_seeds[index]}", steps, int(index))

    def _check_parameters(self, state: RunState) -> None:
        if nonfinite_parameters(state.agent) > 0:
            bad = (nonfinite_parameters(self.of_seed(state.agent, index)) > 0 for index in range(self.num_seeds))
            self._stop_nonfinite("a parameter of the agent is not finite", self.progress(state), list(bad).index(True))

    def _stop_nonfinite(self, what: str, done: int, index: int) -> None:
        words = "environment steps" if self.data is None else "updates on the dataset and environment steps"
        what = what if self.num_seeds == 1 else f"of seed {self.seeds[index]} {what}"
        if not self.written:
            raise NonFiniteError(f"Training stopped at {done:,} {words}: {what}.")
        for saver in self.savers:
            with contextlib.suppress(checkpoint.SaveError):
                saver.wait()  # else the newest may not be there yet
        folder = self.written[index] / "checkpoints"
        good = checkpoint.steps(folder)
        last = f"the last good checkpoint is {folder / str(good[0])}" if good else "there is no checkpoint before it"
        others = ", and other seeds go on alone with --resume --run_dir" if good and self.num_seeds > 1 else ""
        raise NonFiniteError(f"Training stopped at {done:,} {words}: {what}; {last}{others}.")
