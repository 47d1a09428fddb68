"""A trained policy as a function of its own: (state, goal) -> action, without the run that it comes from."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from numpy.typing import ArrayLike

from goalax.core.types import AgentState, Array, Spec


class Policy:
    """What an agent does when it does not explore; jitted. It holds its parameters and needs no run directory.

    Attributes:
      spec: sizes of states, goals and actions, and `spec.goal_of(state)`, the goal that a state achieves.
    """

    def __init__(self, mode: Callable[[AgentState, Array, Array], Array], agent_state: AgentState, spec: Spec):
        """mode: (agent, state [..., S], goal [..., G]) -> action [..., A]; agent_state: what it has learned."""
        self.spec = spec
        self._act = jax.jit(functools.partial(mode, jax.device_put(agent_state)))

    def __call__(self, state: ArrayLike, goal: ArrayLike) -> Array:
        """Actions [..., A] in [-1, 1] for states [..., S] and goals [..., G], in the units of the environment.

        Raises:
          ValueError: sizes that are not those of the environment, or unequal leading axes.
        """
        state, goal = np.asarray(state, np.float32), np.asarray(goal, np.float32)
        wanted = (*state.shape[:-1], self.spec.goal_size)
        if state.ndim < 1 or state.shape[-1] != self.spec.state_size or goal.shape != wanted:
            raise ValueError(
                f"Expected states [..., {self.spec.state_size}] and goals [..., {self.spec.goal_size}] with equal"
                f" leading axes, got {list(state.shape)} and {list(goal.shape)}."
            )
        return self._act(state, goal)
