"""InFOM (arXiv 2506.08902): pre-training learns which states come later, by a flow for every intention, and imitates;
in fine-tuning a model of rewards makes them values, of which an expectile over intentions is what the actor climbs.
Defaults are the paper's, which tunes four of them for every task. A commanded goal, where there is one, is an input
beside the state; what else differs is in docs/offline.md."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from goalax.agents.base import AGENTS, Algorithm
from goalax.agents.extraction import clipped_policy, expectile, linear_actor, log_density
from goalax.agents.pretraining import Losses, PretrainingConfig, learner
from goalax.agents.q_learning import TwinCritic
from goalax.agents.rewards import RewardConfig
from goalax.core.types import Agent, Array, Batch, Metrics, Needs, Spec
from goalax.flags import flag
from goalax.learning.flow import Bounds, Field, carried, matching_error, on_the_line
from goalax.learning.networks import Network


@dataclasses.dataclass(frozen=True)
class InFOMConfig(PretrainingConfig, RewardConfig):
    """The paper tunes for every task: repr_dim 128 or 512, kl_weight 0.005 to 0.2, bc_weight 0.1 to 300 and
    expectile 0.9 to 0.99."""

    repr_dim: int = flag(512, "size of the intentions", low=1, most=1_000_000)
    use_ln: bool = flag(False, "LayerNorm in critics and flow, too; intentions and rewards have it, the actor has none")
    kl_weight: float = flag(0.01, "weight of the divergence of intentions from a standard normal law", low=0)
    flow_steps: int = flag(10, "steps of Euler's method from noise to a state", low=1, most=1000)
    flow_samples: int = flag(16, "fine-tuning: later states that a value is averaged over", low=1, most=10_000)
    expectile: float = flag(
        0.9, "fine-tuning: expectile over intentions: 0.5 is the mean, 1 the best", above=0, below=1
    )
    bc_weight: float = flag(10.0, "fine-tuning: weight of imitating stored actions", low=0)


def divergence(mean: Array, log_std: Array) -> Array:
    """Kullback-Leibler divergence of Gaussians [B, D] from the standard normal law, mean over entries and batch, []."""
    return -0.5 * jnp.mean(1 + 2 * log_std - mean**2 - jnp.exp(2 * log_std))


def present_error(field: Field, state: Array, noise: Array, time: Array) -> Array:
    """Errors [B] of a flow to the states themselves (the paper, the current part of its SARSA flow loss).

    Args:
      field: of the states and actions.
      state, noise: [B, S].
      time: [B].
    """
    return matching_error(field, on_the_line(noise, state, time), time, state - noise)


def later_error(
    field: Field, slow: Field, noise: Array, time: Array, ended: Array, end: Array, steps: int, bounds: Bounds
) -> tuple[Array, Array]:
    """Errors [B] of a flow to what comes later, by the slow flow from the next state on, and samples of that, [B, S].

    An episode that ended for good stays where it ended, as this project has it.

    Args:
      field: of the states and actions.
      slow: of the next states and actions, without gradient; its samples and its velocities are the aim (the paper,
        the future part of its SARSA flow loss; after arXiv 2503.09817).
      noise: [B, S].
      time: [B].
      ended: [B] whether the action ended the episode for good.
      end: [B, S] next states.
      steps: of Euler's method.
      bounds: of its samples.
    """
    there = ended[:, None]
    sample = jnp.where(there, end, carried(slow, noise, steps, bounds))
    point = on_the_line(noise, sample, time)
    velocity = jnp.where(there, end - noise, slow(point, time))
    return matching_error(field, point, time, velocity), sample


def values_of(rewards: Array, discounting: float) -> Array:
    """Values [B] from rewards [N, B] in N states that come later: their mean / (1 - gamma) (the paper)."""
    return jnp.mean(rewards, axis=0) / (1 - discounting)


class Occupancy(NamedTuple):
    """Which states come later: intentions z [B, D] of the next states and actions, and a flow for each of them."""

    config: InFOMConfig
    spec: Spec

    @property
    def flow(self) -> Network[Array]:
        return self.config.mlp(self.spec.state_size)

    @property
    def intention(self) -> Network[Array]:
        return self.config.mlp(2 * self.config.repr_dim, use_ln=True)

    def init(self, key: Array) -> dict:
        flow_key, intention_key = jax.random.split(key)
        state, action = jnp.zeros(self.spec.state_size), jnp.zeros(self.spec.action_size)
        inputs = jnp.concatenate([state, jnp.zeros(1), state, action, jnp.zeros(self.config.repr_dim)])
        intention = self.intention.init(intention_key, jnp.concatenate([state, action]))
        return {"flow": self.flow.init(flow_key, inputs), "intention": intention}

    def field(self, params: dict, state: Array, action: Array, latent: Array) -> Field:
        """The flow from states [B, S] and actions [B, A] with intentions [B, D]; points may have more axes in front."""

        def field(point, time):
            given = [jnp.broadcast_to(x, (*point.shape[:-1], x.shape[-1])) for x in (state, action, latent)]
            return self.flow.apply(params, jnp.concatenate([point, time[..., None], *given], axis=-1))

        return field

    def loss(self, params: dict, slow: dict, bounds: Bounds, batch: Batch, key: Array) -> tuple[Array, Metrics]:
        """Loss of the flow and of the intentions, [], and metrics (the paper, its evidence lower bound).

        Args:
          params: {flow, intention}.
          slow: those of the target of the flow.
          bounds: of the states.
        """
        latent_key, time_key, *noise_keys = jax.random.split(key, 4)
        assert batch.next_action is not None  # as `Needs` asks for
        inputs = jnp.concatenate([batch.next_state, batch.next_action], axis=-1)
        mean, log_std = jnp.split(self.intention.apply(params["intention"], inputs), 2, axis=-1)
        latent = mean + jnp.exp(log_std) * jax.random.normal(latent_key, mean.shape)
        fixed, time = jax.lax.stop_gradient(latent), jax.random.uniform(time_key, batch.reward.shape)
        noise, later_noise = (jax.random.normal(one, batch.state.shape) for one in noise_keys)

        present = present_error(self.field(params["flow"], batch.state, batch.action, latent), batch.state, noise, time)
        later, _ = later_error(
            self.field(params["flow"], batch.state, batch.action, fixed),
            self.field(slow, batch.next_state, batch.next_action, fixed),
            later_noise,
            time,
            batch.discount == 0,
            batch.next_state,
            self.config.flow_steps,
            bounds,
        )
        gamma, kl = self.spec.discounting, divergence(mean, log_std)
        flow_loss = jnp.mean((1 - gamma) * present + gamma * later)
        metrics = {"flow_loss": flow_loss, "kl": kl}
        return flow_loss + self.config.kl_weight * kl, metrics

    def samples(self, params: dict, bounds: Bounds, batch: Batch, key: Array) -> Array:
        """What comes later, of one random intention for each state and action, [flow_samples, B, S]."""
        latent_key, noise_key = jax.random.split(key)
        latent = jax.random.normal(latent_key, (len(batch.reward), self.config.repr_dim))
        noise = jax.random.normal(noise_key, (self.config.flow_samples, *batch.state.shape))
        field = self.field(params["flow"], batch.state, batch.action, latent)
        return carried(field, noise, self.config.flow_steps, bounds)


def make(config: InFOMConfig, spec: Spec) -> Agent:
    occupancy, critic, reward_model = Occupancy(config, spec), TwinCritic(config, spec), config.mlp(1, use_ln=True)
    actor, stop = linear_actor(config.mlp, spec.action_size), jax.lax.stop_gradient

    def init(key):
        flow_key, reward_key, q_key, actor_key = jax.random.split(key, 4)
        state, goal = jnp.zeros(spec.state_size), jnp.zeros(spec.goal_size)
        networks = {
            **occupancy.init(flow_key),
            "reward": reward_model.init(reward_key, jnp.concatenate([state, goal])),
            "q": critic.init(q_key),
        }
        params = {"actor": actor.init(actor_key, state, goal), "critic": networks}
        return start(params, kept={"bounds": Bounds.of_nothing(spec.state_size)})

    def reward_of(params, state, goal):
        """Of coming to a state, [...]."""
        goal = jnp.broadcast_to(goal, (*state.shape[:-1], goal.shape[-1]))
        return reward_model.apply(params["reward"], jnp.concatenate([state, goal], axis=-1))[..., 0]

    def bounds_of(target, batch):
        return target["bounds"].widened(batch.state).widened(batch.next_state)

    def policy(params, batch):
        """Mean of the actions, [B, A], and the mean log density of the stored ones, []."""
        mean = actor.apply(params["actor"], batch.state, batch.goal)
        return mean, jnp.mean(log_density(batch.action, mean))

    def value_loss(params, bounds, batch, key):
        """Of both critics, []: mean expectile errors to values of one intention each (implicit generalised policy
        improvement)."""
        fixed = stop(params)
        later = occupancy.samples(fixed, bounds, batch, key)
        aim = values_of(reward_of(fixed, later, batch.goal), spec.discounting)
        errors = [aim - q for q in critic.values(params["q"], batch.state, batch.goal, batch.action)]
        return sum(expectile(error, error, config.expectile) for error in errors) / len(errors)

    def pretraining(params, target, _, batch, key):
        bounds, likelihood = bounds_of(target, batch), policy(params, batch)[1]
        loss, metrics = occupancy.loss(params["critic"], target["flow"], bounds, batch, key)
        return Losses(loss, -likelihood, {**metrics, "log_density": likelihood}, {"bounds": bounds})

    def finetuning(params, target, _, batch, key):
        flow_key, value_key = jax.random.split(key)
        networks, bounds = params["critic"], bounds_of(target, batch)
        loss, metrics = occupancy.loss(networks, target["flow"], bounds, batch, flow_key)
        error = reward_of(networks, batch.next_state, batch.goal) - config.rewards(batch)
        loss += jnp.mean(error**2) + value_loss(networks, bounds, batch, value_key)

        mean, likelihood = policy(params, batch)
        worth = critic.lower(stop(networks["q"]), batch.state, batch.goal, jnp.clip(mean, -1, 1))
        actor_loss = -jnp.mean(worth) - config.bc_weight * likelihood
        return Losses(loss, actor_loss, {**metrics, "log_density": likelihood}, {"bounds": bounds})

    def switch(agent, batch, key):
        return switched(agent)

    def slow_part(params):
        return {"flow": params["critic"]["flow"]}

    start, update, switched = learner(config, pretraining, finetuning, slow_part, config.tau)
    act, mode = clipped_policy(actor, config.exploration_noise)
    return Agent(init, act, mode, update, needs=Needs(next_action=True), switch=switch)


AGENTS.add("infom", Algorithm(InFOMConfig, make, goals=False))
