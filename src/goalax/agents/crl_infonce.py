"""CRL with InfoNCE and importance weights, as in InFOM (arXiv 2506.08902): pre-training learns which states come later
(after arXiv 2206.07568) and imitates; in fine-tuning they and a model of rewards make the values that the actor climbs.
A commanded goal, where there is one, is an input beside the state; what else differs is in docs/offline.md."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import clipped_policy, ddpg_bc_loss, linear_actor, log_density
from goalax.agents.pretraining import Losses, PretrainingConfig, learner
from goalax.core.relabel import RELABEL
from goalax.core.types import Agent, Array, Needs, Spec
from goalax.flags import flag
from goalax.learning.losses import contrastive_loss
from goalax.learning.losses.infonce import infonce

LOWEST = math.log(1e-6)  # of logits that weigh rewards, as in the code of InFOM


@dataclasses.dataclass(frozen=True)
class CRLInfoNCEConfig(PretrainingConfig):
    logsumexp_penalty: float = flag(0.01, "weight of the mean squared logsumexp of the logits", low=0)
    bc_weight: float = flag(0.1, "fine-tuning: weight of imitating stored actions", low=0)


def logits_of(phi: Array, psi: Array) -> Array:
    """phi_i . psi_j / sqrt(D) of representations [E, B, D], [E, B, B]."""
    return jnp.einsum("eik,ejk->eij", phi, psi) / phi.shape[-1] ** 0.5


def log_ratios(logits: Array) -> Array:
    """log p(g_i | s_i, a_i) / p(g_i), [B], from logits [E, B, B] of all critics; the lowest one of each pair counts."""
    lower = jnp.min(jnp.maximum(logits, LOWEST), axis=0)
    return jnp.diagonal(lower) - jax.nn.logsumexp(lower, axis=-1) + math.log(len(lower))


def make(config: CRLInfoNCEConfig, spec: Spec) -> Agent:
    network, reward_model = config.mlp(config.repr_dim), config.mlp(1)
    actor, stop = linear_actor(config.mlp, spec.action_size), jax.lax.stop_gradient

    def init(key):
        phi_key, psi_key, reward_key, actor_key = jax.random.split(key, 4)
        state, goal, action = jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size), jnp.zeros(spec.action_size)
        critic = {
            "phi": [network.init(one, jnp.concatenate([state, action])) for one in jax.random.split(phi_key)],
            "psi": [network.init(one, state) for one in jax.random.split(psi_key)],
            "reward": reward_model.init(reward_key, jnp.concatenate([state, goal])),
        }
        return start({"actor": actor.init(actor_key, state, goal), "critic": critic})

    def phi_of(params, state, action):
        return jnp.stack([network.apply(one, jnp.concatenate([state, action], axis=-1)) for one in params["phi"]])

    def psi_of(params, future_state):
        return jnp.stack([network.apply(one, future_state) for one in params["psi"]])

    def reward_of(params, state, goal):
        """Of coming to a state, [B]."""
        return reward_model.apply(params["reward"], jnp.concatenate([state, goal], axis=-1))[..., 0]

    def contrast(params, batch):
        """Mean loss [] of both critics, and metrics."""
        phi, psi = phi_of(params, batch.state, batch.action), psi_of(params, batch.future_state)
        found = [
            contrastive_loss(infonce, *each, logsumexp_penalty=config.logsumexp_penalty)
            for each in zip(logits_of(phi, psi), phi, psi, strict=True)
        ]
        losses, metrics = zip(*found, strict=True)
        loss = sum(losses) / len(losses)
        return loss, {"contrastive_loss": loss, "categorical_accuracy": metrics[0]["categorical_accuracy"]}

    def policy(params, batch):
        """Mean of the actions, [B, A], and log densities of the stored ones, [B]."""
        mean = actor.apply(params["actor"], batch.state, batch.goal)
        return mean, log_density(batch.action, mean)

    def pretraining(params, _, __, batch, key):
        loss, metrics = contrast(params["critic"], batch)
        likelihood = jnp.mean(policy(params, batch)[1])
        return Losses(loss, -likelihood, {**metrics, "log_density": likelihood})

    def finetuning(params, _, __, batch, key):
        critic, fixed = params["critic"], stop(params["critic"])
        loss, metrics = contrast(critic, batch)
        error = reward_of(critic, batch.next_state, batch.goal) - config.rewards(batch)
        mean, likelihood = policy(params, batch)
        later = batch.actor_state
        ratios = log_ratios(logits_of(phi_of(fixed, batch.state, jnp.clip(mean, -1, 1)), psi_of(fixed, later)))
        values = jnp.exp(ratios) * reward_of(fixed, later, batch.goal)
        actor_loss = ddpg_bc_loss(values, likelihood, config.bc_weight)
        return Losses(loss + jnp.mean(error**2), actor_loss, {**metrics, "log_density": jnp.mean(likelihood)})

    def switch(agent, batch, key):
        return switched(agent)

    def score(agent, state, future_state):
        action = mode(agent, state, spec.goal_of(future_state))
        phi, psi = phi_of(agent.params["critic"], state, action), psi_of(agent.params["critic"], future_state)
        return jnp.min(jnp.sum(phi * psi, axis=-1), axis=0)

    start, update, switched = learner(config, pretraining, finetuning)
    act, mode = clipped_policy(actor, config.exploration_noise)
    # A geometric number of steps from 0 on: the state itself, or the law from 1 on.
    needs = Needs(
        goals=(spec.discounting, 1 - spec.discounting, 0.0),
        law=RELABEL["clipped"](spec.discounting),
        actor_goals=(1.0, 0.0, 0.0),
        actor_law=RELABEL["uniform"](spec.discounting),
    )
    return Agent(init, act, mode, update, score, needs, switch=switch)


AGENTS.add("crl_infonce", Algorithm(CRLInfoNCEConfig, make, goals=False))
