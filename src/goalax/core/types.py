"""The nouns of the training loop. Sizes: S state, G goal, A action, B batch, N environments."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from goalax.core import goals
from goalax.core.counting import Counter, Sum
from goalax.core.relabel.base import Law

Array = jax.Array
Metrics = dict[str, Array]  # name -> scalar
AgentState = Any  # a pytree that belongs to the agent


class Env(Protocol):
    """What the loop needs of an environment; `goalax.envs.GoalEnv` has all of it.

    Its states are `brax.envs.State`s: obs is [state, goal], info["goal"] the commanded goal, metrics at least success
    and dist, done is 1 where the episode ended for good, pipeline_state.q the joint positions that are filmed. One may
    also have `goal_parts`, if goals are several points, and `cells`, if it is a maze (see `goals`).
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

    def sample_goal(self, key: Array) -> Array: ...  # a commanded goal [G]; consumes key
    def command(self, state: Any, goal: Array) -> Any: ...  # a fresh start with another goal [G]
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
    max_decisions: int = 1000  # actions of the longest episode
    goal_parts: int = 1  # points that make up a goal, each of which must be nearer than the threshold

    @classmethod
    def of(cls, env: Env, discounting: float, action_repeat: int = 1, episode_length: int = 1000) -> "Spec":
        return cls(
            state_size=env.state_dim,
            goal_size=env.goal_dim,
            action_size=env.action_size,
            goal_indices=tuple(env.goal_indices),
            discounting=discounting,
            goal_reach_thresh=env.goal_reach_thresh,
            dense_reward=env.dense_reward,
            action_repeat=action_repeat,
            max_decisions=episode_length // action_repeat,
            goal_parts=getattr(env, "goal_parts", 1),
        )

    def goal_of(self, state: Array) -> Array:
        """The goal [..., G] that a state [..., S] achieves."""
        return goals.goal_of(state, self.goal_indices)

    def achieving(self, state: Array, goal: Array) -> Array:
        """The states [..., S], changed in such a way that they achieve goals [..., G]."""
        return goals.achieving(state, goal, self.goal_indices)

    def distance(self, achieved: Array, goal: Array) -> Array:
        """How far a goal [..., G] is from an achieved one [..., G], [...]; both as the environment gives them."""
        return goals.distance(achieved, goal, self.goal_parts)

    def reached(self, state: Array, goal: Array) -> Array:
        """1 where a state [..., S] is at a goal [..., G], else 0, [...]; both as the environment gives them."""
        return goals.reached(self.distance(self.goal_of(state), goal), self.goal_reach_thresh)


class Transition(NamedTuple):
    """One row of the buffer; there every leaf is [capacity, N, ...].

    An episode of L steps fills L + 1 rows: the last one holds the state in which it ended and the action that the
    policy would have taken there; its reward and terminal mean nothing. The next state of a row is the state of the
    next row of the same episode.
    """

    state: Array  # [S]; the goal is never concatenated in storage
    goal: Array  # [G] commanded goal
    action: Array  # [A] in [-1, 1]
    reward: Array  # []
    terminal: Array  # [] 1 where the action ended the episode for good; a time limit does not
    episode_start: Array  # [] int32, absolute row at which this episode began


class Path(NamedTuple):
    """The H rows from a sample on, all of one episode, and the state after them; as many times the last row and state
    as an episode is too short for that."""

    state: Array  # [B, H + 1, S]
    action: Array  # [B, H, A]
    reward: Array  # [B, H] for the commanded goal
    discount: Array  # [B, H] gamma, 0 after a true termination
    stored: Array  # [B, H] 1 for a row of its own, 0 where the last one is repeated
    future_reward: Array | None = None  # [B, H] for the goal that future_state achieves, as `Batch.future_reward`


class Visit(NamedTuple):
    """When the way that a sample really took first came to its goal, the one that future_state achieves.

    Times are rows (actions), looked for over `Needs.within` of them; the radius is that of the environment.
    """

    goal: Array  # [B, G] in the units of the environment
    steps: Array  # [B] int32 to the first visit, 0 where it is there already; `within` where there is none
    reached: Array  # [B] 1 where there is one, else 0
    left: Array  # [B] int32 rows to the last stored one of the episode
    terminates: Array  # [B] 1 where the episode is known to end for good within these rows, else 0
    # Of each bin of steps ahead (`Needs.bins`), without the present: in how many of the nested regions of 1, 1/2 and
    # 1/4 of the radius the way is, on average over the steps of the bin that were observed; and whether any was. After
    # a true termination the way is nowhere; after a time limit, or where the buffer ends, nothing is observed.
    occupancy: Array  # [B, K]
    observed: Array  # [B, K]


class Waypoint(NamedTuple):
    """A state between a sample and its future_state, or where that is any stored state, later in the episode."""

    state: Array  # [B, S]
    steps: Array  # [B] int32 rows from the sample, 1 or more
    terminal: Array  # [B] 1 where the episode has ended there for good
    reached: Array  # [B] 1 where it is at the goal that future_state achieves, else 0


class Subgoals(NamedTuple):
    """States at most `Needs.subgoal` rows after a sample."""

    near: Array  # [B, S] later in the episode, or its last one
    way: Array  # [B, S] on the way to actor_state, or actor_state itself; as `near` where that is any stored state


class Batch(NamedTuple):
    """What every agent's update sees; what `Needs` does not ask for is None, and costs nothing."""

    state: Array  # [B, S]
    action: Array  # [B, A]
    next_state: Array  # [B, S]
    goal: Array  # [B, G] commanded goal
    future_state: Array  # [B, S] the state whose goal is asked for: of the mix `Needs.goals`, or of `Needs.original`
    future_action: Array  # [B, A] action of the policy in future_state
    reward: Array  # [B] for the commanded goal
    future_reward: Array  # [B] for the goal that future_state achieves: 1 where next_state is at it, else 0
    discount: Array  # [B] gamma, 0 after a true termination
    actor_state: Array | None = None  # [B, S] the same for the actor, of the mix `Needs.actor_goals`
    path: Path | None = None  # where `Needs.horizon` is more than 1
    waypoint: Waypoint | None = None
    visit: Visit | None = None
    same: Array | None = None  # [B] 1 where future_state is the very row of the sample, else 0
    subgoals: Subgoals | None = None
    next_action: Array | None = None  # [B, A] of the next row: stored beside next_state, or the actor's there
    to_go: Array | None = None  # [B] sum of the rewards from the sample to the end of its episode


class Needs(NamedTuple):
    """What an agent asks of the buffer; one that asks for nothing gets the goals of contrastive RL."""

    # Shares of future_state, `original` ones aside: later in the episode by `law`, the state itself, any stored state.
    # They sum to 1.
    goals: tuple[float, float, float] = (1.0, 0.0, 0.0)
    law: Law | None = None  # None: geometric with Spec.discounting
    actor_goals: tuple[float, float, float] | None = None  # None: the actor has the rows of the critic
    # Of actor_state, drawn independently; None: where it lies later in the episode, it is as far ahead as future_state.
    actor_law: Law | None = None
    horizon: int = 1  # rows of Batch.path; all of them lie in one episode
    waypoint: Law | None = None  # (uniform [B], steps to future_state [B]) -> steps to Batch.waypoint
    within: int = 0  # rows in which Batch.visit looks for the first visit of the goal; 0: not at all
    bins: tuple[int, ...] = ()  # edges of the steps ahead that Batch.visit.occupancy averages over
    same: bool = False  # whether to tell which goals are the sample itself
    subgoal: int = 0  # rows to Batch.subgoals, which come with actor_goals; 0: none
    next_action: bool = False  # whether to tell the action of the next row
    to_go: bool = False  # whether to tell returns to go
    # Share of the samples, the last ones of a batch, whose future_state is in place of that their own state, but for
    # achieving their commanded goal, reached or not: the "original" goals of HER, arXiv 1707.01495. For visits and
    # future rewards it is their goal like any other; future_action, same and the steps of waypoint (but not whether it
    # is reached there) are of the goal replaced, and an actor with `actor_goals` never sees it.
    original: float = 0.0


class Memory(NamedTuple):
    """What an agent remembers between actions, leaves [N, ...]; forgotten where an episode starts."""

    start: Callable[[AgentState, int], Any]  # (agent, N) -> memory of N fresh episodes
    # (agent, memory, state, goal, key) -> action [N, A], memory; for exploration
    act: Callable[[AgentState, Any, Array, Array, Array], tuple[Array, Any]]
    # (agent, memory, state, goal) -> action [N, A], memory; for evaluation
    mode: Callable[[AgentState, Any, Array, Array], tuple[Array, Any]]
    # (memory at the end of N episodes) -> metrics of evaluation by name, [N] each
    measures: Callable[[Any], Metrics] | None = None
    # (memory, reward [N] of the last action, as the buffer has it) -> memory; None: rewards are not told
    reward: Callable[[Any, Array], Any] | None = None
    # (memory, ended [N] bool) -> memory, where others of an evaluation go on; None: those that ended trouble nobody
    ended: Callable[[Any, Array], Any] | None = None


class Agent(NamedTuple):
    """An algorithm as pure functions, like `optax.GradientTransformation`.

    state [..., S] and goal [..., G] have equal leading axes, which the action [..., A] in [-1, 1] keeps.
    """

    init: Callable[[Array], AgentState]  # (key)
    act: Callable[[AgentState, Array, Array, Array], Array]  # (agent, state, goal, key) -> action, for exploration
    mode: Callable[[AgentState, Array, Array], Array]  # (agent, state, goal) -> action, for evaluation and rendering
    # (agent, batch, key); None for an agent that is trained by another loop than the common one
    update: Callable[[AgentState, Batch, Array], tuple[AgentState, Metrics]] | None
    # (agent, state [B, S], future_state [B, S]) -> [B], how near the critic thinks the future is to an agent that acts
    # for it, larger = nearer; None for an agent without a critic of goals
    score: Callable[[AgentState, Array, Array], Array] | None = None
    needs: Needs = Needs()  # what its batches hold
    memory: Memory | None = None  # in place of act and mode, for an agent that remembers between actions
    # (agent, labelled batch, key) -> agent, where pre-training ends and fine-tuning begins; None: it simply goes on
    switch: Callable[[AgentState, Batch, Array], AgentState] | None = None
    # (agent) -> the same where the next update is one of all its networks; None: every update is
    due: Callable[[AgentState], AgentState] | None = None


class EnvState(NamedTuple):
    """N environments and where each one is in its episode; every leaf has leading axis N."""

    env: Any  # state of the environment (brax.envs.State)
    episode_step: Array  # int32, environment steps since the start of the episode
    episode_start: Array  # int32, absolute row of the buffer at which the episode began
    over: Array  # bool, the episode has ended: the next step starts a new one
    memory: Any = ()  # of the agent, leaves [N, ...]


class BufferState(NamedTuple):
    """The device-resident ring."""

    rows: Transition  # leaves [capacity, N, ...]; absolute row r lies in slot r % capacity
    # [] int32, rows written since the start, less a multiple of the capacity (`buffer.rebase`); hides tuple.count
    count: Array  # type: ignore[assignment]


class RunState(NamedTuple):
    """Everything: save it and a run resumes bit for bit."""

    agent: AgentState
    env: EnvState
    buffer: BufferState
    key: Array
    env_steps: Counter
    gradient_steps: Counter
    metric_sums: dict[str, Sum]  # of the updates since the last evaluation, and their number under "updates"
