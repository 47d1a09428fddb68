"""Rewards of OGBench's environments with a single task, computed from the simulator states of its files."""

import numpy as np

from goalax.data.files import Labels
from goalax.envs import GoalEnv
from goalax.host.ogbench import SINGLE, OGBenchEnv, seeded


def labels(env: GoalEnv) -> Labels | None:
    """How the rows of a file are labelled for the task of an environment; None for all but those with a single task.

    The law is that of the package (`relabel_dataset`): a row is judged by the state before its action. In mazes and in
    soccer its reward is 0 at the goal, else -1; of arms it is minus the number of parts that are not in place. Masks
    are 0 where the task is solved, although the recorded episode goes on.
    """
    if not isinstance(env, OGBenchEnv) or SINGLE not in env.name:
        return None
    outer = env.made[0]
    inner = outer.unwrapped
    columns = {"qpos": len((inner.data if hasattr(inner, "data") else inner._data).qpos)}
    if buttons := getattr(inner, "_num_buttons", 0):
        columns["button_states"] = buttons

    def of(states: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        from ogbench.relabel_utils import relabel_dataset  # here: it is optional

        with seeded(0):  # it resets the environment
            relabel_dataset(env.name, outer, states)
        return {key: states[key] for key in ("rewards", "masks")}

    return Labels(columns, of)
