"""What a state has behind it, in words: environment steps, updates on a dataset, or both."""

from goalax.core.types import RunState
from goalax.host.config import Config


def in_words(config: Config, state: RunState, unit: str = "steps", of: str = "") -> str:
    """Such as `62 updates and 1,000 steps`; those on a dataset are no steps of an environment.

    Args:
      unit: what to call the steps.
      of: what to say behind the updates.
    """
    steps, updates = int(state.env_steps), int(state.gradient_steps)
    if steps == 0 and updates > 0:  # before the first step there is only a dataset to learn from
        return f"{updates:,} updates{of}"
    before = f"{config.dataset_steps:,} updates{of} and " if config.dataset_steps and steps else ""
    return f"{before}{steps:,} {unit}"
