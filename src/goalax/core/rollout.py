"""The loops over env.step of training: collection with fresh resets, and evaluation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from goalax.core.sharding import DIVIDED, WHOLE, local, num_shards, shard_index
from goalax.core.types import Array, Env, EnvState, Metrics, Transition


class Policy(NamedTuple):
    """What acts in N environments at once, and what it remembers from action to action."""

    act: Callable[[Any, Array, Array, Array], tuple[Array, Any]]  # (memory, state [N, S], goal [N, G], key) -> [N, A]
    start: Callable[[int], Any]  # (N) -> memory of N fresh episodes, leaves [N, ...]
    measures: Callable[[Any], Metrics] | None = None  # (memory) -> metrics of evaluation, [N] each
    reward: Callable[[Any, Array], Any] | None = None  # (memory, reward [N] of the last action) -> memory; None: untold
    ended: Callable[[Any, Array], Any] | None = None  # (memory, [N] bool) -> memory of episodes that ended; None: same


def memoryless(act: Callable[[Array, Array, Array], Array]) -> Policy:
    """The policy of a function (state [N, S], goal [N, G], key) -> action [N, A]."""
    return Policy(lambda memory, state, goal, key: (act(state, goal, key), memory), lambda num_envs: ())


def where(condition: Array, yes: Any, no: Any) -> Any:
    """Per environment: leaves [N, ...] of `yes` where condition [N], else of `no`."""
    select = lambda a, b: jnp.where(condition.reshape(-1, *(1,) * (a.ndim - 1)), a, b)  # noqa: E731
    return jax.tree.map(select, yes, no)


def split_observation(env: Env, env_state: Any) -> tuple[Array, Array]:
    """State [N, S] and goal [N, G]."""
    return env_state.obs[..., : env.state_dim], env_state.obs[..., env.state_dim :]


# Jitted although only called from jitted code: physics is then traced once, not in every function that steps.
@functools.partial(jax.jit, static_argnums=0)
def reset_all(env: Env, keys: Array) -> Any:
    """A fresh environment for each of the keys [N, 2]."""
    return local(jax.vmap(env.reset))(keys)


@functools.partial(jax.jit, static_argnums=0)
def step_all(env: Env, env_state: Any, action: Array) -> Any:
    """One step of all environments; action [N, A]."""
    return local(jax.vmap(env.step))(env_state, action)


def hold(env: Env, env_state: Any, action: Array, action_repeat: int) -> Any:
    """Steps all environments action_repeat times with one action, rewards summed; what terminates on the way stays
    as it is from there on."""

    def step(before, _):
        after = step_all(env, before, action)
        ended = before.done > 0
        return where(ended, before, after), jnp.where(ended, 0.0, after.reward)

    if action_repeat == 1:
        return step_all(env, env_state, action)
    after, rewards = jax.lax.scan(step, env_state.replace(done=jnp.zeros_like(env_state.done)), length=action_repeat)
    return after.replace(reward=jnp.sum(rewards, axis=0))


@functools.partial(jax.jit, static_argnums=0)
def command_all(env: Env, env_state: Any, goal: Array) -> Any:
    """Fresh environments with the goals [N, G] in the place of their own."""
    return local(jax.vmap(env.command))(env_state, goal)


class Commands(NamedTuple):
    """Goals of fresh starts in the place of those that the environment draws."""

    goals: Callable[[Array, int], Array]  # (key, num) -> [num, G]
    since: int  # the row from which on they are known


def init(env: Env, key: Array, num_envs: int, memory: Any = (), commands: Commands | None = None) -> EnvState:
    """N fresh environments; memory: of the policy that will act in them."""
    zeros = jnp.zeros(num_envs, jnp.int32)
    fresh = reset_all(env, jax.random.split(key, num_envs))
    if commands is not None and commands.since == 0:
        goal_key = jax.random.fold_in(key, num_envs)  # the keys of the resets are those of smaller numbers
        fresh = command_all(env, fresh, commands.goals(goal_key, num_envs))
    return EnvState(fresh, episode_step=zeros, episode_start=zeros, over=zeros > 0, memory=memory)


def unroll(
    env: Env,
    policy: Policy,
    envs: EnvState,
    row: Array,
    key: Array,
    *,
    length: int,
    episode_length: int,
    action_repeat: int,
    commands: Commands | None = None,
) -> tuple[EnvState, Transition]:
    """Collects `length` rows.

    An episode that ended is followed by a fresh start with a fresh goal, which takes one row (as in Gymnasium's
    next-step autoreset), so that the state in which it ended gets a row too. Fresh starts are drawn once per unroll, at
    least as many as there are rows and environments: environment e takes number e + t at row t, so it never starts
    twice from the same one, and two environments do only if their episodes end as many rows apart as their numbers.

    Args:
      row: [] int32, absolute row of the first one collected.
      key: consumed.
      commands: goals of fresh starts, in unrolls that do not begin before `since`.

    Returns:
      The environments after, and rows with leaves [length, N, ...].
    """
    num_envs = envs.over.shape[0]
    reset_key, action_key = jax.random.split(key)
    pool_size = num_envs * -(-length // num_envs)
    own = num_envs // num_shards()  # the device's first one takes `own + length - 1` starts, from its number on

    def draw(keys, goals, row):  # each seed has its own `row`: a mesh of seeds takes it only as an argument
        distinct = min(own + length - 1, pool_size)
        numbers = (shard_index() * own + jnp.arange(distinct)) % pool_size
        drawn = reset_all(env, keys[numbers])
        if commands is not None:
            known = row >= commands.since
            drawn = command_all(env, drawn, jnp.where(known, goals[numbers], drawn.info["goal"]))
        return jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[: own + length - 1 - distinct]]), drawn)

    def starts_at(pool, t):
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, t, own), pool)

    goals = None if commands is None else commands.goals(jax.random.split(key, 3)[2], pool_size)
    pool = local(draw, WHOLE, DIVIDED)(jax.random.split(reset_key, pool_size), goals, row)
    blank = policy.start(num_envs)

    def step(envs: EnvState, inputs):
        t, key = inputs
        state, goal = split_observation(env, envs.env)
        action, memory = policy.act(envs.memory, state, goal, key)
        stepped = hold(env, envs.env, action, action_repeat)
        if policy.reward is not None:
            memory = policy.reward(memory, stepped.reward)
        fresh = local(starts_at, (DIVIDED, WHOLE), DIVIDED)(pool, t)
        episode_step = jnp.where(envs.over, 0, envs.episode_step + action_repeat)
        after = EnvState(
            env=where(envs.over, fresh, stepped),
            episode_step=episode_step,
            episode_start=jnp.where(envs.over, row + t + 1, envs.episode_start),
            over=~envs.over & ((stepped.done > 0) | (episode_step >= episode_length)),
            memory=where(envs.over, blank, memory),
        )
        return after, Transition(state, goal, action, stepped.reward, stepped.done, envs.episode_start)

    return jax.lax.scan(step, envs, (jnp.arange(length), jax.random.split(action_key, length)))


# Metrics of an evaluation that mean something where there are goals.
OF_GOALS = ("episode_success", "episode_success_any", "episode_dist", "time_at_goal", "final_dist")


class Recording(NamedTuple):
    """Steps of a few episodes, leaves [T, E, ...]: what an evaluation saw after each step."""

    q: Array  # [T, E, Q] joint positions
    goal: Array  # [T, E, G]
    success: Array  # [T, E]
    alive: Array  # [T, E] bool, False after a termination: those steps count nowhere


class Outcomes(NamedTuple):
    """What became of each of E episodes."""

    goal: Array  # [E, G] commanded
    reached: Array  # [E] 1 where at least one step was at the goal, else 0
    time_at_goal: Array  # [E] share of the time limit
    reward: Array | None = None  # [E] sum of its rewards; None where nobody tells it


def evaluate(
    env: Env, policy: Policy, key: Array, *, num_envs: int, episode_length: int, action_repeat: int, recorded: int = 0
) -> tuple[Metrics, Recording, Outcomes]:
    """One fresh episode in each of num_envs environments: averages over them, a recording of the first `recorded`, and
    what became of each.

    episode_X is the sum of X over the steps of an episode; episode_success_any the share of episodes with at least one
    step at the goal; time_at_goal the share of the time limit spent there; final_dist the distance after the last step;
    falls the share of episodes that ended for good, as where a body fell or its physics broke, and 0 for bodies that
    cannot fall. Nothing counts after a termination. An environment without goals tells nothing of success and distance.
    Consumes key.
    """
    reset_key, action_key = jax.random.split(key)
    start = reset_all(env, jax.random.split(reset_key, num_envs))
    zeros = jnp.zeros(num_envs)
    totals = {"reward": zeros, "length": zeros, **jax.tree.map(jnp.zeros_like, start.metrics)}

    def env_step(carry, _):
        env_state, action, alive, totals, final_dist = carry
        after = step_all(env, env_state, action)
        values = {"reward": after.reward, "length": jnp.ones_like(zeros), **after.metrics}
        totals = jax.tree.map(lambda total, value: total + jnp.where(alive, value, 0.0), totals, values)
        final_dist = jnp.where(alive, after.metrics["dist"], final_dist)
        seen = Recording(after.pipeline_state.q, after.info["goal"], after.metrics["success"], alive)
        seen = jax.tree.map(lambda leaf: leaf[:recorded], seen)
        reward = None if policy.reward is None else jnp.where(alive, after.reward, 0.0)
        return (after, action, alive & (after.done == 0), totals, final_dist), (seen, reward)

    def decision(carry, key):
        env_state, alive, totals, final_dist, memory = carry
        action, after = policy.act(memory, *split_observation(env, env_state), key)
        memory = where(alive, after, memory)  # whose measures count no decision after the end
        carry = env_state, action, alive, totals, final_dist
        carry, (seen, reward) = jax.lax.scan(env_step, carry, length=action_repeat)
        env_state, _, *rest = carry
        if policy.reward is not None:
            memory = policy.reward(memory, jnp.sum(reward, axis=0))
        if policy.ended is not None:
            memory = policy.ended(memory, ~rest[0])
        return (env_state, *rest, memory), seen

    keys = jax.random.split(action_key, episode_length // action_repeat)
    carry = (start, zeros == 0, totals, start.metrics["dist"], policy.start(num_envs))
    (_, alive, totals, final_dist, memory), seen = jax.lax.scan(decision, carry, keys)
    length = totals.pop("length")
    metrics = {f"episode_{name}": jnp.mean(total) for name, total in totals.items()}
    metrics |= {
        "episode_success_any": jnp.mean(totals["success"] > 0),
        "time_at_goal": jnp.mean(totals["success"]) / episode_length,
        "final_dist": jnp.mean(final_dist),
        "falls": jnp.mean(~alive),
        "avg_episode_length": jnp.mean(length),
    }
    if env.goal_dim == 0:
        metrics = {name: value for name, value in metrics.items() if name not in OF_GOALS}
    if policy.measures is not None:
        metrics |= {name: jnp.mean(value) for name, value in policy.measures(memory).items()}
    reached = (totals["success"] > 0).astype(jnp.float32)
    outcomes = Outcomes(start.info["goal"], reached, totals["success"] / episode_length, totals["reward"])
    return metrics, jax.tree.map(lambda leaf: leaf.reshape(episode_length, *leaf.shape[2:]), seen), outcomes
