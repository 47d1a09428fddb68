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


class StandInMaze:
    """A point that moves 0.4 of its action in the free cells of a maze of OGBench's form, 4 m each."""

    def __init__(self):
        self.maze_map = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
        self.unwrapped, self.asked, self.goals = self, [], []
        self.action_space = SimpleNamespace(seed=lambda seed: None)

    @property
    def data(self):
        return SimpleNamespace(qpos=self.place, qvel=np.zeros(2))

    def ij_to_xy(self, ij):
        return np.array([4.0 * ij[1] - 4, 4.0 * ij[0] - 4])

    def xy_to_ij(self, xy):
        return int(xy[1] / 4 + 1.5), int(xy[0] / 4 + 1.5)

    def add_noise(self, xy):
        return xy + np.random.uniform(-1, 1, 2)

    def set_goal(self, goal_xy):
        self.cur_goal_xy = goal_xy
        self.goals.append(self.xy_to_ij(goal_xy))

    def get_xy(self):
        return self.place.copy()

    def reset(self, seed, options):
        self.asked.append((options["task_info"]["init_ij"], options["task_info"]["goal_ij"]))
        self.place, self.goals = self.add_noise(self.ij_to_xy(self.asked[-1][0])), []
        self.set_goal(self.add_noise(self.ij_to_xy(self.asked[-1][1])))
        return self.place.copy(), {}

    def step(self, action):
        assert (np.abs(action) <= 1).all()
        moved = self.place + 0.4 * action
        if self.maze_map[self.xy_to_ij(moved)] == 0:
            self.place = moved
        success = np.linalg.norm(self.place - self.cur_goal_xy) <= 1
        return self.place.copy(), 0.0, success, False, {"success": float(success)}
