"""DINO (arXiv 2104.14294) and ReBRAC (arXiv 2305.09836) on what it sees, as in InFOM (arXiv 2506.08902): pre-training
learns features that noise does not change, by self-distillation, and imitates; fine-tuning is ReBRAC on them.
Defaults are InFOM's, but for --actor_bc and --critic_bc, which its code leaves at 0. A commanded goal, where there is
one, is an input beside the features; what else differs is in docs/offline.md."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.bc import squared_error
from goalax.agents.delayed import require_noise, smoothed
from goalax.agents.extraction import require_equal_shapes, with_noise
from goalax.agents.pretraining import Losses, PretrainingConfig, learner
from goalax.agents.q_learning import TwinCritic
from goalax.agents.rebrac import improvement_loss, penalised
from goalax.agents.rewards import RewardConfig
from goalax.core.types import Agent, Array, Needs, Spec
from goalax.flags import flag
from goalax.learning.networks import deterministic_actor

Features = Callable[[Array], Array]  # states [..., S] -> features [..., D]


@dataclasses.dataclass(frozen=True)
class DINOReBRACConfig(PretrainingConfig, RewardConfig):
    """InFOM tunes student_temperature for every task, 0.04 or 0.1. Weights of stored actions are those of `rebrac` here
    and of its ReBRAC on the cheetah; its code has 0 for both unless told."""

    view_noise: float = flag(0.5, "standard deviation of the noise on states of pre-training", low=0)
    view_clip: float = flag(1.0, "largest noise on states of pre-training", low=0)
    student_temperature: float = flag(0.1, "temperature of the features", above=0)
    teacher_temperature: float = flag(0.04, "temperature of the slow features that they learn from", above=0)
    centre_rate: float = flag(0.1, "how far the centre of the slow features moves in one update", above=0, high=1)
    actor_bc: float = flag(0.1, "fine-tuning: weight of squared distances to stored actions in the actor's loss", low=0)
    critic_bc: float = flag(0.1, "fine-tuning: the same, to the next stored actions in the back-ups", low=0)
    target_noise: float = flag(0.2, "standard deviation of the noise on actions of the target policy", low=0)
    noise_clip: float = flag(0.5, "largest noise on actions of the target policy", low=0)


def view(state: Array, noise: Array, deviation: float, limit: float) -> Array:
    """States [B, S] with clipped noise, from standard normal numbers [B, S]."""
    return state + jnp.clip(deviation * noise, -limit, limit)


def distillation_loss(
    student: Array, teacher: Array, centre: Array, student_temperature: float, teacher_temperature: float
) -> Array:
    """Cross-entropy of the softmax of features to that of centred slow ones, [] (arXiv 2104.14294, equations 1 and 2).

    Args:
      student: [B, D].
      teacher: [B, D] of the same views, without gradient (the paper: of other views).
      centre: [D].

    Raises:
      ValueError: the shapes of the features differ.
    """
    require_equal_shapes(student, teacher)
    aim = jax.nn.softmax((jax.lax.stop_gradient(teacher) - centre[None]) / teacher_temperature)
    return -jnp.mean(jnp.sum(aim * jax.nn.log_softmax(student / student_temperature), axis=-1))


def distilled(
    config: DINOReBRACConfig, student: Features, teacher: Features, centre: Array, state: Array, key: Array
) -> tuple[Array, Array]:
    """Loss [] of the features of two noisy views of states [B, S], each beside the slow features of the same view; and
    the centre [D] after it, an average over batches (arXiv 2104.14294, equation 4). Consumes key.

    Args:
      student, teacher: views [B, S] -> [B, D].
      centre: [D].
    """
    noises = (jax.random.normal(one, state.shape) for one in jax.random.split(key))
    views = [view(state, noise, config.view_noise, config.view_clip) for noise in noises]
    slow = [teacher(one) for one in views]
    temperatures = config.student_temperature, config.teacher_temperature
    losses = [distillation_loss(student(one), aim, centre, *temperatures) for one, aim in zip(views, slow, strict=True)]
    mean = jnp.mean(jnp.stack(slow), axis=(0, 1))
    return jnp.mean(jnp.stack(losses)), centre + config.centre_rate * (mean - centre)


def make(config: DINOReBRACConfig, spec: Spec) -> Agent:
    require_noise(config)
    require_noise(config, "view_noise", "view_clip")
    encoder, stop = config.mlp(config.repr_dim), jax.lax.stop_gradient
    actor = deterministic_actor(config.actor_mlp, spec.action_size)
    critic = TwinCritic(config, spec._replace(state_size=config.repr_dim))

    def init(key):
        encoder_key, q_key, actor_key = jax.random.split(key, 3)
        networks = {"encoder": encoder.init(encoder_key, jnp.zeros(spec.state_size)), "q": critic.init(q_key)}
        features, goal = jnp.zeros(config.repr_dim), jnp.zeros(spec.goal_size)
        params = {"actor": actor.init(actor_key, features, goal), "critic": networks}
        return start(params, kept={"centre": jnp.zeros(config.repr_dim)})

    def features_of(params, state):
        """Without gradient, [..., D]."""
        return stop(encoder.apply(params["critic"]["encoder"], state))

    def action_of(params, features, goal):
        return jnp.tanh(actor.apply(params, features, goal))

    def metrics_of(features, action, batch):
        """Of both phases; features that all states share have no spread."""
        spread, error = jnp.mean(jnp.std(features, axis=0)), jnp.mean(squared_error(action, batch.action))
        return {"feature_spread": spread, "action_error": error}

    def pretraining(params, target, _, batch, key):
        student = functools.partial(encoder.apply, params["critic"]["encoder"])
        teacher = functools.partial(encoder.apply, target["encoder"])
        loss, centre = distilled(config, student, teacher, target["centre"], batch.state, key)
        features = features_of(params, batch.state)
        metrics = metrics_of(features, action_of(params["actor"], features, batch.goal), batch)
        return Losses(loss, metrics["action_error"], metrics, {"centre": centre})

    def backup(target, batch, key):
        """What critics are regressed to, [B]."""
        features = encoder.apply(target["encoder"], batch.next_state)
        wanted = action_of(target["actor"], features, batch.goal)
        action = smoothed(wanted, jax.random.normal(key, wanted.shape), config.target_noise, config.noise_clip)
        value = critic.lower(target["q"], features, batch.goal, action)
        return config.backup(batch, penalised(value, action, batch.next_action, config.critic_bc))

    def finetuning(params, target, _, batch, key):
        features = features_of(params, batch.state)
        aim = backup(target, batch, key)
        q_loss, _ = critic.loss(params["critic"]["q"], batch._replace(state=features), aim)
        action = action_of(params["actor"], features, batch.goal)
        value = critic.lower(stop(params["critic"]["q"]), features, batch.goal, action)
        actor_loss = improvement_loss(value, action, batch.action, config.actor_bc)
        return Losses(q_loss, actor_loss, metrics_of(features, action, batch), {"centre": target["centre"]})

    def switch(agent, batch, key):
        return switched(agent)

    def mode(agent, state, goal):
        return action_of(agent.params["actor"], features_of(agent.params, state), goal)

    def score(agent, state, future_state):
        features, goal = features_of(agent.params, state), spec.goal_of(future_state)
        return critic.lower(agent.params["critic"]["q"], features, goal, mode(agent, state, goal))

    def slow_part(params):
        return {"actor": params["actor"], **params["critic"]}

    start, update, switched = learner(config, pretraining, finetuning, slow_part, config.tau, with_actor=True)
    act = with_noise(mode, config.exploration_noise)
    return Agent(init, act, mode, update, score, Needs(next_action=True), switch=switch)


AGENTS.add("dino_rebrac", Algorithm(DINOReBRACConfig, make, goals=False))
