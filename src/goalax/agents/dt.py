"""DT: a Decision Transformer (arXiv 2106.01345) whose return to go is a goal: behaviour cloning of what led to it, by
a transformer that sees the last steps of the episode."""

import dataclasses
import math
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import AGENTS, STRATEGIES, Algorithm, HindsightConfig
from goalax.agents.bc import squared_error
from goalax.core.relabel import RELABEL, Law
from goalax.core.rollout import where
from goalax.core.types import Agent, Array, Batch, Memory, Needs, Spec
from goalax.flags import FlagError, flag
from goalax.learning.networks import Network
from goalax.learning.transformer import WEIGHTS, Transformer

# As published: arXiv 2106.01345, appendix A.
MAX_GRADIENT = 0.25  # norm at which gradients are clipped
WEIGHT_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class DTConfig(HindsightConfig):
    """Defaults as published for Gym but for the warm-up, 10,000 there, where runs have 100,000 updates."""

    context_length: int = flag(20, "steps of the episode that it sees, at most all of them", low=1, high=1024)
    n_blocks: int = flag(3, "blocks of the transformer", low=1, high=1024)
    heads: int = flag(1, "heads of its attention; --h_dim is a multiple of them", low=1, high=1024)
    h_dim: int = flag(128, "entries of a token", low=1, most=1_000_000)
    dropout: float = flag(0.1, "share of a block's outputs that it learns without", low=0, below=1)
    policy_lr: float = flag(1e-4, "learning rate", above=0)
    warm_up: int = flag(1000, "updates until the learning rate is reached, along a line", low=1)
    exploration_noise: float = flag(0.4, "standard deviation of the noise on actions taken", low=0)

    def transformer(self) -> Transformer:
        """That of these flags. FlagError if its heads do not share a token."""
        if left := self.h_dim % self.heads:
            raise FlagError(
                f"--h_dim is {self.h_dim}; it must be a multiple of --heads {self.heads}, for example"
                f" {self.h_dim - left + self.heads}."
            )
        return Transformer(self.n_blocks, self.heads, self.dropout)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        rate = lambda count: self.policy_lr * jnp.minimum(1.0, (count + 1) / self.warm_up)  # noqa: E731
        return optax.chain(optax.clip_by_global_norm(MAX_GRADIENT), optax.adamw(rate, weight_decay=WEIGHT_DECAY))


class DecisionTransformer(nn.Module):
    """(goal [B, G], states [B, T, S], actions [B, T, A]) -> [B, T, A]: at each step the action before tanh, from the
    goal, the states up to the step and the actions before it.

    A step has one token for its state and one for its action, which share a learned embedding of its place. The goal is
    the same at all steps, and has one token, the first.
    """

    transformer: Transformer
    width: int
    context: int  # T at most

    @nn.compact
    def __call__(self, goal: Array, state: Array, action: Array, key: Array | None = None) -> Array:
        embed = lambda x: nn.Dense(self.width, kernel_init=WEIGHTS)(x)  # noqa: E731
        size, steps = state.shape[:2]
        places = self.param("places", WEIGHTS, (self.context, self.width))[None, :steps]
        pairs = jnp.stack([embed(state) + places, embed(action) + places], axis=2).reshape(size, 2 * steps, -1)
        tokens = jnp.concatenate([embed(goal)[:, None], pairs[:, :-1]], axis=1)  # no action follows the last one
        seen = self.transformer(nn.LayerNorm()(tokens), key)
        return nn.Dense(action.shape[-1], kernel_init=WEIGHTS)(seen[:, 1::2])


class DTState(NamedTuple):
    params: dict  # actor
    optimizer: optax.OptState


class Context(NamedTuple):
    """The last K steps of N episodes, the oldest first; zeros behind the newest."""

    state: Array  # [N, K, S]
    action: Array  # [N, K, A]
    length: Array  # [N] int32 steps that there are


def behind(law: Law, horizon: int) -> Law:
    """The law that counts from the last of `horizon` rows: goals lie behind all of their actions.

    Where the episode ends before that, they lie at its end.
    """

    def ahead(uniform: Array, left: Array) -> Array:
        return jnp.minimum(horizon - 1 + law(uniform, jnp.maximum(left - horizon + 1, 1)), left)

    return ahead


def with_state(context: Context, state: Array) -> tuple[Context, Array]:
    """The context with the states [N, S] of a new step, without the oldest one where it is full; and the place [N] of
    that step."""
    steps = context.state.shape[1]
    full = context.length == steps
    states, actions = (where(full, jnp.roll(x, -1, axis=1), x) for x in context[:2])
    place = jnp.minimum(context.length, steps - 1)
    return Context(put(states, place, state), put(actions, place, 0.0), jnp.minimum(context.length + 1, steps)), place


def put(values: Array, place: Array, new: Array | float) -> Array:
    """values [N, K, F] with `new` [N, F] at one place [N] each."""
    here = jnp.arange(values.shape[1])[None] == place[:, None]
    new = new if isinstance(new, float) else new[:, None]
    return jnp.where(here[..., None], new, values)


def make(config: DTConfig, spec: Spec) -> Agent:
    steps, optimizer = min(config.context_length, spec.max_decisions), config.optimizer
    network = DecisionTransformer(config.transformer(), config.h_dim, steps)
    actor = cast(Network[Array], network)
    law = STRATEGIES[config.her_strategy] or RELABEL["geometric"](spec.discounting)

    def init(key):
        shapes = (1, spec.goal_size), (1, steps, spec.state_size), (1, steps, spec.action_size)
        params = {"actor": actor.init(key, *map(jnp.zeros, shapes))}
        return DTState(params, optimizer.init(params))

    def loss(params: dict, batch: Batch, key: Array) -> Array:
        """Squared error, summed over the action, mean over all steps of the batch."""
        goal = spec.goal_of(batch.future_state)
        if batch.path is None:
            states, actions = batch.state[:, None], batch.action[:, None]
        else:
            states, actions = batch.path.state[:, :-1], batch.path.action
        chosen = jnp.tanh(actor.apply(params["actor"], goal, states, actions, key))
        return jnp.mean(squared_error(chosen, actions))

    def update(agent, batch, key):
        actor_loss, gradients = jax.value_and_grad(loss)(agent.params, batch, key)
        changes, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        return DTState(optax.apply_updates(agent.params, changes), optimizer_state), {"actor_loss": actor_loss}

    def start(agent: DTState, num: int) -> Context:
        blank = lambda size: jnp.zeros((num, steps, size))  # noqa: E731
        return Context(blank(spec.state_size), blank(spec.action_size), jnp.zeros(num, jnp.int32))

    def decide(agent: Any, held: Context, state: Array, goal: Array, key: Array | None) -> tuple[Array, Context]:
        held, place = with_state(held, state)
        chosen = actor.apply(agent.params["actor"], goal, held.state, held.action)
        action = noisy(jnp.tanh(jnp.take_along_axis(chosen, place[:, None, None], axis=1)[:, 0]), key)
        return action, held._replace(action=put(held.action, place, action))

    def noisy(action: Array, key: Array | None) -> Array:
        if key is None:
            return action
        return jnp.clip(action + config.exploration_noise * jax.random.normal(key, action.shape), -1, 1)

    def alone(agent: DTState, state: Array, goal: Array, key: Array | None) -> Array:
        """Actions [..., A] for callers who remember nothing: those of the first step of an episode."""
        lead = state.shape[:-1]
        num = math.prod(lead)
        states = state.reshape(num, 1, -1)
        chosen = actor.apply(
            agent.params["actor"], goal.reshape(num, -1), states, jnp.zeros((num, 1, spec.action_size))
        )
        return noisy(jnp.tanh(chosen).reshape(*lead, -1), key)

    return Agent(
        init,
        act=alone,
        mode=lambda agent, state, goal: alone(agent, state, goal, None),
        update=update,
        needs=Needs(law=behind(law, steps), horizon=steps),
        memory=Memory(start, decide, lambda agent, held, state, goal: decide(agent, held, state, goal, None)),
    )


AGENTS.add("dt", Algorithm(DTConfig, make))
