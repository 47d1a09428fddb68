"""What stands in for an environment of OGBench, whose package tests need not have."""

from types import SimpleNamespace

import numpy as np

LIMIT, TASKS = 12, 5


class StandIn:
    """A point that moves by its action; task k starts at 0 and asks for a place 0.8 k away, the last for none."""

    def __init__(self):
        self.unwrapped, self.spec = self, SimpleNamespace(max_episode_steps=LIMIT)
        self.observation_space, self.num_tasks = SimpleNamespace(shape=(2,)), TASKS
        self.action_space = SimpleNamespace(shape=(2,), seed=lambda seed: None)
        self.seeds = []

    def reset(self, seed, options):
        self.seeds.append((seed, float(np.random.uniform())))
        self.task, self.steps, self.place = options["task_id"], 0, np.zeros(2)
        self.goal = np.array([0.8 * self.task, 0.0])
        return self.place.copy(), {"goal": self.goal.copy()}

    def step(self, action):
        assert self.steps < LIMIT and (np.abs(action) <= 1).all()
        self.steps, self.place = self.steps + 1, self.place + action
        success = self.task != TASKS and np.linalg.norm(self.place - self.goal) < 0.5
        return self.place.copy(), 0.0, success, self.steps == LIMIT, {"success": float(success)}
