"""FB (arXiv 2103.07945), fine-tuned by IQL as in InFOM (arXiv 2506.08902): pre-training factors what will be visited
into F(s, z, a) . B(s'), with a policy for every z; labelled samples tell the z whose policy earns their rewards.
A commanded goal, where there is one, is an input beside the state; what else differs is in docs/offline.md."""

import dataclasses

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import clipped_policy, linear_actor, log_density
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
from goalax.core.types import Agent, Array, Spec
from goalax.flags import flag


@dataclasses.dataclass(frozen=True)
class FBConfig(LatentConfig):
    stored_latents: float = flag(
        0.5, "share of latent tasks of pre-training that are those of stored states", low=0, high=1
    )
    ortho_weight: float = flag(1.0, "weight of keeping the entries of B orthonormal", low=0)
    bc_weight: float = flag(10.0, "weight of imitating stored actions in pre-training", low=0)


def off_diagonal(errors: Array) -> Array:
    """Sums of the squares off the diagonal over B - 1, of [..., B, B], [..., B]."""
    size = errors.shape[-1]
    others = jnp.where(jnp.eye(size, dtype=bool), 0.0, errors)
    return jnp.sum(others**2, axis=-1) / (size - 1)


def measure_loss(measures: Array, slow: Array, discount: Array) -> Array:
    """Bellman error of successor measures, [].

    Args:
      measures: [2, B, B], F(s_i, z_i, a_i) . B(s'_j) of both networks.
      slow: [B, B], the same of the next states and actions of the policy, the mean of both target networks.
      discount: [B] gamma, 0 after a true termination.

    Source: arXiv 2103.07945, with the samples of the batch for all states, and half of the squares.
    """
    errors = measures - jax.lax.stop_gradient(discount[:, None] * slow)[None]
    return jnp.mean(0.5 * off_diagonal(errors) - jnp.diagonal(measures, axis1=-2, axis2=-1))


def orthonormality_loss(backward: Array) -> Array:
    """How far E[B B^T] is from the identity, but for a constant, [], of B [B, D] (the paper)."""
    products = backward @ backward.T
    return jnp.mean(off_diagonal(products) - 2 * jnp.diagonal(products))


def inferred(backward: Array, reward: Array) -> Array:
    """The task of rewards [N] in states with B [N, D], [D], of length sqrt(D) (the paper, theorem 2)."""
    return on_sphere(jnp.mean(reward[:, None] * backward, axis=0))


def make(config: FBConfig, spec: Spec) -> Agent:
    network, implicit = config.mlp(config.repr_dim), ImplicitQ.of(config, spec)
    actor, stop = linear_actor(config.mlp, spec.action_size), jax.lax.stop_gradient

    def init(key):
        b_key, f_key, iql_key, actor_key, latent_key = jax.random.split(key, 5)
        state, goal = jnp.zeros(spec.state_size), jnp.zeros(implicit.spec.goal_size)
        inputs = jnp.concatenate([state, goal, jnp.zeros(spec.action_size)])
        critic = {
            "forward": [network.init(one, inputs) for one in jax.random.split(f_key)],
            "backward": network.init(b_key, state),
            **implicit.init(iql_key),
        }
        params = {"actor": actor.init(actor_key, state, goal), "critic": critic}
        return start(params, uniform_latents(latent_key, config.repr_dim))

    def forward(params, state, goal, action):
        """F of both networks, [2, B, D]; goals are joined ones."""
        inputs = jnp.concatenate([state, goal, action], axis=-1)
        return jnp.stack([network.apply(one, inputs) for one in params["forward"]])

    def backward(params, state):
        return on_sphere(network.apply(params["backward"], state))

    def measures(params, state, goal, action, there):
        return jnp.einsum("esd,td->est", forward(params, state, goal, action), backward(params, there))

    def latents(params, batch, key):
        """Tasks of pre-training, [B, D]: uniform ones, and those of reaching stored states."""
        uniform_key, order_key, share_key = jax.random.split(key, 3)
        uniform = uniform_latents(uniform_key, len(batch.state), config.repr_dim)
        stored = stop(backward(params, jax.random.permutation(order_key, batch.state)))
        chosen = jax.random.uniform(share_key, (len(batch.state), 1)) < config.stored_latents
        return jnp.where(chosen, stored, uniform)

    def pretraining(params, target, _, batch, key):
        critic, fixed = params["critic"], stop(params["critic"])
        latent = latents(critic, batch, key)
        goal = joined(batch.goal, latent)
        next_action = stop(jnp.clip(actor.apply(params["actor"], batch.next_state, goal), -1, 1))
        slow = jnp.mean(measures(target, batch.next_state, goal, next_action, batch.next_state), axis=0)
        now = measures(critic, batch.state, goal, batch.action, batch.next_state)
        measured = measure_loss(now, slow, batch.discount)
        orthonormal = orthonormality_loss(backward(critic, batch.next_state))

        mean = actor.apply(params["actor"], batch.state, goal)
        worth = jnp.sum(forward(fixed, batch.state, goal, jnp.clip(mean, -1, 1)) * latent[None], axis=-1)
        likelihood = jnp.mean(log_density(batch.action, mean))
        actor_loss = -jnp.mean(jnp.min(worth, axis=0)) - config.bc_weight * likelihood
        return Losses(measured + config.ortho_weight * orthonormal, actor_loss, {"log_density": likelihood})

    def finetuning(params, target, latent, batch, key):
        batch = batch._replace(goal=joined(batch.goal, latent))
        mean = actor.apply(params["actor"], batch.state, batch.goal)
        critic_loss, actor_loss, _ = implicit.losses(params["critic"], target["q"], batch, config.rewards(batch), mean)
        return Losses(critic_loss, actor_loss, {"log_density": jnp.mean(log_density(batch.action, mean))})

    def switch(agent, batch, key):
        return switched(agent, inferred(backward(agent.params["critic"], batch.next_state), config.rewards(batch)))

    def score(agent, state, future_state):
        """The measure of each future for the policy of the task."""
        goal = joined(spec.goal_of(future_state), agent.latent)
        of_policy = forward(
            agent.params["critic"], state, goal, actor.apply(agent.params["actor"], state, goal).clip(-1, 1)
        )
        return jnp.min(jnp.sum(of_policy * backward(agent.params["critic"], future_state)[None], axis=-1), axis=0)

    parts = "forward", "backward", "q"
    start, update, switched = learner(
        config, pretraining, finetuning, lambda params: {name: params["critic"][name] for name in parts}, config.tau
    )
    act, mode = with_latent(*clipped_policy(actor, config.exploration_noise))
    return Agent(init, act, mode, update, score, switch=switch)


AGENTS.add("fb", Algorithm(FBConfig, make, goals=False))
