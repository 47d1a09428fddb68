"""What agents share: the registry, the common flags, and an entropy-regularised actor that learns from any critic."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from src.flags import FlagError, flag
from src.losses import CONTRASTIVE_LOSSES
from src.networks import MLP, Actor, DeterministicActor, sample_action
from src.quasimetrics import QUASIMETRICS, Quasimetric
from src.registry import Registry
from src.types import Agent, Array, Batch, Metrics, Spec


class Algorithm(NamedTuple):
    """An entry of the registry."""

    config: type  # frozen dataclass of `flag`s
    make: Callable[[Any, Spec], Agent] | None  # (config, spec); None: it has a training loop of its own
    unused: tuple[str, ...] = ()  # flags of a run that mean nothing to it


AGENTS: Registry[Algorithm] = Registry("agent")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    h_dim: int = flag(256, "width of hidden layers", low=1)
    n_hidden: int = flag(2, "hidden layers", low=1)
    use_ln: bool = flag(True, "LayerNorm before every activation")
    use_relu: bool = flag(False, "ReLU in place of swish")
    skip_connections: int = flag(4, "a residual connection every so many hidden layers; 0: none", low=0)

    @property
    def mlp(self) -> Callable[[int], MLP]:
        """outputs -> network."""
        names = [field.name for field in dataclasses.fields(NetworkConfig)]
        return partial(MLP, **{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class PolicyConfig(NetworkConfig):
    policy_lr: float = flag(3e-4, "learning rate of the actor", above=0)


@dataclasses.dataclass(frozen=True)
class NoisyConfig(PolicyConfig):
    exploration_noise: float = flag(0.4, "standard deviation of the noise on actions taken", low=0)


@dataclasses.dataclass(frozen=True)
class EntropyConfig(PolicyConfig):
    # Ten times the published 3e-4: the temperature starts at 1 while logits differ by less than that, and as long as
    # it has not come down the entropy term drowns them. On reacher, 600k steps, seeds 0 / 1 / 2, share of time at the
    # goal: 0.91 / 0.74 / 0.45 with 3e-4, 0.96 / 0.92 / 0.93 with 3e-3.
    alpha_lr: float = flag(3e-3, "learning rate of the entropy temperature", above=0)
    alpha_init: float = flag(1.0, "entropy temperature at the start", above=0)
    disable_entropy_actor: bool = flag(False, "drop the entropy term of the actor loss")
    target_entropy_scale: float = flag(0.5, "target entropy = minus this, times the action size", low=0)


@dataclasses.dataclass(frozen=True)
class ActorConfig(EntropyConfig):
    random_goals: float = flag(0.0, "share of actor goals taken from another sample of the batch", low=0, high=1)
    critic_lr: float = flag(3e-4, "learning rate of the critic", above=0)
    repr_dim: int = flag(64, "size of the representations", low=1)


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig(ActorConfig):
    contrastive_loss_fn: str = flag("infonce", "loss of the critic on the matrix of logits", valid=CONTRASTIVE_LOSSES)
    logsumexp_penalty: float = flag(
        0.1, "weight of the mean squared logsumexp of the logits", low=0, aliases=["logsumexp_penalty_coeff"]
    )
    l2_penalty: float = flag(0.0, "weight of the mean squared representations", low=0)
    resubs: bool = flag(True, "keep the positive among the negatives")

    @property
    def penalties(self) -> dict[str, Any]:
        """The keyword arguments of `contrastive_loss`."""
        return {name: getattr(self, name) for name in ("logsumexp_penalty", "l2_penalty", "resubs")}


STRATEGIES = {"uniform": 1.0, "goal_law": None}  # -> Agent.goal_discounting


@dataclasses.dataclass(frozen=True)
class HindsightConfig:
    # Uniform over the rest of the episode: "future" of arXiv 1707.01495, section 4.5, and arXiv 1912.06088, section 4.
    her_strategy: str = flag("uniform", "law of the time at which hindsight goals are achieved", valid=STRATEGIES)

    @property
    def goal_discounting(self) -> float | None:
        """That of the Agent."""
        return STRATEGIES[self.her_strategy]


@dataclasses.dataclass(frozen=True)
class QuasimetricConfig:
    distance: str = flag("mrn_max", "quasimetric between representations", valid=QUASIMETRICS)
    components: int = flag(
        8, "components of the quasimetric (iqe: up to 16); repr_dim is a multiple, for mrn of their double", low=1
    )
    distance_scale: float = flag(1.0, "factor of the quasimetric, which by itself is a mean over components", above=0)

    def init_metric(self) -> tuple[Array, ...]:
        """Parameters of the quasimetric."""
        return QUASIMETRICS[self.distance].init_params()

    def metric(self, params: tuple[Array, ...]) -> Quasimetric:
        """The quasimetric with these parameters, `between` and `pairwise` of (x, y)."""
        return QUASIMETRICS[self.distance].bind(params, self.components, self.distance_scale)


def require_repr_dim(repr_dim: int, similarity: Callable[[Array, Array], Array]) -> None:
    """FlagError unless a similarity or distance takes representations [B, repr_dim]."""
    x = jax.ShapeDtypeStruct((2, repr_dim), jnp.float32)
    try:
        jax.eval_shape(similarity, x, x)
    except ValueError as error:
        raise FlagError(f"--repr_dim is {repr_dim}: {error}") from None


def entropy_optimizer(policy_lr: float, critic_lr: float, alpha_lr: float) -> optax.GradientTransformation:
    """Adam for parameters {actor, critic, log_alpha}, each with its learning rate."""
    adam = {"actor": optax.adam(policy_lr), "critic": optax.adam(critic_lr), "log_alpha": optax.adam(alpha_lr)}
    return optax.partition(adam, {name: name for name in adam})


def state_action(state: Array, action: Array) -> Array:
    """What encoders of state-action pairs see, [..., S + A]."""
    return jnp.concatenate([state, action], axis=-1)


SELF_SAMPLES = 32  # of a batch, for the distance of states to themselves where it takes a pass of a network more


def neighbours(x: Array) -> Array:
    """That of another sample, [B, ...]: samples of a batch are independent, so any shift does."""
    return jnp.roll(x, 1, axis=0)


def distance_metrics(between: Callable, x: Array, y: Array, via: Array, itself: tuple[Array, Array]) -> Metrics:
    """What a learned distance, `between` of representations, looks like on a batch.

    Args:
      x, y: [B, D] of states, or states and actions, and of goals that they reached.
      via: [B, D] of states as sources and goals in one, for random ways from x to y.
      itself: two [N, D], of states as sources and of the same states as goals.
    """
    positives, middle = between(x, y), neighbours(via)
    detours = between(x, middle) + between(middle, y)
    return {
        "distance_pos": jnp.mean(positives),
        "distance_neg": jnp.mean(between(x, neighbours(y))),
        "distance_self": jnp.mean(between(*itself)),
        "triangle_violation": jnp.mean(jax.nn.relu(positives - detours)),  # 0 up to rounding for a quasimetric
    }


class Critic(NamedTuple):
    """What an agent brings to `actor_critic`. Goals G are whatever pytree the agent keeps of them, leaves [B, ...]."""

    init: Callable[[Iterator[Array]], Any]  # (fresh keys, one per network) -> parameters
    loss: Callable[[Any, Batch], tuple[Array, Any, Metrics]]  # (parameters, batch) -> loss [], G, metrics
    goals: Callable[[Any, Array, Array], Any]  # (parameters, future_state [B, S], future_action [B, A]) -> G
    value: Callable[[Any, Array, Array, Any], Array]  # (parameters, state [B, S], action [B, A], G) -> [B], to maximise


class ActorCriticState(NamedTuple):
    params: dict  # actor, critic, log_alpha
    optimizer: optax.OptState


def actor_critic(config: ActorConfig, spec: Spec, critic: Critic) -> Agent:
    """A tanh-Gaussian actor and a critic that learn side by side from the same batch, one gradient per update.

    The actor is trained on goals achieved later in the same episode (`random_goals` of them from another sample).
    """
    actor = Actor(config.mlp, spec.action_size)
    optimizer = entropy_optimizer(config.policy_lr, config.critic_lr, config.alpha_lr)
    pick = partial(actor_goals, random_goals=config.random_goals)

    def init(key):
        keys = iter(jax.random.split(key, 16))
        params = {
            "actor": actor.init(next(keys), jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(keys),
            "log_alpha": jnp.log(jnp.float32(config.alpha_init)),
        }
        return ActorCriticState(params, optimizer.init(params))

    def losses(params, batch: Batch, key):
        critic_loss, goals, critic_metrics = critic.loss(params["critic"], batch)
        fixed, wanted = jax.lax.stop_gradient((params["critic"], jax.tree.map(pick, goals)))
        actor_loss, metrics = entropy_actor_loss(
            config,
            actor.apply(params["actor"], batch.state, pick(spec.goal_of(batch.future_state))),
            lambda action: critic.value(fixed, batch.state, action, wanted),
            params["log_alpha"],
            key,
        )
        return critic_loss + actor_loss, {"critic_loss": critic_loss, **critic_metrics, **metrics}

    def update(agent, batch, key):
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, batch, key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        return ActorCriticState(optax.apply_updates(agent.params, steps), optimizer_state), metrics

    def score(agent, state, action, future_state, future_action):
        params = agent.params["critic"]
        return critic.value(params, state, action, critic.goals(params, future_state, future_action))

    return Agent(init, *gaussian_policy(actor), update, score)


def gaussian_policy(actor: Actor) -> tuple[Callable, Callable]:
    """`act` and `mode` of an Agent whose state holds the parameters of a tanh-Gaussian actor as params["actor"]."""

    def act(agent, state, goal, key):
        return sample_action(*actor.apply(agent.params["actor"], state, goal), key)[0]

    def mode(agent, state, goal):
        return jnp.tanh(actor.apply(agent.params["actor"], state, goal)[0])

    return act, mode


def noisy_policy(actor: DeterministicActor, noise: float) -> tuple[Callable, Callable]:
    """As `gaussian_policy`, of a deterministic actor that explores with Gaussian noise of this standard deviation."""

    def mode(agent, state, goal):
        return jnp.tanh(actor.apply(agent.params["actor"], state, goal))

    def act(agent, state, goal, key):
        action = mode(agent, state, goal)
        return jnp.clip(action + noise * jax.random.normal(key, action.shape), -1, 1)

    return act, mode


def actor_goals(goal: Array, random_goals: float) -> Array:
    """Goals or representations [B, G] for the actor: the first share `random_goals` of the batch takes its neighbour's.

    Samples of a batch are independent, so the neighbour's goal is a random one.
    """
    shuffled = round(random_goals * goal.shape[0])
    return jnp.concatenate([jnp.roll(goal, -1, axis=0)[:shuffled], goal[shuffled:]])


def entropy_actor_loss(
    config: EntropyConfig,
    policy: tuple[Array, Array],
    value: Callable[[Array], Array],
    log_alpha: Array,
    key: Array,
) -> tuple[Array, dict[str, Array]]:
    """Loss of a tanh-Gaussian actor and of its temperature (arXiv 1812.05905, equations 17 and 18).

    Args:
      policy: mean and log standard deviation of the actions before tanh, both [B, A].
      value: action [B, A] -> [B], what the actor maximises; the caller stops the gradient of its parameters.
      log_alpha: [] log temperature.
      key: consumed.

    Returns:
      [] the sum of both losses (they share no parameters), and metrics.
    """
    action, log_density = sample_action(*policy, key)
    entropy = -jnp.mean(log_density)
    alpha = jnp.exp(log_alpha)
    target = -config.target_entropy_scale * action.shape[-1]
    actor_loss = -jnp.mean(value(action))
    if config.disable_entropy_actor:
        return actor_loss, {"actor_loss": actor_loss, "entropy": entropy}
    actor_loss = actor_loss - jax.lax.stop_gradient(alpha) * entropy
    alpha_loss = alpha * jax.lax.stop_gradient(entropy - target)
    metrics = {"actor_loss": actor_loss, "alpha_loss": alpha_loss, "log_alpha": log_alpha, "entropy": entropy}
    return actor_loss + alpha_loss, metrics
