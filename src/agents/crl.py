"""CRL: contrastive RL (arXiv 2206.07568; online in JAX: arXiv 2408.11052)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from src.agents.base import AGENTS, ActorConfig, Algorithm, actor_goals, entropy_actor_loss
from src.flags import flag
from src.losses import CONTRASTIVE_LOSSES, ENERGIES, contrastive_loss
from src.networks import Actor, sample_action
from src.types import Agent, Batch, Spec


@dataclasses.dataclass(frozen=True)
class CRLConfig(ActorConfig):
    critic_lr: float = flag(3e-4, "learning rate of the critic", above=0)
    repr_dim: int = flag(64, "size of the representations", low=1)
    energy_fn: str = flag("l2", "what turns two representations into a logit", valid=ENERGIES)
    contrastive_loss_fn: str = flag("infonce", "loss of the critic on the matrix of logits", valid=CONTRASTIVE_LOSSES)
    logsumexp_penalty: float = flag(
        0.1, "weight of the mean squared logsumexp of the logits", low=0, aliases=["logsumexp_penalty_coeff"]
    )
    l2_penalty: float = flag(0.0, "weight of the mean squared representations", low=0)
    resubs: bool = flag(True, "keep the positive among the negatives")


class CRLState(NamedTuple):
    params: dict  # actor, phi, psi, energy, log_alpha
    optimizer: optax.OptState


def make(config: CRLConfig, spec: Spec) -> Agent:
    actor = Actor(config.mlp, spec.action_size)
    encoder = config.mlp(config.repr_dim)
    energy, loss_fn = ENERGIES[config.energy_fn], CONTRASTIVE_LOSSES[config.contrastive_loss_fn]
    adam = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}
    adam["alpha"] = optax.adam(config.alpha_lr)
    groups = {"actor": "actor", "phi": "critic", "psi": "critic", "energy": "critic", "log_alpha": "alpha"}
    optimizer = optax.partition(adam, groups)

    def phi(params, state, action):
        return encoder.apply(params["phi"], jnp.concatenate([state, action], axis=-1))

    def psi(params, goal):
        return encoder.apply(params["psi"], goal)

    def init(key):
        actor_key, phi_key, psi_key = jax.random.split(key, 3)
        state, goal, action = (jnp.zeros(size) for size in (spec.state_size, spec.goal_size, spec.action_size))
        params = {
            "actor": actor.init(actor_key, state, goal),
            "phi": encoder.init(phi_key, jnp.concatenate([state, action])),
            "psi": encoder.init(psi_key, goal),
            "energy": None if energy.init is None else jnp.float32(energy.init),
            "log_alpha": jnp.zeros(()),
        }
        return CRLState(params, optimizer.init(params))

    def act(agent, state, goal, key):
        return sample_action(*actor.apply(agent.params["actor"], state, goal), key)[0]

    def mode(agent, state, goal):
        return jnp.tanh(actor.apply(agent.params["actor"], state, goal)[0])

    def losses(params, batch: Batch, key):
        achieved = batch.future_state[:, jnp.array(spec.goal_indices)]

        sources, targets = phi(params, batch.state, batch.action), psi(params, achieved)
        logits = energy.pairwise(sources, targets, params["energy"])
        critic_loss, critic_metrics = contrastive_loss(
            loss_fn,
            logits,
            sources,
            targets,
            logsumexp_penalty=config.logsumexp_penalty,
            l2_penalty=config.l2_penalty,
            resubs=config.resubs,
        )

        critic = jax.lax.stop_gradient({"phi": params["phi"], "energy": params["energy"]})
        # The same permutation of goals and of their representations: psi need not run twice.
        wanted, wanted_psi = (actor_goals(goals, config.random_goals) for goals in (achieved, targets))
        wanted_psi = jax.lax.stop_gradient(wanted_psi)
        actor_loss, actor_metrics = entropy_actor_loss(
            config,
            actor.apply(params["actor"], batch.state, wanted),
            lambda action: energy(phi(critic, batch.state, action), wanted_psi, critic["energy"]),
            params["log_alpha"],
            key,
        )
        return critic_loss + actor_loss, {"critic_loss": critic_loss, **critic_metrics, **actor_metrics}

    def update(agent, batch, key):
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, batch, key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        return CRLState(optax.apply_updates(agent.params, steps), optimizer_state), metrics

    return Agent(init, act, mode, update)


AGENTS.add("crl", Algorithm(CRLConfig, make))
