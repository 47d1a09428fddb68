"""C-TeC: exploration by temporal contrast (arXiv 2603.02008): SAC that seeks what its own critic did not expect."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.actor_critic import entropy_actor_loss, entropy_optimizer, gaussian_policy, soft_value
from goalax.agents.base import AGENTS, Algorithm, ContrastiveFlags, EntropyConfig, require_repr_dim
from goalax.agents.q_learning import TwinCritic, bellman_target
from goalax.core.types import Agent, Array, Spec
from goalax.flags import flag
from goalax.learning.energies import ENERGIES
from goalax.learning.losses import CONTRASTIVE_LOSSES, contrastive_loss
from goalax.learning.networks import gaussian_actor, state_action
from goalax.learning.pairwise import unit


@dataclasses.dataclass(frozen=True)
class CTeCConfig(ContrastiveFlags, EntropyConfig):
    """energy_fn, repr_dim, tau, reward_scaling and logsumexp_penalty are those of the paper's runs; networks
    are those of the other agents here (the paper: ReLU without LayerNorm)."""

    critic_lr: float = flag(3e-4, "learning rate of both critics", above=0)
    repr_dim: int = flag(64, "size of the representations", low=1, most=1_000_000)
    energy_fn: str = flag("l1", "what turns two unit representations into a similarity", valid=ENERGIES)
    logsumexp_penalty: float = flag(
        0.0, "weight of the mean squared logsumexp of the logits", low=0, aliases=["logsumexp_penalty_coeff"]
    )
    tau: float = flag(0.005, "how far a target network moves towards its network in one update", above=0, high=1)
    reward_scaling: float = flag(1.0, "factor of the intrinsic reward", above=0)


class CTeCState(NamedTuple):
    params: dict  # actor, critic (q, phi, psi, energy, log_scale), log_alpha
    target: list  # slow parameters of q
    optimizer: optax.OptState


def blind(goal: Array) -> Array:
    """A goal [..., G] without coordinates, [..., 0]: what policy and value get."""
    return goal[..., :0]


def make(config: CTeCConfig, spec: Spec) -> Agent:
    config.require_entropy()
    config.require_unset(["l2_penalty"], "for representations of unit length")
    actor, encoder = gaussian_actor(config.mlp, spec.action_size), config.mlp(config.repr_dim)
    # The reward knows no commanded goal, so neither the policy nor its value sees one.
    critic = TwinCritic(config, spec._replace(goal_size=0))
    energy, loss_fn = ENERGIES[config.energy_fn], CONTRASTIVE_LOSSES[config.contrastive_loss_fn]
    optimizer = entropy_optimizer(config.policy_lr, config.critic_lr, config.alpha_lr)
    require_repr_dim(config.repr_dim, lambda x, y: energy.pairwise(x, y, energy.init_param()))

    def init(key):
        actor_key, q_key, phi_key, psi_key = jax.random.split(key, 4)
        params = {
            "actor": actor.init(actor_key, jnp.zeros(spec.state_size), jnp.zeros(0)),
            "critic": {
                "q": critic.init(q_key),
                "phi": encoder.init(phi_key, jnp.zeros(spec.state_size + spec.action_size)),
                "psi": encoder.init(psi_key, jnp.zeros(spec.goal_size)),
                "energy": energy.init_param(),
                "log_scale": jnp.zeros(()),
            },
            "log_alpha": jnp.log(jnp.float32(config.alpha_init)),
        }
        return CTeCState(params, params["critic"]["q"], optimizer.init(params))

    def represent(params, state, action, future_state):
        """Unit representations of (state, action) and of the goals that futures achieve, [B, D] each."""
        sources = encoder.apply(params["phi"], state_action(state, action))
        return unit(sources), unit(encoder.apply(params["psi"], spec.goal_of(future_state)))

    def similarity(params, state, action, future_state):
        sources, targets = represent(params, state, action, future_state)
        return energy(sources, targets, params["energy"])

    def next_value(agent, batch, key):
        """Soft value of next_state by the lower one of the target critics, [B]."""
        goal = blind(batch.goal)
        policy = actor.apply(agent.params["actor"], batch.next_state, goal)
        lower = partial(critic.lower, agent.target, batch.next_state, goal)
        return soft_value(config, policy, lower, agent.params["log_alpha"], key)

    def losses(params, batch, target, key):
        of_critic = params["critic"]
        sources, targets = represent(of_critic, batch.state, batch.action, batch.future_state)
        logits = jnp.exp(of_critic["log_scale"]) * energy.pairwise(sources, targets, of_critic["energy"])
        contrast, metrics = contrastive_loss(loss_fn, logits, sources, targets, **config.penalties)
        q_loss, q_metrics = critic.loss(of_critic["q"], batch, target)
        fixed = jax.lax.stop_gradient(of_critic["q"])
        actor_loss, actor_metrics = entropy_actor_loss(
            config,
            actor.apply(params["actor"], batch.state, batch.goal),
            lambda action: critic.lower(fixed, batch.state, batch.goal, action),
            params["log_alpha"],
            key,
        )
        metrics |= {"contrastive_loss": contrast, "scale": jnp.exp(of_critic["log_scale"])}
        return contrast + q_loss + actor_loss, {**metrics, **q_metrics, **actor_metrics}

    def update(agent, batch, key):
        target_key, actor_key = jax.random.split(key)
        # Minus the similarity of the very future that the contrastive critic learns from.
        surprise = -similarity(agent.params["critic"], batch.state, batch.action, batch.future_state)
        batch = batch._replace(goal=blind(batch.goal), reward=surprise)
        target = bellman_target(batch, next_value(agent, batch, target_key), config.reward_scaling)
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, batch, target, actor_key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = optax.apply_updates(agent.params, steps)
        slow = optax.incremental_update(params["critic"]["q"], agent.target, config.tau)
        return CTeCState(params, slow, optimizer_state), {**metrics, "intrinsic_reward": jnp.mean(surprise)}

    sighted_act, sighted_mode = gaussian_policy(actor)

    def act(agent, state, goal, key):
        return sighted_act(agent, state, blind(goal), key)

    def mode(agent, state, goal):
        return sighted_mode(agent, state, blind(goal))

    def score(agent, state, future_state):
        action = mode(agent, state, spec.goal_of(future_state))
        return similarity(agent.params["critic"], state, action, future_state)

    return Agent(init, act, mode, update, score)


AGENTS.add("c_tec", Algorithm(CTeCConfig, make))
