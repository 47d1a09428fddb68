"""Model predictive path integral control: sequences of actions drawn, valued by a model, and drawn again around the
best; as TD-MPC2 plans (arXiv 2310.16828, section 3.2, and arXiv 2203.04955, section 3), all environments in one batch.

Sizes: N environments, K sequences each, H steps, Z latent state, A action.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.core.types import Array, Spec
from goalax.flags import FlagError, flag

MANY_ACTIONS = 20  # from here on TD-MPC2 plans two iterations longer


class World(NamedTuple):
    """What a planner knows of the world; leading axes of latent states and actions are equal and kept."""

    step: Callable[[Array, Array], Array]  # (z [..., Z], action [..., A]) -> next z
    reward: Callable[[Array, Array], Array]  # (z, action) -> [...]
    value: Callable[[Array, Array], Array]  # (z, key) -> [...] of what comes after the last step
    prior: Callable[[Array, Array], Array]  # (z, key) -> an action [..., A] of the policy


class Search(NamedTuple):
    """How a planner searches."""

    horizon: int  # H
    num_samples: int  # K, the prior's among them
    num_prior: int  # sequences that the policy would take
    num_elites: int
    iterations: int
    temperature: float  # larger: only the best elites count (an inverse temperature)
    min_std: float
    max_std: float
    discounting: float


class Plan(NamedTuple):
    """What was found, for N environments."""

    actions: Array  # [N, H, A] one of the elites, drawn by their weights; with noise where it explores
    mean: Array  # [N, H, A] of the elites: where the next search may begin


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Defaults as published (arXiv 2310.16828, appendix H)."""

    horizon: int = flag(3, "steps that the model learns and plans ahead", low=2, high=64)
    num_samples: int = flag(512, "sequences of actions that are compared in an iteration", low=2, high=100_000)
    num_prior: int = flag(24, "of them, those that the policy would take", low=0)
    num_elites: int = flag(64, "of them, the best ones, which the next iteration is drawn around", low=2)
    iterations: int = flag(6, "iterations of a plan; two more from 20 entries of an action on", low=1, high=1000)
    temperature: float = flag(0.5, "how much better elites count more: weights are exp of this times the value", low=0)
    min_std: float = flag(0.05, "least standard deviation that sequences are drawn with", above=0, high=10)
    max_std: float = flag(2.0, "largest one, and that of the first iteration", above=0, high=100)

    def search(self, spec: Spec, horizon: int) -> Search:
        """How plans of this horizon are searched. FlagError if numbers do not fit each other."""
        for name in ("num_prior", "num_elites"):
            if getattr(self, name) > self.num_samples:
                raise FlagError(
                    f"--{name} is {getattr(self, name)}; it must be at most --num_samples {self.num_samples}."
                )
        if self.min_std > self.max_std:
            raise FlagError(f"--min_std is {self.min_std:g}; it must be at most --max_std {self.max_std:g}.")
        return Search(
            horizon=horizon,
            num_samples=self.num_samples,
            num_prior=self.num_prior,
            num_elites=self.num_elites,
            iterations=self.iterations + 2 * (spec.action_size >= MANY_ACTIONS),
            temperature=self.temperature,
            min_std=self.min_std,
            max_std=self.max_std,
            discounting=spec.discounting,
        )


def plan(world: World, search: Search, z: Array, mean: Array, key: Array, explore: bool) -> Plan:
    """Searches for the best H actions from every latent state.

    Args:
      z: [N, Z].
      mean: [N, H, A] around which it begins.
      key: consumed.
      explore: add noise of the last standard deviation to what is found.
    """
    prior_key, search_key, pick_key, noise_key = jax.random.split(key, 4)
    guided = rollout_prior(world, search, z, prior_key)  # [H, N, num_prior, A]
    start = jnp.repeat(z[:, None], search.num_samples, axis=1)
    mean = jnp.moveaxis(mean, 1, 0)
    drawn = *mean.shape[:2], search.num_samples - search.num_prior, mean.shape[-1]

    def refine(carry, key):
        mean, std, *_ = carry
        draw_key, value_key = jax.random.split(key)
        noise = jax.random.normal(draw_key, drawn)
        actions = jnp.clip(mean[:, :, None] + std[:, :, None] * noise, -1, 1)
        actions = jnp.concatenate([guided, actions], axis=2)
        value = returns(world, search.discounting, start, actions, value_key)
        return elite_statistics(value, actions, search), None

    elites = *mean.shape[:2], search.num_elites, mean.shape[-1]
    carry = mean, jnp.full_like(mean, search.max_std), jnp.zeros(elites), jnp.zeros(elites[1:3])
    (mean, std, actions, weight), _ = jax.lax.scan(refine, carry, jax.random.split(search_key, search.iterations))
    picked = jax.random.categorical(pick_key, jnp.log(weight))
    action = jnp.take_along_axis(actions, picked[None, :, None, None], axis=2)[:, :, 0]
    if explore:
        action = jnp.clip(action + std * jax.random.normal(noise_key, std.shape), -1, 1)
    return Plan(jnp.moveaxis(action, 0, 1), jnp.moveaxis(mean, 0, 1))


def rollout_prior(world: World, search: Search, z: Array, key: Array) -> Array:
    """Actions [H, N, num_prior, A] that the policy would take from z [N, Z] on."""

    def step(z, key):
        action = world.prior(z, key)
        return world.step(z, action), action

    start = jnp.repeat(z[:, None], search.num_prior, axis=1)
    return jax.lax.scan(step, start, jax.random.split(key, search.horizon))[1]


def returns(world: World, discounting: float, z: Array, actions: Array, key: Array) -> Array:
    """sum_t gamma^t r_t + gamma^H V(z_H), [N, K], of actions [H, N, K, A] from z [N, K, Z]; nan counts as 0."""

    def step(carry, action):
        z, total, discount = carry
        total = total + discount * world.reward(z, action)
        return (world.step(z, action), total, discount * discounting), None

    carry = z, jnp.zeros(z.shape[:2]), jnp.ones(())
    (z, total, discount), _ = jax.lax.scan(step, carry, actions)
    value = total + discount * world.value(z, key)
    return jnp.where(jnp.isnan(value), 0.0, value)


def elite_statistics(value: Array, actions: Array, search: Search) -> tuple[Array, Array, Array, Array]:
    """Mean and standard deviation [H, N, A] of the elites, which are weighted by exp(temperature * value).

    Args:
      value: [N, K].
      actions: [H, N, K, A].

    Returns:
      mean, standard deviation (clipped), the elites [H, N, E, A], best first, and their weights [N, E].

    Source: arXiv 2203.04955, section 3.
    """
    best, index = jax.lax.top_k(value, search.num_elites)
    elites = jnp.take_along_axis(actions, index[None, :, :, None], axis=2)
    weight = jax.nn.softmax(search.temperature * best)
    mean = jnp.sum(weight[None, :, :, None] * elites, axis=2)
    variance = jnp.sum(weight[None, :, :, None] * (elites - mean[:, :, None]) ** 2, axis=2)
    return mean, jnp.clip(jnp.sqrt(variance), search.min_std, search.max_std), elites, weight
