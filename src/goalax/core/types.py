"""The nouns of the training loop. Sizes: S state, G goal, A action, B batch, N environments."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from goalax.core import goals

Array = jax.Array
Metrics = dict[str, Array]  # name -> scalar
AgentState = Any  # a pytree that belongs to the agent


class Env(Protocol):
    """What the loop needs of an environment; `goalax.envs.GoalEnv` has all of it.

    Its states are `brax.envs.State`s: obs is [state, goal], info["goal"] the commanded goal, metrics at least success
    and dist, done is 1 where the episode ended for good.
    """

    dense_reward: bool  # rewards are shaped, not 1 at the goal and 0 elsewhere

    # Read-only, because classes state some of them as class attributes and others as properties.
    @property
    def state_dim(self) -> int: ...
    @property
    def goal_dim(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    @property
    def goal_indices(self) -> tuple[int, ...]: ...  # the state entries that make up the goal
    @property
    def goal_reach_thresh(self) -> float: ...  # at the goal when nearer than this
    @property
    def backend(self) -> str: ...
    @property
    def compiler_options(self) -> dict[str, Any]: ...  # what XLA must be told when it compiles a step
    @property
    def dt(self) -> Any: ...  # seconds of simulated time per step

    def reset(self, rng: Array) -> Any: ...  # a fresh start and a fresh goal; consumes rng
    def step(self, state: Any, action: Array) -> Any: ...  # action [A]


class Spec(NamedTuple):
    """What an agent needs to know of its environment."""

    state_size: int
    goal_size: int
    action_size: int
    goal_indices: tuple[int, ...]  # the state entries that make up the goal
    discounting: float  # gamma of the goal law and of returns
    goal_reach_thresh: float  # at the goal when nearer than this, in the units of the environment
    dense_reward: bool = False  # rewards are shaped, not 1 at the goal and 0 elsewhere
    action_repeat: int = 1  # environment steps per action, whose rewards are summed

    @classmethod
    def of(cls, env: Env, discounting: float, action_repeat: int = 1) -> "Spec":
        sizes = env.state_dim, env.goal_dim, env.action_size
        return cls(*sizes, tuple(env.goal_indices), discounting, env.goal_reach_thresh, env.dense_reward, action_repeat)

    def goal_of(self, state: Array) -> Array:
        """The goal [..., G] that a state [..., S] achieves."""
        return goals.goal_of(state, self.goal_indices)

    def reached(self, state: Array, goal: Array) -> Array:
        """1 where a state [..., S] is at a goal [..., G], else 0, [...]; both as the environment gives them."""
        return goals.reached(goals.distance(self.goal_of(state), goal), self.goal_reach_thresh)


class Transition(NamedTuple):
    """One row of the buffer; there every leaf is [capacity, N, ...].

    An episode of L steps fills L + 1 rows: the last one holds the state in which it ended and the action that the
    policy would have taken there; its reward means nothing. The next state of a row is the state of the next row of the
    same episode.
    """

    state: Array  # [S]; the goal is never concatenated in storage
    goal: Array  # [G] commanded goal
    action: Array  # [A] in [-1, 1]
    reward: Array  # []
    terminal: Array  # [] 1 where the action ended the episode for good; a time limit does not
    episode_start: Array  # [] int32, absolute row at which this episode began


class Batch(NamedTuple):
    """What every agent's update sees."""

    state: Array  # [B, S]
    action: Array  # [B, A]
    next_state: Array  # [B, S]
    goal: Array  # [B, G] commanded goal
    future_state: Array  # [B, S] later state of the same episode, drawn by the goal law
    future_action: Array  # [B, A] action of the policy in future_state
    reward: Array  # [B] for the commanded goal
    future_reward: Array  # [B] for the goal that future_state achieves: 1 where next_state is at it, else 0
    discount: Array  # [B] gamma, 0 after a true termination


class Agent(NamedTuple):
    """An algorithm as pure functions, like `optax.GradientTransformation`.

    state [..., S] and goal [..., G] have equal leading axes, which the action [..., A] in [-1, 1] keeps.
    """

    init: Callable[[Array], AgentState]  # (key)
    act: Callable[[AgentState, Array, Array, Array], Array]  # (agent, state, goal, key) -> action, for exploration
    mode: Callable[[AgentState, Array, Array], Array]  # (agent, state, goal) -> action, for evaluation and rendering
    # (agent, batch, key); None for an agent that is trained by another loop than the common one
    update: Callable[[AgentState, Batch, Array], tuple[AgentState, Metrics]] | None
    # (agent, state, action, future_state, future_action), leading axis B each -> [B], how near the critic thinks the
    # future is, larger = nearer; None for an agent without a critic of goals
    score: Callable[[AgentState, Array, Array, Array, Array], Array] | None = None
    goal_discounting: float | None = None  # gamma of its goal law, 1: uniform; None: Spec.discounting


class EnvState(NamedTuple):
    """N environments and where each one is in its episode; every leaf has leading axis N."""

    env: Any  # state of the environment (brax.envs.State)
    episode_step: Array  # int32, environment steps since the start of the episode
    episode_start: Array  # int32, absolute row of the buffer at which the episode began
    over: Array  # bool, the episode has ended: the next step starts a new one


class BufferState(NamedTuple):
    """The device-resident ring."""

    rows: Transition  # leaves [capacity, N, ...]; absolute row r lies in slot r % capacity
    count: Array  # type: ignore[assignment]  # [] int32, rows written since the start; hides tuple.count


class RunState(NamedTuple):
    """Everything: save it and a run resumes bit for bit."""

    agent: AgentState
    env: EnvState
    buffer: BufferState
    key: Array
    env_steps: Array  # [] int32
    gradient_steps: Array  # [] int32
    metric_sums: Metrics  # of the train steps since the last evaluation, and their number under "train_steps"
