"""A search that several hosts take runs from: an Optuna study in a storage that all of them reach."""

import contextlib
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from goalax.study import sweeps
from goalax.study.sweep_file import SweepError, distribution
from goalax.study.sweeps import Job
from goalax.words import first_line

WAIT_SECONDS = 60.0  # for the host that has just begun the study to write all of its grid
# What a study and its trials hold beside parameters.
READY, SWEEP, RUNS, JOB, SEEDS = "ready", "sweep", "runs", "job", "seeds"


class SharedSearch:
    """The runs of a sweep as trials: each one is taken by one host, and its number is that of the trial."""

    def __init__(self, storage: str, name: str, sweep: dict[str, Any], jobs: Sequence[Job], count: int):
        """jobs: of a grid. SweepError if the storage cannot be reached, or holds another sweep of this name."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.optuna, self.sweep, self.count = optuna, sweep, count
        self.grid = list(jobs)
        self.runs = sum(len(job.seeds) for job in jobs)
        self.spaces, self.storage = self._spaces(), storage
        with self._guard():
            kept = optuna.storages.get_storage(storage) if "://" in storage else self._journal(storage)
            self.study = self._study(kept, name)
        if self.study.user_attrs.get(SWEEP) != self._words():
            raise SweepError(f"--storage {storage} holds a sweep {name!r} over something else; choose another --out.")
        planned = self.study.user_attrs.get(RUNS, self.runs)  # a study of before does not say it
        if planned != self.runs:
            raise SweepError(
                f"--storage {storage} holds a grid of {planned} runs, here it has {self.runs}; hosts that share one"
                " must have the same --count."
            )

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Turns whatever a database and its driver come up with into a sentence."""
        try:
            yield
        except SweepError:
            raise
        except Exception as error:
            raise SweepError(f"--storage {self.storage} cannot be used: {first_line(error)}.") from None

    def _journal(self, path: str) -> Any:
        from optuna.storages.journal import JournalFileBackend

        return self.optuna.storages.JournalStorage(JournalFileBackend(path))

    def _spaces(self) -> dict[str, Any]:
        """name -> distribution of what varies."""
        specs = self.sweep["parameters"]
        if self.sweep["method"] != "grid":
            return {name: space for name, spec in specs.items() if (space := distribution(name, spec)) is not None}
        columns = {name: [job.parameters[name] for job in self.grid] for name in specs if name != "seed"}
        unique = {name: list({repr(value): value for value in column}.values()) for name, column in columns.items()}
        categorical = self.optuna.distributions.CategoricalDistribution
        return {name: categorical(values) for name, values in unique.items() if len(values) > 1}

    def _words(self) -> str:
        return json.dumps(sweeps.search(self.sweep), sort_keys=True)

    def _study(self, storage: Any, name: str) -> Any:
        """The study; whoever begins it writes what it is of, and all runs of a grid."""
        optuna, direction = self.optuna, self.sweep["metric"]["goal"]
        bayes = self.sweep["method"] == "bayes"
        # Without a seed, which hosts would share.
        sampler: Any = optuna.samplers.TPESampler(constant_liar=True) if bayes else optuna.samplers.RandomSampler()
        try:
            study = optuna.create_study(storage=storage, study_name=name, direction=direction, sampler=sampler)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name, sampler=sampler)
            until = time.monotonic() + WAIT_SECONDS
            while not study.user_attrs.get(READY):
                if time.monotonic() > until:
                    raise SweepError(
                        f"The sweep {name!r} was never written as a whole into its storage; choose another --out."
                    ) from None
                time.sleep(0.2)
            return study
        study.set_user_attr(SWEEP, self._words())
        study.set_metric_names([self.sweep["metric"]["name"]])
        for job in self.grid:
            varied = {parameter: job.parameters[parameter] for parameter in self.spaces}
            study.enqueue_trial(varied, user_attrs={JOB: job.number, SEEDS: job.seeds})
        study.set_user_attr(RUNS, self.runs)
        study.set_user_attr(READY, True)
        return study

    def take(self) -> Job | None:
        """A run that nobody has, None where there is none left."""
        with self._guard():
            trials = self.study.get_trials(deepcopy=False)
            waiting = self.optuna.trial.TrialState.WAITING
            if self.grid:
                if not any(trial.state == waiting for trial in trials):
                    return None
                trial = self.study.ask(self.spaces)
                if (index := trial.user_attrs.get(JOB)) is None:  # others were faster: this one is of nothing
                    self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                    return None
                return Job(trial.number, self.grid[index].parameters, self.grid[index].seeds)
            if len(trials) >= self.count:
                return None
            trial = self.study.ask(self.spaces)
            if trial.number >= self.count:  # others were faster
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                return None
            job = sweeps.job_of(self.sweep, trial.number, trial.params)
            trial.set_user_attr(SEEDS, job.seeds)
            return job

    def tell(self, job: Job) -> None:
        """How a run ended; nothing if that is known already."""
        with self._guard():
            known = self.optuna.trial.TrialState
            if self.study.get_trials(deepcopy=False)[job.number].state.is_finished():
                return
            if job.state == "finished":
                self.study.tell(job.number, sum(job.values) / len(job.values))
            else:
                self.study.tell(job.number, state=known.PRUNED if job.state == "ended early" else known.FAIL)

    def report(self, job: Job, curve: Sequence[float]) -> None:
        """The values of a run's evaluations so far."""
        with self._guard():
            frozen = self.study.get_trials(deepcopy=False)[job.number]
            if not frozen.state.is_finished():
                trial = self.optuna.trial.Trial(self.study, frozen._trial_id)  # nothing public leads to an earlier one
                known = len(frozen.intermediate_values)
                for step, value in enumerate(curve[known:], start=known + 1):
                    trial.report(value, step)

    def curves(self) -> dict[int, list[float]]:
        """Number of a run -> its values so far, of all hosts."""
        with self._guard():
            trials = self.study.get_trials(deepcopy=False)
            return {trial.number: [value for _, value in sorted(trial.intermediate_values.items())] for trial in trials}
