"""What agents share that pre-train without rewards and are fine-tuned with those of a labelled file: flags, two losses
that take turns, implicit Q-learning of a latent task."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import NoisyConfig
from goalax.agents.extraction import awr_loss, expectile, log_density
from goalax.agents.q_learning import TwinCritic
from goalax.agents.rewards import RewardConfig, RewardFlags
from goalax.core.branch import together
from goalax.core.types import Array, Batch, Metrics, Spec
from goalax.flags import flag
from goalax.learning.networks import Network

SMALLEST_LENGTH = 1e-6  # of vectors that are divided by it


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(RewardFlags, NoisyConfig):
    """Networks, rates and intervals of the comparison in InFOM (arXiv 2506.08902), whose batches have 256 samples."""

    h_dim: int = flag(512, "width of hidden layers", low=1, most=1_000_000)
    n_hidden: int = flag(4, "hidden layers", low=1, most=10_000)
    use_relu: bool = flag(False, "ReLU in place of GELU (with --depth: of swish)")
    repr_dim: int = flag(512, "size of the representations", low=1, most=1_000_000)
    actor_interval: int = flag(4, "fine-tuning: updates per update of the actor", low=1)


@dataclasses.dataclass(frozen=True)
class LatentConfig(PretrainingConfig, RewardConfig):
    """The same with implicit Q-learning."""

    expectile: float = flag(0.9, "expectile of the values: 0.5 is the mean, 1 the largest", above=0, below=1)
    awr_alpha: float = flag(10.0, "factor of advantages in the weights of imitated actions", low=0)


class PretrainingState(NamedTuple):
    params: dict  # actor, critic
    target: Any  # slow parameters of a part of the critic, and what losses keep of all batches
    optimizer: optax.OptState
    latent: Any  # the task: [D], a random one until samples with rewards tell; () for an agent without
    tuned: Array  # [] int32 updates of fine-tuning; -1 before it begins


class Losses(NamedTuple):
    """What an update descends, each [], and metrics, whose names are those of both phases."""

    critic: Array
    actor: Array
    metrics: Metrics
    kept: dict | None = None  # after this batch, the entries of the target that are no slow parameters


# (parameters, target, latent, batch, key) -> losses
LossesOf = Callable[[dict, Any, Any, Batch, Array], Losses]


def learner(
    config: PretrainingConfig,
    pretraining: LossesOf,
    finetuning: LossesOf,
    slow_part: Callable[[dict], Any] = lambda params: (),
    tau: float = 1.0,
    with_actor: bool = False,
) -> tuple[Callable, Callable, Callable]:
    """Three functions: (parameters, latent) -> fresh state; the `update` of an Agent; (state, latent) -> fine-tuning.
    The first one also takes what losses begin to keep: entries of the target by name, a dictionary then.

    One gradient of all losses, one Adam for all networks but for their rates. In fine-tuning the actor's loss counts in
    every `actor_interval`-th update only, as in the code of InFOM.

    Args:
      slow_part: parameters -> those of which the target is a slow copy; none unless given.
      tau: how far it moves towards them in one update.
      with_actor: in fine-tuning it moves where the actor learns only.
    """
    adam = {"actor": optax.adam(config.policy_lr), "critic": optax.adam(config.critic_lr)}
    optimizer = optax.partition(adam, {name: name for name in adam})

    def start(params: dict, latent: Any = (), kept: dict | None = None) -> PretrainingState:
        tuned = jnp.full((), -1, jnp.int32)
        target = slow_part(params) if kept is None else slow_part(params) | kept
        return PretrainingState(params, target, optimizer.init(params), latent, tuned)

    def due(agent: PretrainingState) -> Array:
        return (agent.tuned < 0) | (agent.tuned % config.actor_interval == 0)

    def gradients_of(losses: LossesOf) -> Callable:
        def total(params, agent, batch, key):
            critic, actor, metrics, kept = losses(params, agent.target, agent.latent, batch, key)
            metrics = {"critic_loss": critic, "actor_loss": actor, **metrics}
            return critic + jnp.where(due(agent), actor, 0.0), (metrics, kept)

        return lambda agent, batch, key: jax.grad(total, has_aux=True)(agent.params, agent, batch, key)

    def update(agent: PretrainingState, batch: Batch, key: Array) -> tuple[PretrainingState, Metrics]:
        tuning = agent.tuned >= 0
        both = gradients_of(finetuning), gradients_of(pretraining)
        gradients, (metrics, kept) = together(tuning, *both, agent, batch, key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = optax.apply_updates(agent.params, steps)
        rate = jnp.where(due(agent), tau, 0.0) if with_actor else tau
        target = optax.incremental_update(slow_part(params), slow_of(agent.target, params), rate)
        target = target if kept is None else target | kept
        tuned = jnp.where(tuning, (agent.tuned + 1) % config.actor_interval, agent.tuned)
        return PretrainingState(params, target, optimizer_state, agent.latent, tuned), metrics

    def slow_of(target: Any, params: dict) -> Any:
        """A target without what losses keep."""
        return {name: target[name] for name in slow_part(params)} if target else target

    def switched(agent: PretrainingState, latent: Any = ()) -> PretrainingState:
        """Targets begin anew at their networks; the optimizer goes on."""
        target = agent.target | slow_part(agent.params) if agent.target else agent.target
        return agent._replace(target=target, latent=latent, tuned=jnp.zeros((), jnp.int32))

    return start, update, switched


def on_sphere(vectors: Array) -> Array:
    """Vectors [..., D] made sqrt(D) long; those that are 0 stay."""
    length = jnp.sqrt(jnp.maximum(jnp.sum(vectors**2, axis=-1, keepdims=True), SMALLEST_LENGTH**2))
    return vectors / length * vectors.shape[-1] ** 0.5


def uniform_latents(key: Array, *shape: int) -> Array:
    """Uniform on the sphere of radius sqrt(D), [..., D]; consumes key."""
    return on_sphere(jax.random.normal(key, shape))


def joined(goal: Array, latent: Array) -> Array:
    """Goals [..., G] and a latent task, [D] or [..., D], side by side, [..., G + D]: what critics and actors see."""
    return jnp.concatenate([goal, jnp.broadcast_to(latent, (*goal.shape[:-1], latent.shape[-1]))], axis=-1)


def with_latent(act: Callable, mode: Callable) -> tuple[Callable, Callable]:
    """`act` and `mode` of an Agent whose actor sees joined goals, from those of that actor."""

    def explore(agent, state, goal, key):
        return act(agent, state, joined(goal, agent.latent), key)

    return explore, lambda agent, state, goal: mode(agent, state, joined(goal, agent.latent))


class ImplicitQ(NamedTuple):
    """IQL (arXiv 2110.06169) whose goals are [goal, latent], `joined`: values, twin critics and imitation."""

    config: LatentConfig
    spec: Spec  # its goal_size is that of a joined goal

    @classmethod
    def of(cls, config: LatentConfig, spec: Spec) -> "ImplicitQ":
        return cls(config, spec._replace(goal_size=spec.goal_size + config.repr_dim))

    @property
    def critic(self) -> TwinCritic:
        return TwinCritic(self.config, self.spec)

    @property
    def value(self) -> Network[Array]:
        return self.config.mlp(1)

    def init(self, key: Array) -> dict:
        value_key, q_key = jax.random.split(key)
        size = self.spec.state_size + self.spec.goal_size
        return {"value": self.value.init(value_key, jnp.zeros(size)), "q": self.critic.init(q_key)}

    def losses(
        self, params: dict, slow: list, batch: Batch, reward: Array, mean: Array
    ) -> tuple[Array, Array, Metrics]:
        """Losses of values and critics, and of the actor (equations 5, 6 and 7), each [], and metrics.

        Args:
          params: {value, q}.
          slow: those of the target of q.
          batch: its goals are joined ones, [B, G + D].
          reward: [B].
          mean: [B, A] of the actor, a Gaussian with standard deviation 1.
        """

        def value_of(state: Array) -> Array:
            return self.value.apply(params["value"], jnp.concatenate([state, batch.goal], axis=-1))[..., 0]

        value, fixed = value_of(batch.state), jax.lax.stop_gradient(params["q"])
        of_target, advantage = (
            self.critic.lower(q, batch.state, batch.goal, batch.action) - value for q in (slow, fixed)
        )
        value_loss = expectile(of_target, of_target, self.config.expectile)
        backup = reward + batch.discount * jax.lax.stop_gradient(value_of(batch.next_state))
        q_loss, metrics = self.critic.loss(params["q"], batch, backup)
        metrics.pop("critic_loss")
        actor_loss = awr_loss(advantage, log_density(batch.action, mean), self.config.awr_alpha)
        metrics |= {"value_loss": value_loss, "q_loss": q_loss, "advantage": jnp.mean(advantage)}
        return value_loss + q_loss, actor_loss, metrics
