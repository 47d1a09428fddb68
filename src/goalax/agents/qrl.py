"""QRL: quasimetric reinforcement learning (arXiv 2304.01203): distances as large as one step per transition allows.
Offline as in OGBench: --any_goals 1 --distance iqe --multiplier exp --multiplier_speed 1 --dynamics_error distance
--repr_dim 512 --actor_relabel uniform --bc_weight 0.003 --h_dim 512 --n_hidden 3; what still differs is in
docs/offline.md."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from goalax.agents.actor_critic import Critic, actor_critic
from goalax.agents.base import AGENTS, Algorithm, QuasimetricConfig, require_repr_dim
from goalax.agents.extraction import AdvantageConfig
from goalax.core.types import Agent, Array, Spec
from goalax.flags import FlagError, flag
from goalax.learning.diagnostics import distance_metrics, neighbours
from goalax.learning.networks import state_action


@dataclasses.dataclass(frozen=True)
class QRLConfig(QuasimetricConfig, AdvantageConfig):
    repulsion_scale: float = flag(100.0, "distances past a few of these are not pushed further apart", above=0)
    step_tolerance: float = flag(0.05, "mean squared excess over one step per transition that is allowed", above=0)
    dynamics_weight: float = flag(1.0, "weight of the latent dynamics", low=0)
    dynamics_error: str = flag(
        "squared", "what latent dynamics are off by: the distance, or its square", valid=("squared", "distance")
    )
    multiplier: str = flag("softplus", "what makes the Lagrange multiplier positive", valid=("softplus", "exp"))
    multiplier_speed: float = flag(30.0, "learning rate of the Lagrange multiplier, in critic_lr", above=0)
    multiplier_init: float = flag(1.0, "initial value of the Lagrange multiplier", above=0)


def repulsion(distance: Array, scale: float) -> Array:
    """scale * softplus(5 - distance / scale), mean over [B]: falls with the distance, ever more slowly."""
    return jnp.mean(scale * jax.nn.softplus(5 - distance / scale))


def step_excess(distance: Array) -> Array:
    """Mean over [B] of the squared excess of d(s, s') over the one step that it takes."""
    return jnp.mean(jax.nn.relu(distance - 1) ** 2)


def dynamics_error(config: QRLConfig, there: Array, back: Array) -> Array:
    """Mean of both distances [B] between what was predicted and what came, or of their squares, []."""
    power = 2 if config.dynamics_error == "squared" else 1
    return jnp.mean(there**power + back**power) / 2


def check_dynamics(config: QRLConfig) -> None:
    """FlagError where the actor would follow latent dynamics that are not learned."""
    if config.dynamics_weight > 0:
        return
    if config.extraction != "awr":
        raise FlagError(
            f"--dynamics_weight is 0; the actor follows the latent dynamics, but with --extraction awr: it is"
            f" {config.extraction!r}."
        )
    config.require_unset(["dynamics_error"], "with --dynamics_weight 0")


def make(config: QRLConfig, spec: Spec) -> Agent:
    check_dynamics(config)
    decision, encoder = config.decision(spec), config.mlp(config.repr_dim)
    require_repr_dim(config.repr_dim, config.metric(config.init_metric()).pairwise)
    stop = jax.lax.stop_gradient

    def dynamics(params, z, action):  # latent of the next state: a residual on top of the present one
        return z + encoder.apply(params["dynamics"], state_action(z, action))

    def multiplier(params):
        # Adam's steps do not depend on the scale of a gradient, so a factor inside is a factor on the learning rate.
        raw = config.multiplier_speed * params["multiplier"]
        return jnp.exp(raw) if config.multiplier == "exp" else jax.nn.softplus(raw)

    def init(keys):
        first = config.multiplier_init
        raw = math.log(first) if config.multiplier == "exp" else first + math.log(-math.expm1(-first))
        return {
            "encoder": encoder.init(next(keys), jnp.zeros(spec.state_size)),
            "dynamics": encoder.init(next(keys), jnp.zeros(config.repr_dim + decision.action_size)),
            "metric": config.init_metric(),
            "multiplier": jnp.float32(raw / config.multiplier_speed),
            **({"psi": encoder.init(next(keys), jnp.zeros(spec.goal_size))} if config.critic_goal == "goal" else {}),
        }

    def goal_of(params, state):
        """Representation of the goal that a state achieves."""
        return encoder.apply(params["psi" if "psi" in params else "encoder"], config.goal_input(spec, state))

    def loss(params, batch):
        between = config.metric(params["metric"]).between
        z, z_next = (encoder.apply(params["encoder"], state) for state in (batch.state, batch.next_state))
        z_goal = goal_of(params, batch.future_state)
        apart = between(z, neighbours(z_goal))
        negative, excess = repulsion(apart, config.repulsion_scale), step_excess(between(z, z_next))
        itself = goal_of(params, batch.state)
        if config.critic_goal == "goal":  # the goal that a state achieves is no step away from it
            excess += jnp.mean(between(z, itself) ** 2)
        weight = multiplier(params)
        dual = weight * (config.step_tolerance - stop(excess))
        predicted = dynamics(params, z, batch.action)
        dynamics_loss = dynamics_error(config, between(predicted, z_next), between(z_next, predicted))

        metrics = {
            "repulsion": negative,
            "step_excess": excess,
            "multiplier": weight,
            "dynamics_loss": dynamics_loss,
            **distance_metrics(between, z, z_goal, z, (z, itself)),
        }
        return negative + stop(weight) * excess + dual + config.dynamics_weight * dynamics_loss, z_goal, metrics

    def goals(params, future_state, future_action):
        return goal_of(params, future_state)

    def value(params, state, action, z_goal):
        z = encoder.apply(params["encoder"], state)
        if config.dynamics_weight > 0:  # else nobody has learned where actions lead: that of the state
            z = dynamics(params, z, action)
        return -config.metric(params["metric"]).between(z, z_goal)

    def advantage(params, batch, z_goal):  # as in OGBench: how much nearer the next state is
        between = config.metric(params["metric"]).between
        z, z_next = (encoder.apply(params["encoder"], state) for state in (batch.state, batch.next_state))
        return between(z, z_goal) - between(z_next, z_goal)

    return actor_critic(config, spec, Critic(init, loss, goals, value, advantage))


AGENTS.add("qrl", Algorithm(QRLConfig, make))
