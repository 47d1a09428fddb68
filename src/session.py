"""One training session on the host: calls the pure functions, logs, saves, and stops cleanly when asked to."""

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from src import checkpoint, devices, sharding
from src.display import Display
from src.rollout import Recording
from src.runs import MetricsFile
from src.train import compile_train, forget_metrics
from src.types import Metrics, RunState
from utils import Run

CHUNK_SECONDS = 1.0  # how often the host looks up from training


class NonFiniteError(ArithmeticError):
    """A loss or a parameter is not finite."""


class Interrupt(contextlib.AbstractContextManager):
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; the second one acts as usual."""

    signal: int | None = None

    def __enter__(self):
        self.previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, _frame):
        self.signal = number
        signal.signal(number, self.previous[number])

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


@jax.jit
def nonfinite_parameters(agent_state: Any) -> jax.Array:
    """Number of entries of the agent's state that are not finite."""
    floats = [leaf for leaf in jax.tree.leaves(agent_state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum(jnp.sum(~jnp.isfinite(leaf)) for leaf in floats)


class Session:
    """The runs of one program: one per seed, each with its own directory, metrics and checkpoints.

    Of several processes all train, with equal calls in equal order, and one writes.
    """

    def __init__(self, run: Run, directories: list[Path], seeds: list[int]):
        """directories: one per seed; a process that does not write needs them only to read what it resumes."""
        self.train, self.sizes, self.directories, self.num_seeds = run.train, run.sizes, directories, len(seeds)
        self.written = directories if devices.leads() else []
        self.placement = sharding.placement(run.mesh, len(seeds))
        self.checkpoint_interval = run.config.checkpoint_interval
        total = run.sizes.train_steps(run.config.num_timesteps)
        evaluations = min(run.config.num_evals, total)
        # Train steps after which to evaluate; the distances between them differ by one at most.
        self.boundaries = [round(total * (k + 1) / evaluations) for k in range(evaluations)]
        keys = [np.asarray(jax.random.PRNGKey(seed)) for seed in seeds]
        self.key = keys[0] if len(seeds) == 1 else np.stack(keys)

    @property
    def total_steps(self) -> int:
        """Environment steps of the whole run."""
        return self.env_steps(self.boundaries[-1])

    def env_steps(self, train_steps: int) -> int:
        return (train_steps + self.sizes.prefill_unrolls) * self.sizes.steps_per_unroll

    def train_steps(self, state: RunState) -> int:
        """Train steps that a state has behind it."""
        return int(np.ravel(state.env_steps)[0]) // self.sizes.steps_per_unroll - self.sizes.prefill_unrolls

    def of_seed(self, tree: Any, index: int) -> Any:
        """What belongs to one seed; with a single seed there is no axis to take it from."""
        return tree if self.num_seeds == 1 else jax.tree.map(lambda leaf: leaf[index], tree)

    def compile(self) -> None:
        if self.train.ahead:
            self.train = compile_train(self.train, self.key)

    def fresh(self) -> RunState:
        """The state after the prefill."""
        return self.train.fit(self.train.advance(self.train.init(self.key), self.sizes.prefill_unrolls, 0))

    def restored(self) -> RunState:
        """The newest state that can be read for every seed; NoCheckpointError if there is none."""
        template = jax.eval_shape(self.train.init, self.key)
        if self.num_seeds > 1:
            template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), template)
        at_most = None
        while True:
            folders = [directory / "checkpoints" for directory in self.directories]
            states = [checkpoint.restore(folder, template, at_most) for folder in folders]
            steps = {int(state.env_steps) for state in states}
            if len(steps) == 1:
                state = states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: np.stack(leaves), *states)
                return sharding.put(state, self.placement)
            at_most = min(steps)

    def run(
        self,
        state: RunState,
        display: Display,
        on_metrics: Callable[[list[dict[str, float]]], None],
        on_evaluation: Callable[[int, Recording], None],
    ) -> tuple[RunState, int | None]:
        """Trains to the end; returns the last state, and the signal that stopped training early if one did.

        Args:
          on_metrics: called with the new rows of metrics.csv, one per seed, as soon as they are written.
          on_evaluation: called with the number of every evaluation, from 1, and its recording.

        Raises:
          NonFiniteError: a metric or a parameter is not finite; nothing of it is saved.
        """
        with contextlib.ExitStack() as stack:
            interrupt = stack.enter_context(Interrupt())
            savers = [stack.enter_context(checkpoint.manager(path / "checkpoints")) for path in self.written]
            files = [MetricsFile(path, int(np.ravel(state.env_steps)[0])) for path in self.written]
            done, chunk, stop = self.train_steps(state), 1, 0
            for number, boundary in enumerate(self.boundaries, start=1):
                if boundary <= done:
                    continue
                seconds, since = 0.0, done
                while done < boundary:
                    chunk, stop = devices.highest(chunk, interrupt.signal or 0)
                    if stop:
                        break
                    length = min(chunk, boundary - done)
                    started = time.monotonic()
                    state = self.train.advance(state, length, self.sizes.updates_per_unroll)
                    jax.block_until_ready(state)
                    elapsed = time.monotonic() - started
                    seconds, done = seconds + elapsed, done + length
                    chunk = max(1, round(CHUNK_SECONDS * length / elapsed))
                    display.step(self.env_steps(done))
                if done == boundary:
                    rows, recording = self._evaluate(state, files, seconds, done - since)
                    on_metrics(rows)
                    if rows:
                        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
                        display.evaluated(self.env_steps(done), means)
                    state = forget_metrics(state)
                    (stop,) = devices.highest(interrupt.signal or 0)
                last = number == len(self.boundaries)
                due = self.checkpoint_interval > 0 and number % self.checkpoint_interval == 0
                if last or due or stop:
                    self._check_parameters(state)
                    self._save(state, savers)
                if stop:
                    break
                on_evaluation(number, recording)
        return state, None if done == self.boundaries[-1] else stop

    def _evaluate(
        self, state: RunState, files: list[MetricsFile], seconds: float, train_steps: int
    ) -> tuple[list[dict[str, float]], Recording]:
        """Evaluates, appends a row to every metrics.csv, and returns these rows and the recording."""
        started = time.monotonic()
        metrics, recording = jax.device_get(self.train.evaluate(state))
        evaluation_seconds = time.monotonic() - started
        env_steps = self.env_steps(self.train_steps(state))
        self._check_metrics(metrics, env_steps)
        self._check_parameters(state)
        rows = []
        for index, file in enumerate(files):
            values = {name: float(value) for name, value in sorted(self.of_seed(metrics, index).items())}
            row = {
                "training/envsteps": env_steps,
                "training/gradient_steps": int(np.ravel(state.gradient_steps)[0]),
                "training/walltime": file.walltime + seconds + evaluation_seconds,
                "training/sps": train_steps * self.sizes.steps_per_unroll / seconds,
                **values,
                "eval/sps": self.sizes.num_eval_envs * self.sizes.episode_length / evaluation_seconds,
                "eval/epoch_eval_time": evaluation_seconds,
            }
            rows.append(row)
        for row, file in zip(rows, files, strict=True):
            file.append(row)
        return rows, recording

    def _save(self, state: RunState, savers: list) -> None:
        for index in range(self.num_seeds):
            fetched = jax.tree.map(lambda leaf, index=index: devices.fetch(self.of_seed(leaf, index)), state)
            if savers:
                checkpoint.save(savers[index], fetched)

    def _check_metrics(self, metrics: Metrics, env_steps: int) -> None:
        for name, value in sorted(metrics.items()):
            for bad in np.extract(~np.isfinite(value), value):
                self._stop_nonfinite(f"{name} is {bad}", env_steps)

    def _check_parameters(self, state: RunState) -> None:
        if nonfinite_parameters(state.agent) > 0:
            self._stop_nonfinite("a parameter of the agent is not finite", self.env_steps(self.train_steps(state)))

    def _stop_nonfinite(self, what: str, env_steps: int) -> None:
        if not self.written:
            raise NonFiniteError(f"Training stopped at {env_steps:,} environment steps: {what}.")
        folder = self.written[0] / "checkpoints"
        good = checkpoint.steps(folder)
        last = f"the last good checkpoint is {folder / str(good[0])}" if good else "there is no checkpoint before it"
        raise NonFiniteError(f"Training stopped at {env_steps:,} environment steps: {what}; {last}.")
