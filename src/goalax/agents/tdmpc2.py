"""TD-MPC2: plans in a learned latent world model, with a value behind the last step (arXiv 2310.16828),
goal-conditioned; with --use_her, on hindsight goals (arXiv 1707.01495)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.mppi import SearchConfig, plan
from goalax.agents.plans import Planner, without_memory
from goalax.agents.q_learning import RelabelConfig
from goalax.agents.speculation import SpeculationConfig, speculative
from goalax.agents.world_model import MODEL_SIZES, ModelSize, WorldModel, average
from goalax.core.branch import together
from goalax.core.sizes import samples_of
from goalax.core.types import Agent, Array, Batch, Memory, Metrics, Spec
from goalax.flags import FlagError, flag
from goalax.learning.latents import GROUP
from goalax.learning.two_hot import cross_entropy, decode

# As published: arXiv 2310.16828, appendix H.
CONSISTENCY_WEIGHT, REWARD_WEIGHT, VALUE_WEIGHT = 20.0, 0.1, 0.1
MAX_GRADIENT = 20.0  # norm at which gradients are clipped
POLICY_EPS = 1e-5  # of the policy's Adam
LAST = 2**31 - 2  # number of updates that is counted on from
PERCENTILES = (5.0, 95.0)  # whose distance is the scale of values


@dataclasses.dataclass(frozen=True)
class TDMPC2Config(SpeculationConfig, SearchConfig, RelabelConfig):
    """Networks and planner as published, for a GPU; docs/planning.md has flags that a CPU stands."""

    model_size: str = flag("5", "widths of the networks, by millions of parameters", valid=tuple(MODEL_SIZES))
    encoder_dim: int = flag(0, "width of the encoder's hidden layers; 0: that of --model_size", low=0, most=1_000_000)
    h_dim: int = flag(0, "width of other hidden layers; 0: that of --model_size", low=0, most=1_000_000)
    latent_dim: int = flag(
        0, "entries of the latent state, a multiple of 8; 0: those of --model_size", low=0, most=1_000_000
    )
    num_q: int = flag(0, "Q networks, at least 2; 0: those of --model_size", low=0, high=1000)
    dropout: float = flag(0.01, "share of the first layer's outputs that Q are trained without", low=0, below=1)
    model_lr: float = flag(3e-4, "learning rate of the model and the Q", above=0)
    encoder_lr_scale: float = flag(0.3, "that of the encoder, as a share of it", low=0)
    policy_lr: float = flag(3e-4, "learning rate of the policy prior", above=0)
    entropy_weight: float = flag(1e-4, "weight of the policy prior's entropy", low=0)
    rho: float = flag(0.5, "weight of a step of the model beside the one before", above=0, high=1)
    tau: float = flag(0.01, "how far target networks and the scale of values move in one update", above=0, high=1)

    @property
    def size(self) -> ModelSize:
        """The widths that flags stand for; FlagError for those that cannot be."""
        preset = MODEL_SIZES[self.model_size]
        given = {name: getattr(self, name) for name in ("encoder_dim", "h_dim", "latent_dim", "num_q")}
        size = preset._replace(**{name: value for name, value in given.items() if value})
        if left := size.latent_dim % GROUP:
            raise FlagError(
                f"--latent_dim is {size.latent_dim}; it must be a multiple of {GROUP}, for example"
                f" {size.latent_dim - left + GROUP}."
            )
        if size.num_q < 2:
            raise FlagError(f"--num_q is {size.num_q}; it must be at least 2, or 0.")
        return size

    def slices(self, batch: Batch, spec: Spec) -> "Slices":
        """What the model learns from: time first, and with --use_her the first goals replaced by achieved ones."""
        path, goal = batch.path, batch.goal
        assert path is not None  # `make` asks for it
        reward = path.reward
        if self.use_her:
            assert path.future_reward is not None
            count = samples_of(self.her_ratio, len(goal))
            goal = jnp.concatenate([spec.goal_of(batch.future_state)[:count], goal[count:]])
            reward = jnp.concatenate([path.future_reward[:count], reward[count:]])
        state = jnp.moveaxis(path.state, 1, 0)
        goals = jnp.broadcast_to(goal[None], (*state.shape[:2], spec.goal_size))
        return Slices(state, goals, *(jnp.moveaxis(x, 1, 0) for x in (path.action, reward, path.discount, path.stored)))


class Slices(NamedTuple):
    """A batch of H steps each, time first."""

    state: Array  # [H + 1, B, S]
    goal: Array  # [H + 1, B, G] the same at all times
    action: Array  # [H, B, A]
    reward: Array  # [H, B]
    discount: Array  # [H, B]
    stored: Array  # [H, B] 1 for a step of its own, 0 behind the end of what is stored


class TDMPC2State(NamedTuple):
    params: dict  # encoder, dynamics, reward, critic, actor
    target: list  # slow parameters of the critic
    scale: Array  # [] of the values, by which the policy's loss divides them
    optimizer: optax.OptState
    updates: Array  # [] int32


def percentile_scale(before: Array, q: Array, tau: float) -> Array:
    """The scale [] after values [B]: a slow mean of the distance between their percentiles, of at least 1.

    Source: arXiv 2310.16828; arXiv 2301.04104.
    """
    low, high = jnp.percentile(q, jnp.array(PERCENTILES))
    return before + tau * (jnp.maximum(high - low, 1.0) - before)


def over_time(values: Array, rho: float) -> Array:
    """mean_t rho^t mean of values[t], [], of [T, ...]."""
    steps = values.shape[0]
    return jnp.mean(rho ** jnp.arange(steps) * jnp.mean(values.reshape(steps, -1), axis=1))


def model_loss(
    model: WorldModel, rho: float, params: dict, slices: Slices, after: Array, target: Array, key: Array
) -> tuple[Array, tuple[Array, Metrics]]:
    """Loss of everything but the policy prior (arXiv 2310.16828, section 3.1).

    Args:
      after: [H, B, Z] encoded next states; no gradient flows into them.
      target: [H, B] values to be learned.
      key: consumed, for dropout.

    Returns:
      [] the loss, latent states [H + 1, B, Z] of the rollout, and metrics.
    """

    def step(z: Array, action: Array) -> tuple[Array, Array]:
        z = model.step(params, z, action)
        return z, z

    first = model.encode(params, slices.state[0], slices.goal[0])
    rest = jax.lax.scan(step, first, slices.action)[1]
    z = jnp.concatenate([first[None], rest])
    seen = slices.stored
    consistency = over_time(seen[..., None] * (rest - after) ** 2, rho)
    reward = over_time(seen * cross_entropy(model.reward(params, z[:-1], slices.action), slices.reward), rho)
    logits = model.q(params["critic"], z[:-1], slices.action, key)
    value = jnp.mean(jnp.stack([over_time(seen * cross_entropy(one, target), rho) for one in logits]))
    loss = CONSISTENCY_WEIGHT * consistency + REWARD_WEIGHT * reward + VALUE_WEIGHT * value
    return loss, (z, {"consistency_loss": consistency, "reward_loss": reward, "critic_loss": value})


def policy_loss(
    config: TDMPC2Config, model: WorldModel, params: dict, z: Array, stored: Array, scale: Array, key: Array
) -> tuple[Array, tuple[Array, Metrics]]:
    """Loss of the policy prior in latent states [H + 1, B, Z] (arXiv 2310.16828, section 3.1), and the next scale.

    Those that actions lead to which were never taken, `stored` [H, B] 0, teach nothing. No gradient flows into the
    critic; the caller stops that of the latent states. The entropy is that of the Gaussian before tanh, times the
    size of an action, as in the published code.
    """
    noise_key, q_key = jax.random.split(key)
    fixed = jax.lax.stop_gradient(params["critic"])
    mean, log_std = model.policy(params, z)
    noise = jax.random.normal(noise_key, mean.shape)
    action = jnp.tanh(mean + jnp.exp(log_std) * noise)
    log_density = jnp.sum(-0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi), axis=-1)
    entropy = -mean.shape[-1] * log_density
    q = model.value(fixed, z, action, q_key, average)
    scale = percentile_scale(scale, jax.lax.stop_gradient(q[0]), config.tau)
    seen = jnp.concatenate([jnp.ones_like(stored[:1]), stored])
    loss = -over_time(seen * (config.entropy_weight * entropy + q / scale), config.rho)
    return loss, (scale, {"actor_loss": loss, "entropy": -jnp.mean(log_density), "q": jnp.mean(q[0]), "q_scale": scale})


def adam(config: TDMPC2Config) -> optax.GradientTransformation:
    """Of the model and of the policy prior; each clips its own gradients."""
    clip = optax.clip_by_global_norm(MAX_GRADIENT)
    both = {
        "model": optax.chain(clip, optax.adam(config.model_lr)),
        "actor": optax.chain(clip, optax.adam(config.policy_lr, eps=POLICY_EPS)),
    }
    names = ("encoder", "dynamics", "reward", "critic")
    return optax.partition(both, {"actor": "actor", **dict.fromkeys(names, "model")})


def planner_of(model: WorldModel, config: TDMPC2Config, horizon: int) -> Planner:
    """Planning by the model of a TDMPC2State."""
    search = config.search(model.spec, horizon)

    def searched(agent: Any, z: Array, mean: Array, key: Array, explore: bool) -> Any:
        return plan(model.world(agent.params), search, z, mean, key, explore)

    return Planner(
        horizon=horizon,
        action_size=model.spec.action_size,
        latent_size=model.size.latent_dim,
        encode=lambda agent, state, goal: model.encode(agent.params, state, goal),
        plan=searched,
        predict=lambda agent, z, action: model.step(agent.params, z, action),
        prior=lambda agent, z: jnp.tanh(model.policy(agent.params, z)[0]),
    )


def uniform_first(memory: Memory, action_size: int) -> Memory:
    """The same, but that until the first update collected actions are uniform in [-1, 1], as published: plans of a
    model that has learned nothing stay near 0."""

    def uniform(agent: TDMPC2State, held: Any, state: Array, goal: Array, key: Array) -> tuple[Array, Any]:
        return jax.random.uniform(key, (len(state), action_size), minval=-1), held

    def act(agent: TDMPC2State, held: Any, state: Array, goal: Array, key: Array) -> tuple[Array, Any]:
        return together(agent.updates == 0, uniform, memory.act, agent, held, state, goal, key)

    return memory._replace(act=act)


def make(config: TDMPC2Config, spec: Spec) -> Agent:
    """One gradient per update: the policy prior learns from the Q as they were before it, where the published code
    takes those after it."""
    config.check_reward(spec)
    model, optimizer = WorldModel(config.size, spec, config.dropout), adam(config)
    rules = config.speculation(config.horizon)
    planner = planner_of(model, config, rules.plan_horizon)

    def init(key):
        params = model.init(key)
        return TDMPC2State(params, params["critic"], jnp.ones(()), optimizer.init(params), jnp.zeros((), jnp.int32))

    def targets(agent: TDMPC2State, slices: Slices, key: Array) -> tuple[Array, Array]:
        """Encoded next states [H, B, Z], and the values [H, B] of the states before."""
        draw_key, q_key = jax.random.split(key)
        after = model.encode(agent.params, slices.state[1:], slices.goal[1:])
        action = model.draw(agent.params, after, draw_key)
        value = model.value(agent.target, after, action, q_key, jnp.minimum)
        return after, slices.reward + slices.discount * value

    def losses(params, agent, slices, after, target, key):
        model_key, policy_key = jax.random.split(key)
        loss, (z, metrics) = model_loss(model, config.rho, params, slices, after, target, model_key)
        z = jax.lax.stop_gradient(z)
        actor_loss, (scale, more) = policy_loss(config, model, params, z, slices.stored, agent.scale, policy_key)
        return loss + actor_loss, (scale, {**metrics, **more, "q_target": jnp.mean(target)})

    def update(agent, batch, key):
        slices = config.slices(batch, spec)
        target_key, loss_key = jax.random.split(key)
        after, target = targets(agent, slices, target_key)
        gradients, (scale, metrics) = jax.grad(losses, has_aux=True)(
            agent.params, agent, slices, after, target, loss_key
        )
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        slower = jax.tree.map(lambda step: config.encoder_lr_scale * step, steps["encoder"])
        steps = {**steps, "encoder": slower}
        params = optax.apply_updates(agent.params, steps)
        slow = optax.incremental_update(params["critic"], agent.target, config.tau)
        return TDMPC2State(params, slow, scale, optimizer_state, jnp.minimum(agent.updates, LAST) + 1), metrics

    def score(agent, state, future_state):
        z = model.encode(agent.params, state, spec.goal_of(future_state))
        values = [decode(logits) for logits in model.q(agent.params["critic"], z, planner.prior(agent, z))]
        return jnp.mean(jnp.stack(values), axis=0)

    act, mode = without_memory(planner)
    needs = config.needs._replace(horizon=config.horizon)
    memory = uniform_first(speculative(planner, rules), spec.action_size)
    return Agent(init, act, mode, update, score if spec.goal_size else None, needs, memory)


AGENTS.add("tdmpc2", Algorithm(TDMPC2Config, make, goals=False))
