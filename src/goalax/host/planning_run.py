"""A run whose plans are followed: which one, by which rules, and what its planner and its agent are."""

import dataclasses
from pathlib import Path
from typing import Any

from goalax.agents.distillation import Inputs
from goalax.agents.plans import Planner
from goalax.agents.speculation import Speculation
from goalax.agents.tdmpc2 import TDMPC2Config, planner_of
from goalax.agents.world_model import WorldModel
from goalax.core.normalization import NormalizedState
from goalax.flags import FlagError, flag
from goalax.host import corrector_files, loading
from goalax.host.stored import read_run

FOLLOWED_FOR = 3  # decisions, where the run itself plans at each


@dataclasses.dataclass(frozen=True)
class OfRun:
    """A run, and how its plans are followed."""

    run: tuple[str, ...] = flag((), "run directory of --agent tdmpc2", positional=True)
    step: int | None = flag(None, "environment steps of the checkpoint (default: the newest)", low=0)
    episodes: int = flag(16, "fresh episodes, all at once", low=1, high=100_000)
    exec_horizon: int | None = flag(
        None, "decisions that one plan is good for, at most (default: the run's, 3 if that is 1)", low=2, high=1000
    )
    mismatch: float | None = flag(
        None, "how far a latent state may be from its prediction before a new plan (default: the run's)", low=0
    )
    seed: int = flag(0, "draws starts and goals", low=0, high=2**31 - 1)


class Trained:
    """A run with a planner, loaded: its agent, its planner, and what the agent sees of an environment."""

    def __init__(self, config: OfRun):
        """FlagError for what is no run of tdmpc2 with one seed."""
        if len(config.run) != 1:
            raise FlagError(f"It takes one run directory, but {len(config.run)} are given.")
        stored, stored_agent = read_run(Path(config.run[0]))  # this is told before environments are made
        if not isinstance(stored_agent, TDMPC2Config):
            raise FlagError(f"{config.run[0]} is a run of {stored.agent}, which makes no plans: tdmpc2 does.")
        if stored.num_seeds > 1:
            raise FlagError(f"{config.run[0]} is a run of {stored.num_seeds} seeds; a corrector is of one.")
        self.run, state = loading.load(Path(config.run[0]), config.step, num_eval_envs=1, vis_length=0)
        flags, agent_config = self.run.config, self.run.agent_config
        assert isinstance(agent_config, TDMPC2Config)
        horizon = agent_config.plan_horizon or agent_config.horizon
        own = agent_config.exec_horizon if agent_config.exec_horizon > 1 else FOLLOWED_FOR
        mismatch = agent_config.mismatch if config.mismatch is None else config.mismatch
        self.rules = Speculation(horizon, config.exec_horizon or own, mismatch, replans=1.0)
        model = WorldModel(agent_config.size, self.run.spec, agent_config.dropout)
        self.planner: Planner = planner_of(model, agent_config, horizon)
        self.agent, self.inputs = opened(state.agent)
        self.decisions = flags.episode_length // flags.action_repeat
        self.name, self.steps = Path(config.run[0]).resolve().name, self.run.progress(state)

    def origin(self, teacher: str, seed: int) -> corrector_files.Origin:
        """What decisions come from that are collected here."""
        return corrector_files.Origin(
            self.name, self.steps, self.rules.exec_horizon, self.rules.mismatch, teacher, seed
        )


def opened(agent: Any) -> tuple[Any, Inputs]:
    """The agent without its input normalisation, and that as a function."""
    if not isinstance(agent, NormalizedState):
        return agent, lambda state, goal: (state, goal)
    return agent.agent, lambda state, goal: (agent.state_map(state), agent.goal_map(goal))
