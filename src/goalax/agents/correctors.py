"""Correctors of plans that are followed: networks that learn, from what a new plan would have done, how to change an
action of an old one where the world is not quite where the plan said.

Networks and distillation of https://github.com/sunTr1aL/gym_qwen (commit 9d07908); docs/planning.md tells differences.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from goalax.agents.plans import Planner, fixed_key
from goalax.agents.speculation import Corrector, Following, Speculation, Step, beginning, decision, is_old
from goalax.core import rollout
from goalax.core.types import AgentState, Array, Env, Metrics
from goalax.learning.networks import Network


class TwoLayers(nn.Module):
    """[..., F] -> [..., width]: dense, SiLU, dense."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.silu(nn.Dense(self.width)(x))
        return nn.Dense(self.width)(x)


class TwoTower(nn.Module):
    """(z [..., Z], predicted z [..., Z], action [..., A]) -> action [..., A] in [-1, 1].

    What is real and what was planned are encoded apart, and a gate says how much the first may change of the second;
    before training it is the action itself.
    """

    width: int = 256

    @nn.compact
    def __call__(self, z: Array, expected: Array, action: Array) -> Array:
        planned = TwoLayers(self.width)(action)
        parts = [*(TwoLayers(self.width)(x) for x in (z, expected, z - expected)), planned]
        both = jnp.concatenate(parts, axis=-1)
        gate = jax.nn.sigmoid(TwoLayers(self.width)(both))
        fused = gate * TwoLayers(self.width)(both) + (1 - gate) * planned
        change = nn.Dense(action.shape[-1], kernel_init=nn.initializers.zeros)(fused)
        return jnp.clip(action + jnp.tanh(change), -1, 1)


def two_tower(width: int) -> Network[Array]:
    return cast(Network[Array], TwoTower(width))


class Samples(NamedTuple):
    """Decisions by plans that were followed, and what a new plan would have done."""

    z: Array  # [B, Z]
    expected: Array  # [B, Z]
    action: Array  # [B, A] of the plan
    teacher: Array  # [B, A] first action of a new plan


class Acting(NamedTuple):
    """What remembers its plans, and how many of its actions were corrected."""

    held: Following
    corrected: Array  # [N] int32


# (state [N, S], goal [N, G] of the environment) -> those that the agent sees
Inputs = Callable[[Array, Array], tuple[Array, Array]]


def acting(
    planner: Planner, rules: Speculation, agent: AgentState, inputs: Inputs, corrector: Corrector | None
) -> rollout.Policy:
    """Plans without exploration, the actions of old ones corrected; with two more metrics of an evaluation."""

    def act(memory: Acting, state: Array, goal: Array, key: Array) -> tuple[Array, Acting]:
        key = fixed_key(memory.held.decisions)
        action, held, step = decision(
            planner, rules, agent, memory.held, *inputs(state, goal), key, False, corrector=corrector
        )
        changed = is_old(step.kind) & (corrector is not None)
        return action, Acting(held, memory.corrected + changed.astype(jnp.int32))

    def measures(memory: Acting) -> Metrics:
        decisions = jnp.maximum(memory.held.decisions, 1)
        return {
            "plans_per_decision": memory.held.plans / decisions,
            "corrected_per_decision": memory.corrected / decisions,
        }

    def start(num: int) -> Acting:
        return Acting(beginning(planner, rules, num), jnp.zeros(num, jnp.int32))

    return rollout.Policy(act, start, measures)


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
) -> tuple[Samples, Array]:
    """Follows plans through one fresh episode of each environment, and plans anew beside at every decision.

    Plans of all ages are seen that `rules` let them reach, where the corrector will meet them. Consumes key.

    Args:
      rules: with room for all, so that every environment has a new plan to learn from.

    Returns:
      Leaves [decisions, N, ...], and which of them are samples, [decisions, N] bool: decisions by an old plan.
    """
    start_key, _ = jax.random.split(key)
    start = rollout.reset_all(env, jax.random.split(start_key, num_envs))

    def one(carry: Any, _: None) -> Any:
        envs, held, alive = carry
        seen = inputs(*rollout.split_observation(env, envs))
        action, held, step = decision(planner, rules, agent, held, *seen, fixed_key(held.decisions), False)
        after = rollout.hold(env, envs, action, action_repeat)
        return (after, held, alive & (after.done == 0)), (of_step(step), alive & is_old(step.kind))

    carry = start, beginning(planner, rules, num_envs), jnp.ones(num_envs, bool)
    return jax.lax.scan(one, carry, length=decisions)[1]


def of_step(step: Step) -> Samples:
    return Samples(step.z, step.expected, step.planned, step.fresh)


def distillation_loss(
    network: Network[Array], params: Any, samples: Samples, regularization: float
) -> tuple[Array, Array]:
    """Squared error to the teacher, mean over entries, plus a weight times that to the plan; and the first alone."""
    action = network.apply(params, samples.z, samples.expected, samples.action)
    error = jnp.mean((action - samples.teacher) ** 2)
    return error + regularization * jnp.mean((action - samples.action) ** 2), error


def distil(
    network: Network[Array],
    params: Any,
    samples: Samples,
    key: Array,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    regularization: float,
) -> tuple[Any, Array]:
    """Learns from all whole batches of samples, leaves [B, ...] with B of batch_size or more, so many times; consumes
    key.

    Returns:
      Parameters, and the mean error to the teacher of each epoch, [epochs].
    """
    optimizer, num = optax.adam(learning_rate), len(samples.z)
    batches = num // batch_size

    def update(carry: Any, rows: Array) -> Any:
        params, optimizer_state = carry
        batch = jax.tree.map(lambda leaf: leaf[rows], samples)
        gradients, error = jax.grad(lambda p: distillation_loss(network, p, batch, regularization), has_aux=True)(
            params
        )
        steps, optimizer_state = optimizer.update(gradients, optimizer_state)
        return (optax.apply_updates(params, steps), optimizer_state), error

    def epoch(carry: Any, key: Array) -> Any:
        rows = jax.random.permutation(key, num)[: batches * batch_size].reshape(batches, batch_size)
        carry, errors = jax.lax.scan(update, carry, rows)
        return carry, jnp.mean(errors)

    (params, _), errors = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, epochs))
    return params, errors
