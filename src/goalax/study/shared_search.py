"""A search that several hosts take runs from: an Optuna study in a storage that all of them reach."""

import contextlib
import json
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from goalax.study import sweeps
from goalax.study.sweep_file import SweepError, distribution
from goalax.study.sweeps import Job
from goalax.words import first_line

WAIT_SECONDS = 60.0  # for the next run of a grid, while the host that began the study writes all of it
# What a study and its trials hold beside parameters.
READY, SWEEP, RUNS, TOKEN, JOB, SEEDS = "ready", "sweep", "runs", "token", "job", "seeds"


class SharedSearch:
    """The runs of a sweep as trials: each one is taken by one host, and its number is that of the trial."""

    def __init__(self, storage: str, name: str, sweep: dict[str, Any], count: int):
        """SweepError if the storage cannot be reached, or holds another sweep of this name."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.optuna, self.sweep, self.count = optuna, sweep, count
        ordered = sweep | {
            "parameters": dict(sorted(sweep["parameters"].items()))
        }  # the files of hosts may differ in it
        self.grid = sweeps.grid(ordered, count) if sweep["method"] == "grid" else []
        self.runs = sum(len(job.seeds) for job in self.grid)
        self.spaces, self.storage, self.name = self._spaces(), storage, name
        with self._guard():
            kept = optuna.storages.get_storage(storage) if "://" in storage else self._journal(storage)
            self.study = self._study(kept)
        self.token = self.study.user_attrs.get(TOKEN)  # a study of before has none, nor how many runs
        planned = self.study.user_attrs.get(RUNS, self.runs)
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

    def _study(self, storage: Any) -> Any:
        """The study; whoever begins it writes what it is of, and all runs of a grid."""
        optuna, direction = self.optuna, self.sweep["metric"]["goal"]
        bayes = self.sweep["method"] == "bayes"
        # Without a seed, which hosts would share.
        sampler: Any = optuna.samplers.TPESampler(constant_liar=True) if bayes else optuna.samplers.RandomSampler()
        try:
            study = optuna.create_study(storage=storage, study_name=self.name, direction=direction, sampler=sampler)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=self.name, sampler=sampler)
            self._wait(study)
            if study.user_attrs.get(SWEEP, self._words()) != self._words() or self._foreign(study):
                raise SweepError(
                    f"--storage {self.storage} holds a sweep {self.name!r} over something else; choose another"
                    " --storage, or another `name`."
                ) from None
        if not study.user_attrs.get(READY):
            self._write(study)
        return study

    def _wait(self, study: Any) -> None:
        """Until a study is whole, or its host adds nothing to it any more: it was killed."""
        known, until = -1, 0.0
        while not study.user_attrs.get(READY):
            if (number := len(study.get_trials(deepcopy=False))) > known:
                known, until = number, time.monotonic() + WAIT_SECONDS
            elif time.monotonic() > until:
                return
            time.sleep(0.2)

    def _foreign(self, study: Any) -> bool:
        """Whether a study that does not say what it is of has trials: nobody here began it."""
        return SWEEP not in study.user_attrs and bool(study.get_trials(deepcopy=False))

    def _write(self, study: Any) -> None:
        """What a study is of, and all runs of a grid that are not in it yet."""
        study.set_user_attr(SWEEP, self._words())
        if TOKEN not in study.user_attrs:
            study.set_user_attr(TOKEN, uuid.uuid4().hex)
        study.set_metric_names([self.sweep["metric"]["name"]])
        written = {trial.user_attrs.get(JOB) for trial in study.get_trials(deepcopy=False)}
        for job in self.grid:
            if job.number not in written:
                varied = {parameter: job.parameters[parameter] for parameter in self.spaces}
                study.enqueue_trial(varied, user_attrs={JOB: job.number, SEEDS: job.seeds})
        study.set_user_attr(RUNS, self.runs)
        study.set_user_attr(READY, True)

    def take(self) -> Job | None:
        """A run that nobody has, None where there is none left."""
        with self._guard():
            if self.grid:
                return self._take_of_grid()
            if len(self.study.get_trials(deepcopy=False)) >= self.count:
                return None
            trial = self.study.ask(self.spaces)
            if trial.number >= self.count:  # others were faster
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                return None
            job = sweeps.job_of(self.sweep, trial.number, trial.params)
            trial.set_user_attr(SEEDS, job.seeds)
            return job

    def _take_of_grid(self) -> Job | None:
        known = self.optuna.trial.TrialState
        while any(trial.state == known.WAITING for trial in self.study.get_trials(deepcopy=False)):
            trial = self.study.ask(self.spaces)
            if (index := trial.user_attrs.get(JOB)) is None:  # others were faster: this one is of nothing
                self.study.tell(trial, state=known.FAIL)
                return None
            same = [
                other.number for other in self.study.get_trials(deepcopy=False) if other.user_attrs.get(JOB) == index
            ]
            if trial.number == min(same):
                # What varies is the trial's: a study of before numbered its runs by the order in a file.
                return Job(trial.number, self.grid[0].parameters | trial.params, trial.user_attrs[SEEDS])
            self.study.tell(trial, state=known.FAIL)  # two hosts have written the rest of the grid at once
        return None

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
