"""Learning from datasets before any interaction: so many updates on one file, then so many on a labelled one."""

from typing import NamedTuple

from goalax.core.types import BufferState, RunState
from goalax.core.updates import Offline
from goalax.flags import FlagError


def spread(total: int, number: int) -> list[int]:
    """Whole numbers up to a total, so many of them or as many as there are, at distances that differ by one at most."""
    number = min(number, total)
    return [round(total * (k + 1) / number) for k in range(number)]


class Phases(NamedTuple):
    """Pre-training and fine-tuning; a position is the number of updates behind a state."""

    offline: Offline | None  # None: of a loop that learns from no dataset
    data: BufferState | None
    labelled: BufferState | None
    pretraining: int  # updates on `data`
    finetuning: int  # updates on `labelled`
    size: int  # updates whose samples are drawn at once

    @property
    def updates(self) -> int:
        """Of both."""
        return self.pretraining + self.finetuning

    def require(self, updates: int) -> None:
        """FlagError unless there is room for so many updates, which have been made."""
        if updates > self.updates:
            tuned = f" and --finetune_steps {self.finetuning}" if self.finetuning else ""
            raise FlagError(
                f"--offline_steps is {self.pretraining}{tuned}; the run has made {updates} updates already, so it must"
                " be at least that."
            )

    @property
    def last(self) -> BufferState:
        """The dataset before interaction."""
        data = self.data if self.labelled is None else self.labelled
        assert data is not None  # as `check_ratio` requires
        return data

    def boundaries(self, num_evals: int) -> list[int]:
        """Positions at which to evaluate, so many in each phase; their distances differ by `size` at most."""
        return [
            *self._within(self.pretraining, num_evals, 0),
            *self._within(self.finetuning, num_evals, self.pretraining),
        ]

    def _within(self, updates: int, num_evals: int, start: int) -> list[int]:
        return [start + min(self.size * number, updates) for number in spread(-(-updates // self.size), num_evals)]

    def data_at(self, position: int) -> BufferState:
        """What the next update learns from."""
        data = self.labelled if position >= self.pretraining else self.data
        assert data is not None  # as `check_dataset` requires
        return data

    def from_here(self, position: int) -> list[BufferState]:
        """What this and later updates learn from."""
        here = self.data_at(position)
        return [here] if self.labelled is None or here is self.labelled else [here, self.labelled]

    def switched(self, state: RunState) -> RunState:
        """The state where fine-tuning begins; takes `state` away. An agent without `switch` simply goes on."""
        if self.offline is None or self.offline.switch is None or self.labelled is None:
            return state
        return self.offline.switch(state, self.labelled)

    def learn(self, state: RunState, data: BufferState, updates: int) -> RunState:
        """The state after so many updates on a dataset, whose samples are drawn from here on; takes `state` away."""
        assert self.offline is not None  # as `check_dataset` requires
        state = self.offline.learn(state, data, updates // self.size, self.size)
        return self.offline.learn(state, data, 1, updates % self.size) if updates % self.size else state

    def trained(self, state: RunState, done: int, boundary: int, chunk: int) -> tuple[RunState, int, int]:
        """The state some updates on, its position, and how many times samples were drawn: at most `chunk` times.

        They are drawn anew after every `size` updates of a phase, wherever the host looks up in between. The agent
        switches together with the first updates of fine-tuning, so that no state lies between.
        """
        start = self.pretraining if done >= self.pretraining else 0
        assert self.offline is not None  # as `check_dataset` requires
        if done == self.pretraining:
            state = self.switched(state)
        size, past = self.size, (done - start) % self.size
        number, updates = min(chunk, (boundary - done) // size), size
        if past or number == 0:
            number, updates = 1, min(size - past, boundary - done)
        return self.offline.learn(state, self.data_at(done), number, updates), done + number * updates, number
