"""DT: a Decision Transformer (arXiv 2106.01345), which imitates what led to a goal, or in environments without goals to
a return, by a transformer that sees the last steps of the episode."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import AGENTS, STRATEGIES, Algorithm, HindsightConfig
from goalax.agents.bc import squared_error
from goalax.core.relabel import RELABEL, Law
from goalax.core.types import Agent, Array, Batch, Memory, Needs, Spec
from goalax.flags import FlagError, flag
from goalax.learning.networks import Network
from goalax.learning.recent import at, pushed, put
from goalax.learning.transformer import WEIGHTS, Transformer

# As published: arXiv 2106.01345, appendix A.
MAX_GRADIENT = 0.25  # norm at which gradients are clipped
WEIGHT_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class DTConfig(HindsightConfig):
    """Sizes and rates as published for Gym but for the warm-up, 10,000 there, where runs have 100,000 updates; batches
    (64 there); and the return that is asked for, 3,600 to 6,000 there: the most of DeepMind Control."""

    context_length: int = flag(20, "steps of the episode that it sees, at most all of them", low=1, high=1024)
    n_blocks: int = flag(3, "blocks of the transformer", low=1, high=1024)
    heads: int = flag(1, "heads of its attention; --h_dim is a multiple of them", low=1, high=1024)
    h_dim: int = flag(128, "entries of a token", low=1, most=1_000_000)
    dropout: float = flag(0.1, "share of a block's outputs that it learns without", low=0, below=1)
    policy_lr: float = flag(1e-4, "learning rate", above=0)
    warm_up: int = flag(1000, "updates until the learning rate is reached, along a line", low=1)
    exploration_noise: float = flag(0.4, "standard deviation of the noise on actions taken", low=0)
    target_return: float = flag(1000.0, "without goals: the sum of the rewards of an episode that is asked for")
    return_scale: float = flag(1000.0, "without goals: returns are seen divided by this", above=0)

    def transformer(self) -> Transformer:
        """That of these flags. FlagError if its heads do not share a token."""
        if left := self.h_dim % self.heads:
            raise FlagError(
                f"--h_dim is {self.h_dim}; it must be a multiple of --heads {self.heads}, for example"
                f" {self.h_dim - left + self.heads}."
            )
        return Transformer(self.n_blocks, self.heads, self.dropout)

    def require(self, goals: bool) -> None:
        """FlagError for flags that say something of goals where there are none, or of returns where there are goals."""
        where = "has goals, which are asked for in place of returns" if goals else "has no goals"
        for name in ("target_return", "return_scale") if goals else ("her_strategy",):
            value = getattr(self, name)
            if value != self.__dataclass_fields__[name].default:
                raise FlagError(f"--{name} is {value!r}; the environment {where}: leave it out.")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        def rate(count: Array) -> Array:
            begun = jnp.minimum(count, self.warm_up)  # the count stays at the largest int32, which must not overflow
            return self.policy_lr * jnp.minimum(1.0, (begun + 1) / self.warm_up)

        return optax.chain(optax.clip_by_global_norm(MAX_GRADIENT), optax.adamw(rate, weight_decay=WEIGHT_DECAY))


def embedding(width: int, x: Array) -> Array:
    """A token [..., width] of entries [..., F], a dense layer of the module that calls it, as published.

    Its bias is not 0 at the start: behind the LayerNorm of the tokens a goal twice as far would be the same one.
    """
    limit = x.shape[-1] ** -0.5
    start = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -limit, limit)  # noqa: E731
    return nn.Dense(width, kernel_init=start, bias_init=start)(x)


class DecisionTransformer(nn.Module):
    """(asked, states [B, T, S], actions [B, T, A]) -> [B, T, A]: at each step the action before tanh, from what is
    asked for, the states up to the step and the actions before it.

    What is asked for is a goal [B, G], the same at all steps, with one token, the first; or returns to go [B, T, 1],
    each with a token before that of its state (arXiv 2106.01345, section 3). A step has one token for its state and one
    for its action. The tokens of a step share a learned embedding of its place.
    """

    transformer: Transformer
    width: int
    context: int  # T at most

    @nn.compact
    def __call__(self, asked: Array, state: Array, action: Array, key: Array | None = None) -> Array:
        embed = functools.partial(embedding, self.width)
        size, steps = state.shape[:2]
        places = self.param("places", WEIGHTS, (self.context, self.width))[None, :steps]
        parts, asked = [embed(state) + places, embed(action) + places], embed(asked)
        if goal := asked.ndim == 2:
            first = asked[:, None]
        else:
            parts, first = [asked + places, *parts], asked[:, :0]
        each = jnp.stack(parts, axis=2).reshape(size, len(parts) * steps, -1)
        tokens = jnp.concatenate([first, each[:, :-1]], axis=1)  # no action follows the last one
        seen = self.transformer(nn.LayerNorm()(tokens), key)
        return nn.Dense(action.shape[-1], kernel_init=WEIGHTS)(seen[:, 1 :: 2 if goal else 3])


class DTState(NamedTuple):
    params: dict  # actor
    optimizer: optax.OptState


class Context(NamedTuple):
    """The last K steps of N episodes, the oldest first; zeros behind the newest."""

    state: Array  # [N, K, S]
    action: Array  # [N, K, A]
    length: Array  # [N] int32 steps that there are
    # What is asked for where there are no goals; with goals ().
    to_go: Any = ()  # [N, K, 1] returns from each step on
    left: Any = ()  # [N, 1] of the return of the episode, less the rewards until now


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
    seen = context.state, context.action, context.to_go
    new = state, jnp.zeros_like(context.action[:, 0]), context.left
    (states, actions, to_go), length, place = pushed(seen, context.length, new)
    return Context(states, actions, length, to_go, context.left), place


def rewarded(context: Context, reward: Array) -> Context:
    """What is left to ask for after rewards [N]."""
    return context._replace(left=context.left - reward[:, None])


def windows_to_go(to_go: Array, reward: Array) -> Array:
    """Returns to go at each of T rows, [B, T]: those of the first one [B], less the rewards [B, T] until then."""
    return to_go[:, None] - (jnp.cumsum(reward, axis=1) - reward)


def make(config: DTConfig, spec: Spec) -> Agent:
    steps, optimizer = min(config.context_length, spec.max_decisions), config.optimizer
    goals = spec.goal_size > 0
    config.require(goals)
    network = DecisionTransformer(config.transformer(), config.h_dim, steps)
    actor = cast(Network[Array], network)
    law = STRATEGIES[config.her_strategy] or RELABEL["geometric"](spec.discounting)

    def init(key):
        asked = (1, spec.goal_size) if goals else (1, steps, 1)
        shapes = asked, (1, steps, spec.state_size), (1, steps, spec.action_size)
        params = {"actor": actor.init(key, *map(jnp.zeros, shapes))}
        return DTState(params, optimizer.init(params))

    def asked_of(batch: Batch) -> Array:
        """What a window is imitated for: a goal that it led to, or the returns that it led to."""
        if goals:
            return spec.goal_of(batch.future_state)
        assert batch.to_go is not None  # `needs` asks for it
        reward = batch.reward[:, None] if batch.path is None else batch.path.reward
        return windows_to_go(batch.to_go, reward)[..., None] / config.return_scale

    def loss(params: dict, batch: Batch, key: Array) -> Array:
        """Squared error, summed over the action, mean over all steps of the batch that are stored."""
        if batch.path is None:
            states, actions, stored = batch.state[:, None], batch.action[:, None], jnp.ones((len(batch.state), 1))
        else:
            states, actions, stored = batch.path.state[:, :-1], batch.path.action, batch.path.stored
        chosen = jnp.tanh(actor.apply(params["actor"], asked_of(batch), states, actions, key))
        return jnp.sum(stored * squared_error(chosen, actions)) / jnp.sum(stored)

    def update(agent, batch, key):
        actor_loss, gradients = jax.value_and_grad(loss)(agent.params, batch, key)
        changes, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        return DTState(optax.apply_updates(agent.params, changes), optimizer_state), {"actor_loss": actor_loss}

    def start(agent: DTState, num: int) -> Context:
        blank = lambda size: jnp.zeros((num, steps, size))  # noqa: E731
        context = Context(blank(spec.state_size), blank(spec.action_size), jnp.zeros(num, jnp.int32))
        if goals:
            return context
        return context._replace(to_go=blank(1), left=jnp.full((num, 1), config.target_return))

    def decide(agent: Any, held: Context, state: Array, goal: Array, key: Array | None) -> tuple[Array, Context]:
        held, place = with_state(held, state)
        asked = goal if goals else held.to_go / config.return_scale
        chosen = actor.apply(agent.params["actor"], asked, held.state, held.action)
        action = noisy(jnp.tanh(at(chosen, place)), key)
        return action, held._replace(action=put(held.action, place, action))

    def noisy(action: Array, key: Array | None) -> Array:
        if key is None:
            return action
        return jnp.clip(action + config.exploration_noise * jax.random.normal(key, action.shape), -1, 1)

    def alone(agent: DTState, state: Array, goal: Array, key: Array | None) -> Array:
        """Actions [..., A] for callers who remember nothing: those of the first step of an episode."""
        lead = state.shape[:-1]
        num = math.prod(lead)
        asked = goal.reshape(num, -1) if goals else jnp.full((num, 1, 1), config.target_return / config.return_scale)
        states = state.reshape(num, 1, -1)
        chosen = actor.apply(agent.params["actor"], asked, states, jnp.zeros((num, 1, spec.action_size)))
        return noisy(jnp.tanh(chosen).reshape(*lead, -1), key)

    return Agent(
        init,
        act=alone,
        mode=lambda agent, state, goal: alone(agent, state, goal, None),
        update=update,
        needs=Needs(law=behind(law, steps), horizon=steps) if goals else Needs(horizon=steps, to_go=True),
        memory=Memory(
            start,
            decide,
            lambda agent, held, state, goal: decide(agent, held, state, goal, None),
            reward=None if goals else rewarded,
        ),
    )


AGENTS.add("dt", Algorithm(DTConfig, make, goals=False))
