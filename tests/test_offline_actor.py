"""The actor of online agents near stored actions: DDPG+BC and AWR, by NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.flags import FlagError
from tests.helpers.offline import SPEC, actor_mean, close, formulas, whole_batch

CLONING = ("crl", "qrl", "cmd", "cmd2", "tmd")


def cloner(name, **flags):
    config = AGENTS[name].config
    known = {field.name for field in dataclasses.fields(config)}
    sizes = {"h_dim": 8, "n_hidden": 2, "repr_dim": 16}
    return AGENTS[name].make(config(**{k: v for k, v in {**sizes, **flags}.items() if k in known}), SPEC)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLONING)
def test_a_large_weight_is_behaviour_cloning(name):
    agent, batch = cloner(name, bc_weight=1e4, actor_relabel="uniform", policy_lr=1e-2), whole_batch()
    assert agent.needs.actor_goals == (1.0, 0.0, 0.0) and agent.needs.actor_law is not None
    state, update = agent.init(jax.random.PRNGKey(0)), jax.jit(agent.update)
    goal = batch.actor_state[:, [1, 3]]
    before = jnp.mean((agent.mode(state, batch.state, goal) - batch.action) ** 2)
    for i in range(150):
        state, metrics = update(state, batch, jax.random.PRNGKey(i))
    after = jnp.mean((agent.mode(state, batch.state, goal) - batch.action) ** 2)
    assert after < 0.1 * before
    assert metrics["log_density"] < -1.5 * np.log(2 * np.pi) + 1e-4  # at most that of the mean, for 3 entries
    noisy = agent.act(state, batch.state, goal, jax.random.PRNGKey(0))
    assert 0.05 < jnp.std(noisy - agent.mode(state, batch.state, goal)) < 0.5


def test_the_actor_of_crl_with_a_weight_by_numpy():
    """Two critics of OGBench, and the loss of the actor on its own goals."""
    flags = {"bc_weight": 0.1, "energy_fn": "scaled_dot", "contrastive_loss_fn": "binary", "logsumexp_penalty": 0.0}
    agent, batch = cloner("crl", critics=2, actor_relabel="uniform", **flags), whole_batch()
    state = agent.init(jax.random.PRNGKey(0))
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(1))
    config = AGENTS["crl"].config(h_dim=8, n_hidden=2)
    net = config.mlp(16)

    def logits(params, action, goals):
        phi = np.asarray(net.apply(params["phi"], jnp.concatenate([batch.state, action], -1)), np.float64)
        return phi @ np.asarray(net.apply(params["psi"], goals[:, [1, 3]]), np.float64).T / 4

    softplus = lambda x: np.logaddexp(0, x)  # noqa: E731
    eye = np.eye(12, dtype=bool)
    both = [logits(params, batch.action, batch.future_state) for params in state.params["critic"]]
    close(metrics["critic_loss"], 2 * np.mean([np.where(eye, softplus(-f), softplus(f)) for f in both]), rtol=1e-4)
    mean = np.asarray(actor_mean(config.mlp(3), state.params["actor"], batch.state, batch.actor_state[:, [1, 3]]))
    values = [np.diag(logits(p, jnp.clip(mean, -1, 1), batch.actor_state)) for p in state.params["critic"]]
    q, likelihood = np.min(values, 0), formulas().gaussian_log_density(np.asarray(batch.action), mean)
    expected = -q.mean() / (np.abs(q).mean() + 1e-6) - 0.1 * likelihood.mean()
    close(metrics["actor_loss"], expected, rtol=1e-3)


def actor_loss_by_advantages(state, config, batch, advantage):
    """What imitating stored actions by these advantages is expected to cost."""
    mean = np.asarray(actor_mean(config.mlp(3), state.params["actor"], batch.state, batch.actor_state[:, [1, 3]]))
    likelihood = formulas().gaussian_log_density(np.asarray(batch.action), mean)
    return -np.mean(formulas().awr_weight(advantage, 2.0) * likelihood)


AWR_FLAGS = {"extraction": "awr", "awr_alpha": 2.0, "actor_relabel": "uniform"}


def test_the_advantages_of_crl_by_numpy():
    """Against a second critic, of states alone, that learns by the same loss; the lower of two members counts."""
    flags = {"energy_fn": "scaled_dot", "contrastive_loss_fn": "binary", "logsumexp_penalty": 0.0}
    agent, batch = cloner("crl", critics=2, **flags, **AWR_FLAGS), whole_batch()
    state = agent.init(jax.random.PRNGKey(0))
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(1))
    config = AGENTS["crl"].config(h_dim=8, n_hidden=2)
    net, pair = config.mlp(16), jnp.concatenate([batch.state, batch.action], -1)

    def logits(params, inputs, goals):
        phi = np.asarray(net.apply(params["phi"], inputs), np.float64)
        return phi @ np.asarray(net.apply(params["psi"], goals[:, [1, 3]]), np.float64).T / 4

    softplus = lambda x: np.logaddexp(0, x)  # noqa: E731
    eye, members = np.eye(12, dtype=bool), state.params["critic"]
    of_pairs = [logits(params, pair, batch.future_state) for params in members]
    of_states = [logits(params["of_states"], batch.state, batch.future_state) for params in members]
    losses = [np.mean(np.where(eye, softplus(-f), softplus(f))) for f in (*of_pairs, *of_states)]
    close(metrics["critic_loss"], np.sum(losses), rtol=1e-4)
    close(metrics["value_loss"], np.mean(losses[2:]), rtol=1e-4)
    advantages = [
        np.diag(logits(p, pair, batch.actor_state) - logits(p["of_states"], batch.state, batch.actor_state))
        for p in members
    ]
    expected = actor_loss_by_advantages(state, config, batch, np.min(advantages, 0))
    close(metrics["actor_loss"], expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["qrl", "tmd"])
def test_the_advantages_of_distances(name):
    """How much nearer the goal is from the next state, or after the action."""
    agent, batch = cloner(name, critic_goal="state", **AWR_FLAGS), whole_batch()
    state = agent.init(jax.random.PRNGKey(0))
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(1))
    config = AGENTS[name].config(h_dim=8, n_hidden=2, repr_dim=16)
    params = state.params["critic"] if name == "qrl" else state.params["critic"][0]
    encode = lambda part, inputs: config.mlp(16).apply(params[part], inputs)  # noqa: E731
    between = config.metric(params["metric"]).between
    part = "encoder" if name == "qrl" else "psi_s"
    here, goal = encode(part, batch.state), encode(part, batch.actor_state)
    if name == "qrl":
        later = encode(part, batch.next_state)
    else:
        later = encode("phi", jnp.concatenate([batch.state, batch.action], -1))
    advantage = np.asarray(between(here, goal) - between(later, goal), np.float64)
    close(metrics["actor_loss"], actor_loss_by_advantages(state, config, batch, advantage), rtol=1e-3)


def test_without_latent_dynamics_the_score_is_the_distance_of_the_state():
    """Nobody learns where actions lead, so nobody may follow it: not the actor, not `goalax distances`."""
    for flags in ({}, {"bc_weight": 0.1}):
        with pytest.raises(FlagError, match="--dynamics_weight is 0; the actor follows the latent dynamics"):
            cloner("qrl", dynamics_weight=0.0, **flags)
    with pytest.raises(FlagError, match="--dynamics_error is distance; it means nothing with --dynamics_weight 0"):
        cloner("qrl", dynamics_weight=0.0, dynamics_error="distance", **AWR_FLAGS)
    agent, batch = cloner("qrl", dynamics_weight=0.0, critic_goal="state", **AWR_FLAGS), whole_batch()
    state = agent.update(agent.init(jax.random.PRNGKey(0)), batch, jax.random.PRNGKey(1))[0]
    close(agent.score(state, batch.state, batch.state), np.zeros(12))
    assert agent.score(state, batch.state, batch.future_state).max() < 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"extraction": "awr", "bc_weight": 0.5}, "--bc_weight is 0.5; it means nothing with --extraction awr"),
        ({"bc_weight": 0.5, "awr_alpha": 2.0}, "--awr_alpha is 2.0; it means nothing with --extraction ddpg_bc"),
        (
            {"extraction": "awr", "alpha_lr": 0.1},
            "--alpha_lr is 0.1; it means nothing with --extraction awr, whose actor has no entropy",
        ),
    ],
)
def test_flags_of_two_ways_to_imitate_are_refused(flags, words):
    with pytest.raises(FlagError, match=words):
        cloner("crl", **flags)


def test_an_actor_without_entropy_has_no_flags_of_it():
    with pytest.raises(FlagError, match=r"--alpha_lr is 0.1; it means nothing with --bc_weight 0.5"):
        cloner("crl", bc_weight=0.5, alpha_lr=0.1)


def test_cmd_without_a_potential_is_as_published():
    flags = {
        "potential": False,
        "contrastive_loss_fn": "binary",
        "temperature": 4.0,
        "distance": "mrn",
        "components": 2,
    }
    agent, batch = cloner("cmd", critics=2, logsumexp_penalty=0.0, **flags), whole_batch()
    params = agent.init(jax.random.PRNGKey(0)).params["critic"]
    assert len(params) == 2 and all("potential" not in each for each in params)
    metrics = agent.update(agent.init(jax.random.PRNGKey(0)), batch, jax.random.PRNGKey(1))[1]
    assert metrics["logits_pos"] < 0 and metrics["logits_neg"] < 0  # distances, and nothing else
