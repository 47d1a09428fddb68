"""What correctors of plans learn from, and how: they follow plans beside a planner that makes a new one at every
decision, and learn to do what it would have done (the code of https://github.com/sunTr1aL/gym_qwen, commit 9d07908)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.correctors import Corrector, History, blank, latest, remembered
from goalax.agents.plans import Planner, fixed_key
from goalax.agents.speculation import Following, Speculation, beginning, decision, distance_between, ended, is_old
from goalax.core import rollout
from goalax.core.types import AgentState, Array, Env, Metrics
from goalax.learning.networks import Network


class Decisions(NamedTuple):
    """Decisions where plans are followed, those of an episode in a row, and what a new plan would have done."""

    z: Array  # [R, Z] latent state
    expected: Array  # [R, Z] as the plan predicted it; z itself where the plan is new
    action: Array  # [R, A] of the plan
    teacher: Array  # [R, A] first action of a new plan, or the mean that the search for it ended with


class Samples(NamedTuple):
    """Which decisions are learned from."""

    row: Array  # [B] int32 the decision
    length: Array  # [B] int32, 1 or more: how many are seen, with those of its episode before it


class Acting(NamedTuple):
    """What remembers its plans, how many of its actions were corrected, and what the corrector sees."""

    held: Following
    corrected: Array  # [N] int32
    history: Any  # History; () without a corrector


# (state [N, S], goal [N, G] of the environment) -> those that the agent sees
Inputs = Callable[[Array, Array], tuple[Array, Array]]


def acting(
    planner: Planner, rules: Speculation, agent: AgentState, inputs: Inputs, corrector: Corrector | None
) -> rollout.Policy:
    """Plans without exploration, the actions of old ones corrected; with two more metrics of an evaluation.

    Who is farther off the prediction than `rules.mismatch` and has no room for a new plan is not corrected: where plans
    are collected there is room for all, and no corrector has seen such a decision.
    """

    def act(memory: Acting, state: Array, goal: Array, key: Array) -> tuple[Array, Acting]:
        key = fixed_key(memory.held.decisions)
        held, step = decision(planner, rules, agent, memory.held, *inputs(state, goal), key, False)
        if corrector is None:
            return step.planned, memory._replace(held=held)
        old = is_old(step.kind) & (distance_between(step.z, step.expected) <= rules.mismatch)
        history = remembered(memory.history, step.z, step.expected, step.planned)
        action = rollout.where(old, corrector.correct(history), step.planned)
        return action, Acting(held, memory.corrected + old.astype(jnp.int32), history)

    def measures(memory: Acting) -> Metrics:
        decisions = jnp.maximum(memory.held.decisions, 1)
        return {
            "plans_per_decision": memory.held.plans / decisions,
            "corrected_per_decision": memory.corrected / decisions,
        }

    def start(num: int) -> Acting:
        history: Any = ()
        if corrector is not None:
            history = blank(num, corrector.history, planner.latent_size, planner.action_size)
        return Acting(beginning(planner, rules, num), jnp.zeros(num, jnp.int32), history)

    def over(memory: Acting, episodes: Array) -> Acting:
        return memory._replace(held=ended(memory.held, episodes))

    return rollout.Policy(act, start, measures, ended=over)


def collect(
    env: Env,
    planner: Planner,
    rules: Speculation,
    agent: AgentState,
    inputs: Inputs,
    key: Array,
    *,
    num_envs: int,
    decisions: int,
    action_repeat: int,
    smooth: bool = False,
) -> tuple[Decisions, Array, Array]:
    """Follows plans through one fresh episode of each environment, and plans anew beside at every decision.

    Plans of all ages are seen that `rules` let them reach, where the corrector will meet them. Consumes key.

    Args:
      rules: with room for all, so that every environment has a new plan to learn from.
      smooth: the teacher is the mean of what the search ended with; else the action drawn from there that is executed.

    Returns:
      Leaves [decisions, N, ...]; which of them were made, before an episode ended for good, and which of these by an
      old plan, both [decisions, N] bool.
    """
    start_key, _ = jax.random.split(key)
    start = rollout.reset_all(env, jax.random.split(start_key, num_envs))

    def one(carry: Any, _: None) -> Any:
        envs, held, alive = carry
        seen = inputs(*rollout.split_observation(env, envs))
        held, step = decision(planner, rules, agent, held, *seen, fixed_key(held.decisions), False)
        after = rollout.hold(env, envs, step.planned, action_repeat)
        made = Decisions(step.z, step.expected, step.planned, step.means if smooth else step.fresh)
        return (after, held, alive & (after.done == 0)), (made, alive, alive & is_old(step.kind))

    carry = start, beginning(planner, rules, num_envs), jnp.ones(num_envs, bool)
    return jax.lax.scan(one, carry, length=decisions)[1]


def histories(decisions: Decisions, samples: Samples, steps: int) -> History:
    """What a corrector that sees `steps` decisions sees at samples."""
    row, length, place = samples.row[:, None], samples.length[:, None], jnp.arange(steps)[None]
    there = place < length
    rows = jnp.where(there, row - length + 1 + place, row)
    z, expected, action = (jnp.where(there[..., None], leaf[rows], 0.0) for leaf in decisions[:3])
    return History(z, expected, action, samples.length)


def distillation_loss(
    network: Network[Array],
    params: Any,
    history: History,
    teacher: Array,
    regularization: float,
    key: Array | None = None,
) -> tuple[Array, Array]:
    """Squared error to the teacher [B, A], mean over entries, plus a weight times that to the plan; and the first
    alone. With a key, which is consumed, the network drops what it learns without."""
    action = network.apply(params, *history) if key is None else network.apply(params, *history, key)
    error = jnp.mean((action - teacher) ** 2)
    return error + regularization * jnp.mean((action - latest(*history)[2]) ** 2), error


def distil(
    network: Network[Array],
    params: Any,
    decisions: Decisions,
    samples: Samples,
    key: Array,
    *,
    steps: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    regularization: float,
    held_out: Samples | None = None,
) -> tuple[Any, Array, Array]:
    """Learns from all whole batches of samples, of which there are batch_size or more, so many times; consumes key.

    Args:
      steps: decisions that the network sees.
      held_out: other samples, that tell which epoch was the best; the last one is without them.

    Returns:
      Parameters behind the best epoch, and of each epoch, [epochs], the mean error to the teacher while it learned, and
      behind it that on the samples held out, NaN without them.
    """
    optimizer, num = optax.adam(learning_rate), len(samples.row)
    batches = num // batch_size

    def measured(params: Any) -> Array:
        if held_out is None:
            return jnp.float32(jnp.nan)
        history = histories(decisions, held_out, steps)
        return distillation_loss(network, params, history, decisions.teacher[held_out.row], 0.0)[1]

    def update(carry: Any, inputs: tuple[Array, Array]) -> Any:
        (params, optimizer_state), (chosen, key) = carry, inputs
        batch = jax.tree.map(lambda leaf: leaf[chosen], samples)
        history, teacher = histories(decisions, batch, steps), decisions.teacher[batch.row]
        loss = lambda p: distillation_loss(network, p, history, teacher, regularization, key)  # noqa: E731
        gradients, error = jax.grad(loss, has_aux=True)(params)
        changes, optimizer_state = optimizer.update(gradients, optimizer_state)
        return (optax.apply_updates(params, changes), optimizer_state), error

    def epoch(carry: Any, key: Array) -> Any:
        learner, best, lowest = carry
        order_key, drop_key = jax.random.split(key)
        order = jax.random.permutation(order_key, num)[: batches * batch_size].reshape(batches, batch_size)
        learner, errors = jax.lax.scan(update, learner, (order, jax.random.split(drop_key, batches)))
        beyond = measured(learner[0])
        better = jnp.isnan(lowest) | (beyond < lowest)  # nothing is worse than what was not measured
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), learner[0], best)
        return (learner, best, jnp.where(better, beyond, lowest)), (jnp.mean(errors), beyond)

    first = (params, optimizer.init(params)), params, jnp.float32(jnp.nan)
    (_, best, _), (errors, beyond) = jax.lax.scan(epoch, first, jax.random.split(key, epochs))
    return best, errors, beyond
