"""What a state has behind it, in words: environment steps, updates on a dataset, or both."""

from goalax.core.types import RunState
from goalax.host.config import Config, Flags


def in_words(config: Config, state: RunState, unit: str = "steps", of: str = "") -> str:
    """Such as `62 updates and 1,000 steps`; those on a dataset are no steps of an environment.

    Args:
      unit: what to call the steps.
      of: what to say behind the updates.
    """
    return _words(config, int(state.env_steps), int(state.gradient_steps), unit, of)


def progress_in_words(flags: Flags, progress: float, unit: str = "steps") -> str:
    """The same of one number for both, by which checkpoints, films and the rows of metrics.csv are counted."""
    steps = max(progress - flags.dataset_steps, 0)
    return _words(flags, steps, 0 if steps else progress, unit, "")


def _words(flags: Flags, steps: float, updates: float, unit: str, of: str) -> str:
    if steps == 0 and updates > 0:  # before the first step there is only a dataset to learn from
        return f"{updates:,} updates{of}"
    before = f"{flags.dataset_steps:,} updates{of} and " if flags.dataset_steps and steps else ""
    return f"{before}{steps:,} {unit}"
