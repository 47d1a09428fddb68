"""Agents that pre-train without rewards: golden loss terms, losses of both phases, and what labelled samples tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.agents import AGENTS, crl_infonce, fb, hilp
from goalax.agents.extraction import linear_actor
from goalax.agents.goal_values import goal_reward, value_loss
from goalax.agents.pretraining import ImplicitQ, joined, on_sphere, uniform_latents
from goalax.core.types import Needs
from goalax.learning.losses import contrastive_loss
from goalax.learning.losses.infonce import infonce
from tests.helpers.offline import NO_GOALS, PRETRAINING, SPEC, batch_of, close, config_of, equal, golden


def make(name, spec=SPEC, **flags):
    return AGENTS[name].make(config_of(name, **{"repr_dim": 4, **flags}), spec)


def batch(spec=SPEC):
    """A made-up batch with all that these agents ask for."""
    actor_state = jax.random.normal(jax.random.PRNGKey(8), (64, 5))
    return batch_of(spec)._replace(same=(jnp.arange(64) % 5 == 0).astype(jnp.float32), actor_state=actor_state)


# ---- Golden values --------------------------------------------------------------------------------------------------


def test_golden_hilp():
    g = golden("hilp")
    values, slow, slow_next = (
        -jnp.stack([hilp.distances(g[one][i], g[other][i]) for i in range(2)])
        for one, other in (("phi_s", "phi_g"), ("target_phi_s", "target_phi_g"), ("target_phi_next", "target_phi_g"))
    )
    loss, advantage = value_loss(values, slow, slow_next, g["reward"], g["gamma"] * g["mask"], float(g["tau"]))
    close(loss, g["value_loss"])
    close(advantage, g["advantage"])
    here, there = g["phi_s"][0], g["phi_next"][0]
    close(hilp.skill_reward(here, there, g["z"]), g["skill_reward"], 1e-4)
    close(hilp.inferred(here, there, g["task_reward"]), g["inferred_latent"], 1e-4)


def test_golden_fb():
    g = golden("fb")
    measures = np.einsum("esd,td->est", g["forward"], g["backward"])
    close(measures, g["measures"])
    discount = jnp.full(8, g["gamma"])
    close(fb.measure_loss(measures, g["target_measures"], discount), g["representation_loss"])
    close(g["ortho_weight"] * fb.orthonormality_loss(g["backward"]), g["ortho_loss"])
    close(fb.inferred(g["backward"], g["reward"]), g["inferred_latent"])
    ended = fb.measure_loss(measures, g["target_measures"], discount.at[0].set(0.0))
    free = fb.measure_loss(measures, np.concatenate([np.zeros((1, 8)), g["target_measures"][1:]]), discount)
    close(ended, free)  # after a termination nothing is visited


def test_golden_crl_infonce():
    g = golden("crl_infonce")
    logits = crl_infonce.logits_of(g["phi"], g["psi"])
    close(logits, g["logits"])
    penalty = float(g["logsumexp_penalty"])
    losses = [
        contrastive_loss(infonce, *each, logsumexp_penalty=penalty)[0]
        for each in zip(logits, g["phi"], g["psi"], strict=True)
    ]
    close(np.mean(losses), g["loss"])
    ratios = crl_infonce.log_ratios(logits)
    close(ratios, g["log_ratio"])
    close(jnp.exp(ratios) * g["reward"], g["q"])
    far = jnp.where(jnp.eye(8, dtype=bool)[None], logits, -1e3)
    close(crl_infonce.log_ratios(far), crl_infonce.log_ratios(jnp.maximum(far, np.log(1e-6))))


# ---- Whole agents ----------------------------------------------------------------------------------------------------


def test_latents_are_on_the_sphere():
    latents = uniform_latents(jax.random.PRNGKey(0), 50, 7)
    close(jnp.linalg.norm(latents, axis=-1), np.full(50, 7**0.5))
    close(on_sphere(jnp.zeros(3)), np.zeros(3))
    assert joined(jnp.ones((2, 3)), jnp.zeros(4)).shape == (2, 7) and joined(jnp.ones(3), jnp.zeros(4)).shape == (7,)


def test_defaults_are_those_of_the_comparison():
    for name in PRETRAINING:
        config = AGENTS[name].config()
        assert (config.h_dim, config.n_hidden, config.use_relu, config.use_ln) == (512, 4, False, True)
        assert (config.repr_dim, config.actor_interval, config.policy_lr, config.critic_lr) == (512, 4, 3e-4, 3e-4)
    assert (hilp.HILPConfig().expectile, hilp.HILPConfig().awr_alpha, hilp.HILPConfig().tau) == (0.9, 10, 0.005)


@pytest.mark.parametrize("spec", [SPEC, NO_GOALS], ids=["goals", "none"])
def test_losses_of_hilp_in_both_phases(spec):
    config, some = config_of("hilp", repr_dim=4), batch(spec)
    agent, implicit = AGENTS["hilp"].make(config, spec), ImplicitQ.of(config, spec)
    state = agent.init(jax.random.PRNGKey(0))
    state = state._replace(target=jax.tree.map(lambda leaf: leaf + 0.1, state.target))
    key = jax.random.PRNGKey(1)
    _, metrics = agent.update(state, some, key)
    params, slow, phi = state.params["critic"], state.target, config.mlp(4)

    def value(observed, latent):
        inputs = jnp.concatenate([observed, joined(some.goal, latent)], -1)
        return np.asarray(implicit.value.apply(params["value"], inputs)[:, 0])

    def q_loss(latent, reward):
        backup = reward + some.discount * value(some.next_state, latent)
        q = implicit.critic.values(params["q"], some.state, joined(some.goal, latent), some.action)
        return sum(np.mean((np.asarray(each) - backup) ** 2) for each in q)

    latent = uniform_latents(key, 64, 4)
    here, there = (np.asarray(phi.apply(params["phi"][0], each)) for each in (some.state, some.next_state))
    close(metrics["q_loss"], q_loss(latent, np.sum((there - here) * np.asarray(latent), -1)), 1e-4)
    joint = joined(some.goal, latent)
    of_target, now = (
        np.min([np.asarray(q) for q in implicit.critic.values(of, some.state, joint, some.action)], 0)
        for of in (slow["q"], params["q"])
    )
    above = of_target - value(some.state, latent)
    close(metrics["value_loss"], np.mean(np.where(above < 0, 0.1, 0.9) * above**2), 1e-4)
    advantage = now - value(some.state, latent)  # by the critics themselves
    mean = np.asarray(linear_actor(config.mlp, 3).apply(state.params["actor"], some.state, joint))
    likelihood = stats.norm(mean, 1.0).logpdf(some.action).sum(-1)
    close(metrics["actor_loss"], -np.mean(np.minimum(np.exp(10 * advantage), 100) * likelihood), 1e-4)

    def far(of, states):
        ways = [np.asarray(phi.apply(one, states) - phi.apply(one, some.future_state)) for one in of["phi"]]
        return -np.linalg.norm(ways, axis=-1)

    (reward, discount), of_next = map(np.asarray, goal_reward(some, spec.discounting)), far(slow, some.next_state)
    better = reward + discount * of_next.min(0) - far(slow, some.state).mean(0)
    errors = reward + discount * of_next - far(params, some.state)
    distances = np.sum(np.mean(np.where(better < 0, 0.1, 0.9) * errors**2, axis=1))
    close(metrics["critic_loss"], metrics["q_loss"] + metrics["value_loss"] + distances, 1e-4)

    shifted = AGENTS["hilp"].make(config_of("hilp", repr_dim=4, reward_shift=1.0), spec)
    elsewhere = shifted.switch(state, some._replace(reward=some.reward - 1), key)
    tuned = agent.switch(state, some, key)
    close(elsewhere.latent, tuned.latent, 1e-4)  # the task is inferred from the rewards as they are learned from
    task = np.linalg.lstsq(there - here, np.asarray(some.reward), rcond=None)[0]
    close(tuned.latent, 2 * task / np.linalg.norm(task), 1e-3)
    _, metrics = agent.update(tuned, some, key)
    close(metrics["q_loss"], q_loss(tuned.latent, some.reward), 1e-4)
    close(metrics["critic_loss"], metrics["q_loss"] + metrics["value_loss"])


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_switch_begins_fine_tuning(name):
    agent, some = make(name), batch()
    update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(0))
    without = some._replace(reward=some.reward + 1)
    for i in range(2):
        state, metrics = update(state, some, jax.random.PRNGKey(i))
    assert state.tuned == -1
    assert equal(update(state, some, jax.random.PRNGKey(5)), update(state, without, jax.random.PRNGKey(5)))
    tuned = agent.switch(state, some, jax.random.PRNGKey(3))
    assert tuned.tuned == 0 and equal(tuned.params, state.params) and equal(tuned.optimizer, state.optimizer)
    if state.target != ():
        slow = tuned.target
        assert all(equal(slow[part], state.params["critic"][part]) for part in slow) and not equal(slow, state.target)
    after, other = (update(tuned, each, jax.random.PRNGKey(5)) for each in (some, without))
    assert not equal(after[0].params, other[0].params) and after[1].keys() == metrics.keys()
    assert after[0].tuned == 1
    kept = agent.switch(state, some._replace(reward=jnp.zeros(64)), jax.random.PRNGKey(3))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(update(kept, some, jax.random.PRNGKey(5))))


@pytest.mark.parametrize("name", PRETRAINING)
def test_the_actor_learns_at_its_interval(name):
    """With its moments at zero, an actor without a loss stays what it is."""
    agent, some = make(name, actor_interval=3), batch()
    update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(0))
    state, moved = agent.switch(state, some, jax.random.PRNGKey(3)), []
    for i in range(4):
        fresh = agent.init(jax.random.PRNGKey(0)).optimizer
        after, _ = update(state._replace(optimizer=fresh), some, jax.random.PRNGKey(i))
        moved.append(not equal(after.params["actor"], state.params["actor"]))
        state = after
    assert moved == [True, False, False, True]
    state, _ = update(state._replace(tuned=jnp.int32(2**31 - 1)), some, jax.random.PRNGKey(0))
    assert state.tuned >= 0  # however many updates there were: it does not go back to pre-training


def test_goals_of_crl_infonce_begin_at_the_state_itself():
    needs = make("crl_infonce").needs
    assert needs.goals == pytest.approx((0.9, 0.1, 0.0)) and needs != Needs()
    steps = np.asarray(needs.law(jnp.array([0.0, 0.05, 0.15]), jnp.full(3, 50)))
    assert list(steps) == [1, 1, 2]
