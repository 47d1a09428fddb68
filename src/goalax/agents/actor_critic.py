"""An actor that learns from any critic, held by entropy or near stored actions, and the policies that agents act by."""

from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from goalax.agents.base import ActorConfig, EntropyConfig
from goalax.agents.chunks import chunked, of_decisions
from goalax.agents.delayed import all_due
from goalax.agents.extraction import AdvantageConfig, awr_loss, clipped_policy, ddpg_bc_loss, log_density, with_noise
from goalax.core.branch import together
from goalax.core.sizes import samples_of
from goalax.core.types import Agent, Array, Batch, Metrics, Needs, Spec
from goalax.flags import FlagError
from goalax.learning.diagnostics import neighbours
from goalax.learning.networks import Network, deterministic_actor, gaussian_actor, sample_action


class Critic(NamedTuple):
    """What an agent brings to `actor_critic`. Goals G are whatever pytree the agent keeps of them, leaves [B, ...]."""

    init: Callable[[Iterator[Array]], Any]  # (fresh keys, one per network) -> parameters
    loss: Callable[[Any, Batch], tuple[Array, Any, Metrics]]  # (parameters, batch) -> loss [], G, metrics
    goals: Callable[[Any, Array, Array], Any]  # (parameters, future_state [B, S], future_action [B, A]) -> G
    value: Callable[[Any, Array, Array, Any], Array]  # (parameters, state [B, S], action [B, A], G) -> [B], to maximise
    # (parameters, batch, G) -> [B], how much better its actions are than those of its states are on average
    advantage: Callable[[Any, Batch, Any], Array] | None = None
    next_action: bool = False  # whether the loss wants batch.next_action: what the actor would do in next_state


def several(critic: Critic, number: int) -> Critic:
    """So many critics, whose parameters are a list; the most pessimistic one counts for the actor."""
    # One after the other, not vmapped: XLA's batched products are several times slower on CPUs.

    def init(keys):
        return [critic.init(keys) for _ in range(number)]

    def goals(params, future_state, future_action):
        return [critic.goals(each, future_state, future_action) for each in params]

    def loss(params, batch):
        losses, targets, metrics = zip(*(critic.loss(each, batch) for each in params), strict=True)
        return sum(losses), list(targets), jax.tree.map(lambda *values: sum(values) / len(values), *metrics)

    def lowest(of_one, params, targets):
        return reduce(jnp.minimum, map(of_one, params, targets))

    def value(params, state, action, targets):
        return lowest(lambda each, target: critic.value(each, state, action, target), params, targets)

    def advantage(params, batch, targets):
        assert critic.advantage is not None  # left out for others
        return lowest(lambda each, target: critic.advantage(each, batch, target), params, targets)

    return critic._replace(init=init, loss=loss, goals=goals, value=value, advantage=critic.advantage and advantage)


class ActorCriticState(NamedTuple):
    params: dict  # actor, critic, log_alpha
    optimizer: optax.OptState
    updates: Array | None = None  # [] int32, with --policy_delay
    actor_metrics: Metrics | None = None  # of the actor's newest update, with --policy_delay


def actor_critic(config: ActorConfig, spec: Spec, critic: Critic, needs: Needs | None = None) -> Agent:
    """A tanh-Gaussian actor and a critic that learn side by side from the same batch, one gradient per update.

    The actor is trained on the goals of the critic's samples (`random_goals` of them from another sample), or on goals
    of its own with --actor_relabel. With --bc_weight it is a Gaussian without tanh, whose clipped mean maximises the
    critic near stored actions, and with --extraction awr one that imitates those that are better than others of their
    states. With --policy_delay only every so many updates are of both, the others of the critic alone. With
    --action_chunk it chooses several actions at once, and the critic values them together: they are one long action of
    `config.decision(spec)`, whose next state is the one after all of them.

    Args:
      spec: that of the environment.
      critic: for actions of `config.decision(spec)`.
      needs: what the critic asks of the buffer; None: what the flags ask for.
    """
    config.require_entropy()
    config.require_no_entropy()
    if config.imitation and not config.bc_weight and critic.advantage is None:
        raise FlagError(f"{config.imitation} needs advantages, and the critic of this agent has no `advantage`.")
    imitates = bool(config.imitation)
    size = config.decision(spec).action_size
    gaussian, cloning = gaussian_actor(config.mlp, size), deterministic_actor(config.mlp, size)
    actor: Network[Any] = cloning if imitates else gaussian
    optimizer = entropy_optimizer(config.policy_lr, config.critic_lr, config.alpha_lr)
    pick = partial(actor_goals, random_goals=config.random_goals)
    prepared = partial(with_next_action, actor, imitates, spec) if critic.next_action else without_next_action

    def init(key):
        keys = iter(jax.random.split(key, 16))
        params = {
            "actor": actor.init(next(keys), jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)),
            "critic": critic.init(keys),
            "log_alpha": jnp.log(jnp.float32(config.alpha_init)),
        }
        return start_delay(config, ActorCriticState(params, optimizer.init(params)))

    def losses(params, batch: Batch, key):
        batch = prepared(params, batch, key)
        critic_loss, goals, critic_metrics = critic.loss(params["critic"], batch)
        achieved = batch.future_state
        if batch.actor_state is not None:  # goals of its own, in whose states the policy's action is not stored
            achieved = batch.actor_state
            goals = critic.goals(params["critic"], achieved, neighbours(batch.future_action))
        fixed, wanted = jax.lax.stop_gradient((params["critic"], jax.tree.map(pick, goals)))
        policy = actor.apply(params["actor"], batch.state, pick(spec.goal_of(achieved)))

        def value(action):
            return critic.value(fixed, batch.state, action, wanted)

        if imitates:
            likelihood = log_density(batch.action, policy)
            if config.bc_weight:
                actor_loss = ddpg_bc_loss(value(jnp.clip(policy, -1, 1)), likelihood, config.bc_weight)
            else:
                assert isinstance(config, AdvantageConfig) and critic.advantage is not None  # or it would not imitate
                actor_loss = awr_loss(critic.advantage(fixed, batch, wanted), likelihood, config.awr_alpha)
            metrics = {"actor_loss": actor_loss, "log_density": jnp.mean(likelihood)}
        else:
            actor_loss, metrics = entropy_actor_loss(config, policy, value, params["log_alpha"], key)
        return critic_loss + actor_loss, {"critic_loss": critic_loss, **critic_metrics, **metrics}

    def update_both(agent, batch, key):
        gradients, metrics = jax.grad(losses, has_aux=True)(agent.params, batch, key)
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        return agent._replace(params=optax.apply_updates(agent.params, steps), optimizer=optimizer_state), metrics

    act, mode = clipped_policy(cloning, config.bc_noise) if imitates else gaussian_policy(gaussian)

    def score(agent, state, future_state):
        goal, params = spec.goal_of(future_state), agent.params["critic"]
        action, future_action = mode(agent, state, goal), mode(agent, future_state, goal)
        return critic.value(params, state, action, critic.goals(params, future_state, future_action))

    needs, update = needs or config.needs(spec), with_delay(config, critic, optimizer, update_both, prepared)
    due = partial(all_due, config.policy_delay) if config.policy_delay > 1 else None
    agent = Agent(init, act, mode, update, score, needs, due=due)
    if config.action_chunk == 1:
        return agent
    return chunked(agent, config.action_chunk, spec.action_size)


def without_next_action(params: dict, batch: Batch, key: Array) -> Batch:
    """The batch of decisions; its next actions are those of the buffer, if any."""
    return of_decisions(batch)


def with_next_action(actor: Network[Any], imitates: bool, spec: Spec, params: dict, batch: Batch, key: Array) -> Batch:
    """The batch of decisions, with what the actor would do next, without gradient."""
    batch = of_decisions(batch)
    policy = actor.apply(jax.lax.stop_gradient(params["actor"]), batch.next_state, spec.goal_of(batch.future_state))
    if imitates:
        return batch._replace(next_action=jnp.clip(policy, -1, 1))
    mean, log_std = policy
    next_key = jax.random.fold_in(key, 1)  # not split, so that the actor's loss draws the same with and without this
    return batch._replace(next_action=sample_action(mean, log_std, next_key)[0])


def start_delay(config: ActorConfig, agent: ActorCriticState) -> ActorCriticState:
    """The new agent with what `with_delay` counts and keeps, if --policy_delay asks for it."""
    if config.policy_delay == 1:
        return agent
    entropy = [] if config.disable_entropy_actor else ["alpha_loss", "log_alpha"]
    names = ["actor_loss", "log_density"] if config.imitation else ["actor_loss", "entropy", *entropy]
    metrics = dict.fromkeys(names, jnp.zeros(()))  # nothing is known of them before the actor's first update, but one
    if "log_alpha" in metrics:
        metrics["log_alpha"] = agent.params["log_alpha"]
    return agent._replace(updates=jnp.zeros((), jnp.int32), actor_metrics=metrics)


def with_delay(
    config: ActorConfig,
    critic: Critic,
    optimizer: optax.GradientTransformation,
    update_both: Callable,
    prepared: Callable[[Any, Batch, Array], Batch],
) -> Callable:
    """`update` of an Agent with --policy_delay: `update_both` as often as that, else an update of the critic alone, on
    what (parameters, batch, key) -> batch `prepared` makes of a batch."""
    if config.policy_delay == 1:
        return update_both

    def update_critic(agent, batch, key):
        def loss(params):
            total, _, metrics = critic.loss(params, prepared(agent.params, batch, key))
            return total, {"critic_loss": total, **metrics}

        gradients, metrics = jax.grad(loss, has_aux=True)(agent.params["critic"])
        gradients = {**jax.tree.map(jnp.zeros_like, agent.params), "critic": gradients}
        steps, optimizer_state = optimizer.update(gradients, agent.optimizer, agent.params)
        params = {**agent.params, "critic": optax.apply_updates(agent.params["critic"], steps["critic"])}
        moments = {**agent.optimizer.inner_states, "critic": optimizer_state.inner_states["critic"]}
        agent = agent._replace(params=params, optimizer=optimizer_state._replace(inner_states=moments))
        return agent, {**metrics, **agent.actor_metrics}

    def update(agent, batch, key):
        agent = agent._replace(updates=agent.updates + 1)
        due = agent.updates % config.policy_delay == 0
        agent, metrics = together(due, update_both, update_critic, agent, batch, key)
        return agent._replace(actor_metrics={name: metrics[name] for name in agent.actor_metrics}), metrics

    return update


def gaussian_policy(actor: Network[tuple[Array, Array]]) -> tuple[Callable, Callable]:
    """`act` and `mode` of an Agent whose state holds the parameters of a tanh-Gaussian actor as params["actor"]."""

    def act(agent, state, goal, key):
        mean, log_std = actor.apply(agent.params["actor"], state, goal)
        return sample_action(mean, log_std, key)[0]

    def mode(agent, state, goal):
        return jnp.tanh(actor.apply(agent.params["actor"], state, goal)[0])

    return act, mode


def noisy_policy(actor: Network[Array], noise: float) -> tuple[Callable, Callable]:
    """As `gaussian_policy`, of a deterministic actor that explores with Gaussian noise of this standard deviation."""

    def mode(agent, state, goal):
        return jnp.tanh(actor.apply(agent.params["actor"], state, goal))

    return with_noise(mode, noise), mode


def actor_goals(goal: Array, random_goals: float) -> Array:
    """Goals or representations [B, G] for the actor: the first share `random_goals` of the batch takes its neighbour's.

    Samples of a batch are independent, so the neighbour's goal is a random one.
    """
    shuffled = samples_of(random_goals, len(goal))
    return jnp.concatenate([jnp.roll(goal, -1, axis=0)[:shuffled], goal[shuffled:]])


def entropy_actor_loss(
    config: EntropyConfig,
    policy: tuple[Array, Array],
    value: Callable[[Array], Array],
    log_alpha: Array,
    key: Array,
) -> tuple[Array, dict[str, Array]]:
    """Loss of a tanh-Gaussian actor and of its temperature (arXiv 1812.05905, equations 7 and 18).

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


def soft_value(
    config: EntropyConfig,
    policy: tuple[Array, Array],
    value: Callable[[Array], Array],
    log_alpha: Array,
    key: Array,
) -> Array:
    """What a policy is worth with its entropy, [B] (arXiv 1812.05905, eq. 3); arguments as `entropy_actor_loss`."""
    action, log_density = sample_action(*policy, key)
    worth = value(action)
    return worth if config.disable_entropy_actor else worth - jnp.exp(log_alpha) * log_density


def entropy_optimizer(policy_lr: float, critic_lr: float, alpha_lr: float) -> optax.GradientTransformation:
    """Adam for parameters {actor, critic, log_alpha}, each with its learning rate."""
    adam = {"actor": optax.adam(policy_lr), "critic": optax.adam(critic_lr), "log_alpha": optax.adam(alpha_lr)}
    return optax.partition(adam, {name: name for name in adam})
