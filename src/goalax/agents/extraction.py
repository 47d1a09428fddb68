"""What offline agents share: expectiles, and policies extracted from a critic beside the actions of a dataset."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from goalax.agents.base import ActorConfig, PolicyConfig
from goalax.core.types import Array
from goalax.flags import flag
from goalax.learning.networks import Network, deterministic_actor

WEIGHT_CAP = 100.0  # of exponential weights, as published
SMALLEST_SIZE = 1e-6  # of values that others are divided by


def expectile(advantage: Array, error: Array, share: float) -> Array:
    """Mean of |share - 1[advantage < 0]| error^2, []; with error = advantage, its minimum is an expectile.

    Args:
      advantage: [B], decides the weight.
      error: [B], is squared.
      share: in (0, 1); 0.5 is half the mean square.

    Raises:
      ValueError: the shapes differ.

    Source: IQL, arXiv 2110.06169, equation 5; with two arguments as in HIQL, arXiv 2307.11949, equation 4.
    """
    require_equal_shapes(advantage, error)
    return jnp.mean(jnp.where(advantage < 0, 1 - share, share) * error**2)


def log_density(action: Array, mean: Array) -> Array:
    """Of actions [B, A] under a Gaussian with means [B, A] and standard deviation 1, without tanh, [B]."""
    require_equal_shapes(action, mean)
    return jnp.sum(-0.5 * (action - mean) ** 2 - 0.5 * jnp.log(2 * jnp.pi), axis=-1)


def awr_loss(advantage: Array, log_likelihood: Array, temperature: float, cap: float = WEIGHT_CAP) -> Array:
    """- mean min(exp(temperature * advantage), cap) log pi(a | s), []: advantage-weighted regression.

    Args:
      advantage: [B]; no gradient flows into it.
      log_likelihood: [B] of the actions of the dataset.
      temperature: larger is greedier (an inverse temperature: 0 is behaviour cloning).
      cap: largest weight.

    Raises:
      ValueError: the shapes differ.

    Source: AWR, arXiv 1910.00177, algorithm 1; as in IQL, arXiv 2110.06169, equation 7.
    """
    require_equal_shapes(advantage, log_likelihood)
    weight = jnp.minimum(jnp.exp(temperature * jax.lax.stop_gradient(advantage)), cap)
    return -jnp.mean(weight * log_likelihood)


def ddpg_bc_loss(value: Array, log_likelihood: Array, bc_weight: float) -> Array:
    """- mean Q / mean |Q| - bc_weight * mean log pi(a | s), []: the actions of a critic, close to those of the data.

    Args:
      value: [B] Q of the actor's own actions; the caller stops the gradient of Q's parameters.
      log_likelihood: [B] of the actions of the dataset.
      bc_weight: larger is closer to the dataset.

    Raises:
      ValueError: the shapes differ.

    Source: TD3+BC, arXiv 2106.06860, equation 5, with the weight on the other term as in arXiv 2406.09329 and OGBench.
    """
    require_equal_shapes(value, log_likelihood)
    size = jax.lax.stop_gradient(jnp.mean(jnp.abs(value)) + SMALLEST_SIZE)
    return -jnp.mean(value) / size - bc_weight * jnp.mean(log_likelihood)


AWR = "awr"  # value of --extraction


def extraction_flag() -> str:
    """The flag of agents that offer both."""
    help = "the actor: improves values near stored actions, or imitates the better ones"
    return flag("ddpg_bc", help, valid=("ddpg_bc", AWR))


def awr_alpha_flag() -> float:
    """The flag beside it."""
    return flag(10.0, "with awr, factor of advantages in the weights of imitated actions", low=0)


@dataclasses.dataclass(frozen=True)
class AdvantageConfig(ActorConfig):
    """Of critics that tell how much better a stored action is than others in its state."""

    extraction: str = extraction_flag()
    awr_alpha: float = awr_alpha_flag()

    @property
    def imitation(self) -> str:
        """FlagError for flags of the other way to imitate."""
        if self.extraction != AWR:
            self.require_unset(["awr_alpha"], f"with --extraction {self.extraction}")
            return super().imitation
        self.require_unset(["bc_weight"], f"with --extraction {AWR}")
        return f"--extraction {AWR}"


def require_equal_shapes(one: Array, other: Array) -> None:
    """ValueError unless two arrays have one shape."""
    if jnp.shape(one) != jnp.shape(other):
        raise ValueError(f"Expected equal shapes, got {jnp.shape(one)} and {jnp.shape(other)}.")


class GeluMLP(nn.Module):
    """[..., F] -> [..., outputs]: n_hidden layers (dense, GELU, LayerNorm), a residual every skip_connections of them
    (0: none), then one linear layer. Architecture and initial weights of OGBench, arXiv 2410.20092."""

    outputs: int
    h_dim: int = 512
    n_hidden: int = 3
    use_ln: bool = True
    use_relu: bool = False
    skip_connections: int = 0
    last_scale: float = 1.0  # of the initial weights of the linear layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        skip = None
        for layer in range(self.n_hidden):
            x = nn.Dense(self.h_dim, kernel_init=kernel_init(1.0))(x)
            x = nn.relu(x) if self.use_relu else nn.gelu(x)
            x = nn.LayerNorm()(x) if self.use_ln else x
            if self.skip_connections and layer % self.skip_connections == 0:
                skip = x = x if skip is None else x + skip
        return nn.Dense(self.outputs, kernel_init=kernel_init(self.last_scale))(x)


def kernel_init(scale: float) -> Callable[..., Any]:
    """Initial weights of a layer of OGBench."""
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


ACTOR_SCALE = 0.01  # of the initial weights of an actor's last layer, as published


def linear_actor(mlp: Callable[..., Any], outputs: int) -> Network[Array]:
    """(state [..., S], goal [..., G]) -> mean [..., outputs] of a Gaussian with standard deviation 1: no tanh.

    Args:
      mlp: (outputs, use_ln, last_scale) -> network.
    """
    return deterministic_actor(functools.partial(mlp, use_ln=False, last_scale=ACTOR_SCALE), outputs)


def clipped_policy(actor: Network[Array], noise: float, name: str = "actor") -> tuple[Callable, Callable]:
    """`act` and `mode` of an Agent whose state holds the parameters of an actor without tanh as params[name]: its mean,
    clipped to [-1, 1]; to explore, with Gaussian noise of this standard deviation."""

    def mode(agent, state, goal):
        return jnp.clip(actor.apply(agent.params[name], state, goal), -1, 1)

    return with_noise(mode, noise), mode


def with_noise(mode: Callable, noise: float) -> Callable:
    """`act` of an Agent with that `mode`."""

    def act(agent, state, goal, key):
        action = mode(agent, state, goal)
        return jnp.clip(action + noise * jax.random.normal(key, action.shape), -1, 1)

    return act


@dataclasses.dataclass(frozen=True)
class GeluConfig(PolicyConfig):
    """Networks of OGBench in place of those of the online agents."""

    def mlp(self, outputs: int, **others: Any) -> Network[Array]:
        """A `GeluMLP` of these flags, [..., F] -> [..., outputs]; with --depth, residual blocks.

        Args:
          others: flags with other values, or `last_scale` of the initial weights of the linear layer.
        """
        scale = others.pop("last_scale", 1.0)
        if self.depth:
            return super().mlp(outputs, **others)
        names = ("h_dim", "n_hidden", "use_ln", "use_relu", "skip_connections")
        layers = {name: getattr(self, name) for name in names} | others
        return cast(Network[Array], GeluMLP(outputs, last_scale=scale, **layers))
