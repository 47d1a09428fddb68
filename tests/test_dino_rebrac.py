"""Tests of DINO with ReBRAC: losses of both phases against NumPy."""

import jax
import numpy as np
import pytest
from scipy import special

from goalax.agents import dino_rebrac
from goalax.agents.q_learning import TwinCritic
from goalax.learning.networks import deterministic_actor
from tests.helpers.infom import KEY, learner_of
from tests.helpers.offline import SPEC, close, equal


def cross_entropy(student, teacher, centre):
    """Of features [B, D] in float64, sample by sample."""
    aims = [special.softmax((each - centre) / 0.04) for each in np.asarray(teacher, np.float64)]
    found = [special.log_softmax(each / 0.1) for each in np.asarray(student, np.float64)]
    return np.mean([-np.sum(aim * each) for aim, each in zip(aims, found, strict=True)])


def test_distillation_loss():
    student, teacher = np.random.default_rng(0).normal(size=(2, 6, 4))
    centre = np.arange(4) / 10
    found = jax.value_and_grad(dino_rebrac.distillation_loss, argnums=(0, 1))(student, teacher, centre, 0.1, 0.04)
    close(found[0], cross_entropy(student, teacher, centre))
    assert np.abs(found[1][0]).max() > 0.1 and not found[1][1].any()
    with pytest.raises(ValueError, match="equal shapes"):
        dino_rebrac.distillation_loss(student, teacher[:1], centre, 0.1, 0.04)
    close(dino_rebrac.view(np.zeros(3), np.array([-9.0, 1.0, 9.0]), 0.5, 1.0), [-1, 0.5, 1])


def test_losses_of_dino_rebrac_in_both_phases():
    small, agent, update, some, state, *_ = learner_of("dino_rebrac")
    target = jax.tree.map(lambda x: x + 0.1, state.target)
    state = state._replace(target=target)
    after, metrics = update(state, some, KEY)
    networks, encoder = state.params["critic"], small.mlp(4)
    noises = [np.asarray(jax.random.normal(one, (64, 5))) for one in jax.random.split(KEY)]
    views = [some.state + np.clip(0.5 * noise, -1, 1) for noise in noises]
    student, teacher = ([encoder.apply(p["encoder"], each) for each in views] for p in (networks, target))
    losses = [cross_entropy(*each, target["centre"]) for each in zip(student, teacher, strict=True)]
    close(metrics["critic_loss"], np.mean(losses))
    close(after.target["centre"], 0.9 * target["centre"] + 0.1 * np.mean(teacher, axis=(0, 1)))
    features = encoder.apply(networks["encoder"], some.state)
    policy = deterministic_actor(small.actor_mlp, 3)
    action = np.tanh(policy.apply(state.params["actor"], features, some.goal))
    imitation = np.mean(np.sum((action - some.action) ** 2, -1))
    close(metrics["actor_loss"], imitation)
    close(metrics["feature_spread"], np.mean(np.std(features, axis=0)))
    close(agent.mode(state, some.state, some.goal), action)

    tuned = agent.switch(state, some, KEY)
    assert equal(tuned.target["centre"], target["centre"])
    tuned = tuned._replace(target=target)
    after, metrics = update(tuned, some, KEY)
    critic = TwinCritic(small, SPEC._replace(state_size=4))
    there = encoder.apply(target["encoder"], some.next_state)
    noise = np.clip(0.2 * np.asarray(jax.random.normal(KEY, (64, 3))), -0.5, 0.5)
    wanted = np.clip(np.tanh(policy.apply(target["actor"], there, some.goal)) + noise, -1, 1)
    penalty = 0.2 * np.sum((wanted - some.next_action) ** 2, -1)
    lower = np.min(critic.values(target["q"], there, some.goal, wanted), axis=0) - penalty
    aim = np.asarray(some.reward + some.discount * lower)
    q = np.stack(critic.values(networks["q"], features, some.goal, some.action))
    close(metrics["critic_loss"], sum(np.mean((each - aim) ** 2) for each in q), 1e-4)
    worth = np.min(critic.values(networks["q"], features, some.goal, action), axis=0)
    close(metrics["actor_loss"], 0.3 * imitation - np.mean(worth) / np.mean(np.abs(worth)), 1e-4)
    assert equal(after.target["centre"], target["centre"])
