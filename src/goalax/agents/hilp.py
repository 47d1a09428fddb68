"""HILP (arXiv 2402.15567), fine-tuned by IQL as in InFOM (arXiv 2506.08902): pre-training learns a space in which
distances are steps, and to move along random directions of it; samples with rewards tell which direction earns them.
A commanded goal, where there is one, is an input beside the state; what else differs is in docs/offline.md."""

import dataclasses

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import clipped_policy, linear_actor
from goalax.agents.goal_values import goal_reward, value_loss
from goalax.agents.pretraining import (
    ImplicitQ,
    LatentConfig,
    Losses,
    joined,
    learner,
    on_sphere,
    uniform_latents,
    with_latent,
)
from goalax.core.relabel import RELABEL
from goalax.core.types import Agent, Array, Batch, Needs, Spec
from goalax.flags import flag

SMALLEST_SQUARE = 1e-12  # of distances: the root has no gradient at 0


@dataclasses.dataclass(frozen=True)
class HILPConfig(LatentConfig):
    any_goals: float = flag(0.375, "share of goals of the distances that are any stored state", low=0, high=1)


def distances(one: Array, other: Array) -> Array:
    """Euclidean, of representations [..., D], [...]."""
    return jnp.sqrt(jnp.maximum(jnp.sum((one - other) ** 2, axis=-1), SMALLEST_SQUARE))


def skill_reward(here: Array, there: Array, latent: Array) -> Array:
    """(phi(s') - phi(s)) . z, [B]: how far a step goes along a skill.

    Args:
      here, there: representations of states and next states, [B, D].
      latent: skills, [B, D].
    """
    return jnp.sum((there - here) * latent, axis=-1)


def inferred(here: Array, there: Array, reward: Array) -> Array:
    """The skill whose rewards come nearest to rewards [B] by least squares, [D] (the paper).

    Args:
      here, there: as of `skill_reward`.
    """
    return on_sphere(jnp.linalg.lstsq(there - here, reward)[0])


def make(config: HILPConfig, spec: Spec) -> Agent:
    embedding, implicit = config.mlp(config.repr_dim), ImplicitQ.of(config, spec)
    actor, stop = linear_actor(config.mlp, spec.action_size), jax.lax.stop_gradient

    def init(key):
        phi_key, iql_key, actor_key, latent_key = jax.random.split(key, 4)
        state, goal = jnp.zeros(spec.state_size), jnp.zeros(implicit.spec.goal_size)
        phi = [embedding.init(one, state) for one in jax.random.split(phi_key)]
        params = {"actor": actor.init(actor_key, state, goal), "critic": {"phi": phi, **implicit.init(iql_key)}}
        return start(params, uniform_latents(latent_key, config.repr_dim))

    def values(phi, state, goal_state):
        """- distance in both spaces, [2, B]."""
        return -jnp.stack([distances(embedding.apply(one, state), embedding.apply(one, goal_state)) for one in phi])

    def steps(phi: list, batch: Batch) -> tuple[Array, Array]:
        """Representations [B, D] of states and next states in the first space, without gradient."""
        here, there = (stop(embedding.apply(phi[0], state)) for state in (batch.state, batch.next_state))
        return here, there

    def iql(params, target, batch, latent, reward):
        batch = batch._replace(goal=joined(batch.goal, latent))
        mean = actor.apply(params["actor"], batch.state, batch.goal)
        return implicit.losses(params["critic"], target["q"], batch, reward, mean)

    def pretraining(params, target, _, batch, key):
        phi, slow, goal = params["critic"]["phi"], target["phi"], batch.future_state
        here, there = (values(slow, state, goal) for state in (batch.state, batch.next_state))
        of_goals = goal_reward(batch, spec.discounting)
        distance_loss, _ = value_loss(values(phi, batch.state, goal), here, there, *of_goals, config.expectile)
        latent = uniform_latents(key, len(batch.state), config.repr_dim)
        losses = iql(params, target, batch, latent, skill_reward(*steps(phi, batch), latent))
        return Losses(distance_loss + losses[0], *losses[1:])

    def finetuning(params, target, latent, batch, key):
        return Losses(*iql(params, target, batch, latent, config.rewards(batch)))

    def switch(agent, batch, key):
        return switched(agent, inferred(*steps(agent.params["critic"]["phi"], batch), config.rewards(batch)))

    def score(agent, state, future_state):
        return jnp.mean(values(agent.params["critic"]["phi"], state, future_state), axis=0)

    parts = "phi", "q"
    start, update, switched = learner(
        config, pretraining, finetuning, lambda params: {name: params["critic"][name] for name in parts}, config.tau
    )
    act, mode = with_latent(*clipped_policy(actor, config.exploration_noise))
    needs = Needs(
        goals=(1 - config.any_goals, 0.0, config.any_goals), law=RELABEL["clipped"](spec.discounting), same=True
    )
    return Agent(init, act, mode, update, score, needs, switch=switch)


AGENTS.add("hilp", Algorithm(HILPConfig, make, goals=False))
