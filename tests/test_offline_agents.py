"""Tests of offline goal-conditioned agents: golden loss terms, losses of whole agents by NumPy, laws of goals,
the actor near stored actions, and runs that are saved, resumed and go on online."""

import dataclasses
import importlib.util
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.agents import AGENTS, consistency, qrl, tmd
from goalax.agents.extraction import awr_loss, ddpg_bc_loss, expectile, log_density
from goalax.agents.gciql import q_loss
from goalax.agents.goal_values import GoalValueConfig, Pair, goal_reward, value_loss
from goalax.agents.hiql import of_fixed_length
from goalax.core import buffer
from goalax.core.relabel.clipped import clipped_geometric
from goalax.core.types import Batch, Needs, Spec, Subgoals, Transition
from goalax.data import files
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.learning.energies import ENERGIES
from goalax.learning.losses import CONTRASTIVE_LOSSES
from tests.helpers import ROOT, toy
from tests.helpers.agents import relatives_wait

toy.register()

GOLDEN = ROOT / "tests" / "golden" / "offline"
SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
NAMES = ("gcivl", "gciql", "hiql")


@pytest.fixture(scope="module")
def formulas():
    """The module that makes the golden values."""
    spec = importlib.util.spec_from_file_location("make_offline_golden", GOLDEN / "make_offline_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


def close(value, expected, rtol=1e-5):
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-6)


def test_what_makes_an_agent_the_published_one_is_in_its_help():
    """The flags of the table of docs/offline.md, in the text that --help begins with."""
    text = (ROOT / "docs" / "offline.md").read_text()
    common = set(re.search(r"\(a\) is `(.*?)`", text)[1].split(" --"))
    lines = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| `\w+` \|", line)]
    rows = [[part.strip() for part in line] for line in lines if len(line) == 3]
    told = {name.strip("`"): words for name, _, words in rows if words.startswith("`--")}
    assert set(told) == {"gcbc", "crl", "qrl", "cmd", "tmd"}
    for name, words in told.items():
        spans = re.findall(r"(without )?`--(.*?)`", words)
        flags = {flag for without, span in spans if not without for flag in span.split(" --")}
        # In place of those of (a), or of none.
        own = {flag.split()[0] for _, span in spans for flag in span.split(" --")}
        flags |= {flag for flag in common if flag.removeprefix("--").split()[0] not in own} if "(a)" in words else set()
        doc = " ".join(sys.modules[AGENTS[name].make.__module__].__doc__.split())
        assert not [each for each in flags if f"--{each.removeprefix('--')}" not in doc], name


# ---- Golden values: every term of every loss ----------------------------------------------------------------------


def test_golden_values_are_what_their_program_makes():
    subprocess.run([sys.executable, GOLDEN / "make_offline_golden.py", "--check"], check=True)


def test_golden_expectile():
    g = golden("expectile")
    for i, share in enumerate(g["taus"]):
        close(expectile(g["advantage"], g["difference"], share), g["loss_two_arguments"][i])
        close(expectile(g["difference"], g["difference"], share), g["loss_one_argument"][i])
    with pytest.raises(ValueError, match="equal shapes"):
        expectile(jnp.zeros(3), jnp.zeros((3, 1)), 0.5)


def test_golden_awr():
    g = golden("awr")
    likelihood = log_density(g["action"], g["mean"])
    close(likelihood, g["log_density"])
    for i, alpha in enumerate(g["alphas"]):
        close(awr_loss(g["advantage"], likelihood, alpha), g["loss"][i])
        weights = -16 * jax.grad(lambda x: awr_loss(g["advantage"], x, alpha))(likelihood)  # noqa: B023
        close(weights, g["weight"][i])
    assert not jax.grad(lambda x: awr_loss(x, likelihood, 3.0))(jnp.asarray(g["advantage"])).any()


def test_golden_ddpg_bc():
    g = golden("ddpg_bc")
    q, likelihood = jnp.minimum(g["q1"], g["q2"]), log_density(g["action"], g["mean"])
    close(ddpg_bc_loss(q, likelihood, g["alpha"]), g["loss"])
    close(ddpg_bc_loss(q, likelihood, 0.0), g["q_loss"])
    # The size of the values is a constant to the gradient.
    close(jax.grad(lambda q: ddpg_bc_loss(q, likelihood, 0.0))(q), np.full(16, -1 / 16 / np.mean(np.abs(q))))


def batch_of(same, discounting=0.99):
    nothing = jnp.zeros(len(same))
    parts = dict.fromkeys(Batch._fields[:8], nothing)
    return Batch(**parts, discount=nothing + discounting, same=jnp.asarray(same, jnp.float32))


@pytest.mark.parametrize("name", ["gcivl", "gciql"])
def test_golden_reward_of_goals(name):
    g = golden(name)
    reward, discount = goal_reward(batch_of(g["same"]), float(g["gamma"]))
    close(reward, g["reward"])
    close(discount, g["gamma"] * g["mask"])


def test_nothing_is_reached_after_the_end():
    """An action that ends the episode for good is worth a step for ever, unless it ends at the goal or is the goal; and
    the very state of the goal is at it, whatever its radius."""
    batch = batch_of([0, 0, 1, 0, 0])._replace(
        discount=jnp.array([0.0, 0.0, 0.0, 0.9, 0.0]), future_reward=jnp.array([0.0, 1.0, 0.0, 0.0, 0.0])
    )
    goal = jnp.zeros((5, 1))
    batch = batch._replace(future_state=goal, next_state=goal + jnp.array([1.0, 1, 1, 1, 0])[:, None])
    reward, discount = goal_reward(batch, 0.9)
    close(reward, [-10, -1, 0, -1, -1])
    close(discount, [0, 0.9, 0, 0.9, 0.9])


def test_golden_gcivl():
    g = golden("gcivl")
    reward, discount = g["reward"], g["gamma"] * g["mask"]
    loss, advantage = value_loss(g["v"], g["v_target"], g["v_next_target"], reward, discount, g["tau"])
    close(loss, g["value_loss"])
    close(advantage, g["advantage"], rtol=1e-4)
    actor_advantage = np.mean(g["actor_v_next"], 0) - np.mean(g["actor_v"], 0)
    weights = -16 * jax.grad(lambda x: awr_loss(actor_advantage, x, float(g["alpha"])))(jnp.zeros(16))
    close(weights, g["actor_weight"], rtol=1e-4)
    gradients = jax.grad(lambda s, n: value_loss(g["v"], s, n, reward, discount, 0.9)[0], (0, 1))
    assert not any(part.any() for part in gradients(g["v_target"], g["v_next_target"]))


def test_golden_gciql():
    g = golden("gciql")
    above = jnp.min(g["q_target"], axis=0) - g["v"]
    close(expectile(above, above, g["tau"]), g["value_loss"])
    reward, discount = goal_reward(batch_of(g["same"]), float(g["gamma"]))
    target = reward + discount * g["v_next"]
    close(target, g["target"])
    close(q_loss(g["q"], target), g["critic_loss"])


def test_golden_hiql():
    g = golden("hiql")
    close(of_fixed_length(g["raw_representation"]), g["representation"])
    assert np.isfinite(jax.grad(lambda x: jnp.sum(of_fixed_length(x)))(jnp.zeros(4))).all()
    for level, action in (("low", g["action"]), ("high", g["representation"])):
        likelihood = log_density(action, g[f"{level}_mean"])
        close(likelihood, g[f"{level}_log_density"])
        close(awr_loss(g[f"{level}_advantage"], likelihood, g[f"{level}_alpha"]), g[f"{level}_loss"])


def test_golden_qrl():
    g = golden("qrl")
    push, excess = qrl.repulsion(g["d_random"], 100.0), qrl.step_excess(g["d_next"])
    close(push + g["multiplier"] * excess, g["value_loss"])
    close(g["multiplier"] * (g["eps"] - excess), g["multiplier_loss"], rtol=1e-4)


def test_golden_crl():
    g = golden("crl_binary")
    logits = [ENERGIES["scaled_dot"].pairwise(x, y) for x, y in zip(g["phi"], g["psi"], strict=True)]
    close(np.stack(logits), g["logits"], rtol=1e-4)
    close(np.mean([CONTRASTIVE_LOSSES["binary"](each) for each in logits]), g["loss"])


def test_golden_tmd_and_cmd():
    g = golden("tmd")
    config = tmd.TMDConfig(distance="mrn", components=int(g["components"]))
    metric = config.metric(config.init_metric())
    terms = {"contrastive": [], "invariance": [], "backup": [], "cmd_binary_loss": []}
    for phi, psi_s, psi_next, psi_g in zip(g["phi"], g["psi_s"], g["psi_next"], g["psi_g"], strict=True):
        d, later = metric.pairwise(phi, psi_g), metric.pairwise(psi_next, psi_g)
        logits = -d / np.sqrt(phi.shape[-1])
        terms["contrastive"].append(CONTRASTIVE_LOSSES["infonce_backward"](logits))
        terms["invariance"].append(jnp.mean(metric.between(psi_s, phi)))
        terms["backup"].append(
            consistency.weighted_mean(consistency.linex(d, later, float(g["gamma"]), float(g["clip"])), g["diag"])
        )
        terms["cmd_binary_loss"].append(CONTRASTIVE_LOSSES["binary"](logits))
    means = {name: float(np.mean(values)) for name, values in terms.items()}
    for name, value in means.items():
        close(value, g[name], rtol=1e-4)
    total = means["contrastive"] + means["invariance"] + g["zeta"] * means["backup"]
    close(total, g["loss"], rtol=1e-4)


# ---- Whole agents: what an update reports is what NumPy makes of its networks -------------------------------------


def whole_batch(size=12):
    normal = lambda i, *shape: jax.random.normal(jax.random.PRNGKey(i), shape)  # noqa: E731
    states = {name: normal(i, size, 5) for i, name in enumerate(("state", "next_state", "future_state", "actor_state"))}
    flat = {"reward": jnp.zeros(size), "future_reward": jnp.zeros(size), "discount": jnp.full(size, 0.9)}
    return Batch(
        **states,
        **flat,
        action=jnp.tanh(normal(5, size, 3)),
        goal=normal(6, size, 2),
        future_action=jnp.tanh(normal(7, size, 3)),
        same=(jnp.arange(size) % 5 == 0).astype(jnp.float32),
        subgoals=Subgoals(normal(8, size, 5), normal(9, size, 5)),
    )


def small(name, **flags):
    """(agent, its config, a state that has learned a little, so that target networks lag behind, a batch)"""
    config = AGENTS[name].config(h_dim=8, n_hidden=2, critic_lr=1e-2, policy_lr=1e-2, **flags)
    agent, batch = AGENTS[name].make(config, SPEC), whole_batch()
    state = agent.init(jax.random.PRNGKey(0))
    for _ in range(3):
        state, _ = agent.update(state, batch, jax.random.PRNGKey(1))
    return agent, config, state, batch


def goal_of(config, state):
    return state[:, [1, 3]] if config.critic_goal == "goal" else state


def actor_mean(mlp, params, *inputs):
    """Of a linear actor: the network of `mlp` that lies inside of its module."""
    (inner,) = params["params"].values()
    return mlp.apply({"params": inner}, jnp.concatenate(inputs, axis=-1))


def reward_and_mask(formulas, batch):
    return formulas.sparse_goal_reward(np.asarray(batch.same) > 0)


@pytest.mark.parametrize("critic_goal", ["state", "goal"])
def test_losses_of_gcivl_by_numpy(formulas, critic_goal):
    agent, config, state, batch = small("gcivl", critic_goal=critic_goal)
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(2))
    value = Pair(config.mlp(1))
    v = lambda params, s, g: np.asarray(value.values(params, s, goal_of(config, g)), np.float64)  # noqa: E731
    critic, (s, s2, g, ga) = (
        state.params["critic"],
        (batch.state, batch.next_state, batch.future_state, batch.actor_state),
    )
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (critic, state.target)), strict=True))
    reward, mask = reward_and_mask(formulas, batch)
    loss, _, _ = formulas.ivl_loss(
        reward, mask, v(state.target, s, g), v(state.target, s2, g), v(critic, s, g), 0.9, 0.9
    )
    close(metrics["critic_loss"], loss, rtol=1e-4)
    advantage = v(critic, s2, ga).mean(0) - v(critic, s, ga).mean(0)
    mean = actor_mean(config.mlp(3, use_ln=False), state.params["actor"], s, ga[:, [1, 3]])
    likelihood = formulas.gaussian_log_density(np.asarray(batch.action), np.asarray(mean))
    close(metrics["actor_loss"], -np.mean(formulas.awr_weight(advantage, 10.0) * likelihood), rtol=1e-4)


@pytest.mark.parametrize("extraction", ["ddpg_bc", "awr"])
def test_losses_of_gciql_by_numpy(formulas, extraction):
    agent, config, state, batch = small("gciql", extraction=extraction)
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(2))
    pair, net, params = Pair(config.mlp(1)), config.mlp(1), state.params["critic"]
    q = lambda params, s, g, a: np.asarray(pair.values(params, s, g, a), np.float64)  # noqa: E731
    v = lambda s, g: np.asarray(net.apply(params["value"], jnp.concatenate([s, g], -1))[:, 0], np.float64)  # noqa: E731
    s, s2, g, ga, a = batch.state, batch.next_state, batch.future_state, batch.actor_state, batch.action
    reward, mask = reward_and_mask(formulas, batch)
    above = q(state.target, s, g, a).min(0) - v(s, g)
    close(metrics["value_loss"], formulas.expectile_loss(above, above, 0.9), rtol=1e-4)
    target = reward + 0.9 * mask * v(s2, g)
    close(metrics["q_loss"], np.sum(np.mean((q(params["q"], s, g, a) - target) ** 2, axis=1)), rtol=1e-4)
    mean = np.asarray(actor_mean(config.mlp(3, use_ln=False), state.params["actor"], s, ga[:, [1, 3]]))
    likelihood = formulas.gaussian_log_density(np.asarray(a), mean)
    if extraction == "awr":
        weight = formulas.awr_weight(q(params["q"], s, ga, a).min(0) - v(s, ga), 10.0)
        expected = -np.mean(weight * likelihood)
    else:
        of_actor = q(params["q"], s, ga, jnp.clip(mean, -1, 1)).min(0)
        expected = -of_actor.mean() / (np.abs(of_actor).mean() + 1e-6) - 0.3 * likelihood.mean()
    close(metrics["actor_loss"], expected, rtol=1e-4)


def test_losses_of_hiql_by_numpy(formulas):
    agent, config, state, batch = small("hiql", repr_dim=4)
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(2))
    pair, encoder, params = Pair(config.mlp(1)), config.mlp(4), state.params["critic"]

    def rho(s, g):
        raw = np.asarray(encoder.apply(params["encoder"], jnp.concatenate([s, g], -1)), np.float64)
        return raw / np.linalg.norm(raw, axis=-1, keepdims=True) * 2

    def v(which, s, g):
        return np.asarray(pair.values(which, s, jnp.asarray(rho(s, g), jnp.float32)), np.float64)

    s, s2, g, ga = batch.state, batch.next_state, batch.future_state, batch.actor_state
    near, way = batch.subgoals
    reward, mask = reward_and_mask(formulas, batch)
    slow, value = state.target, params["value"]
    loss, _, _ = formulas.ivl_loss(reward, mask, v(slow, s, g), v(slow, s2, g), v(value, s, g), 0.7, 0.9)
    close(metrics["critic_loss"], loss, rtol=1e-4)
    actors = state.params["actor"]
    low_mean = actor_mean(config.mlp(3, use_ln=False), actors["low"], s, jnp.asarray(rho(s, near), jnp.float32))
    high_mean = actor_mean(config.mlp(4, use_ln=False), actors["high"], s, ga[:, [1, 3]])
    low_weight = formulas.awr_weight(v(value, s2, near).mean(0) - v(value, s, near).mean(0), 3.0)
    high_weight = formulas.awr_weight(v(value, way, ga).mean(0) - v(value, s, ga).mean(0), 3.0)
    low = formulas.gaussian_log_density(np.asarray(batch.action), np.asarray(low_mean))
    high = formulas.gaussian_log_density(rho(s, way), np.asarray(high_mean))
    close(metrics["low_loss"], -np.mean(low_weight * low), rtol=1e-4)
    close(metrics["high_loss"], -np.mean(high_weight * high), rtol=1e-4)

    goal = ga[:, [1, 3]]  # it acts by both policies at once
    subgoal = np.asarray(high_mean) / np.linalg.norm(high_mean, axis=-1, keepdims=True) * 2
    action = actor_mean(config.mlp(3, use_ln=False), actors["low"], s, jnp.asarray(subgoal))
    close(agent.mode(state, s, goal), np.clip(action, -1, 1), rtol=1e-4)


@pytest.mark.slow
def test_policies_do_not_train_the_representations_of_hiql():
    agent, _, state, batch = small("hiql")
    update = lambda batch: agent.update(state, batch, jax.random.PRNGKey(2))[0].params["critic"]  # noqa: E731
    other = batch._replace(action=-batch.action, actor_state=-batch.actor_state)
    other = other._replace(subgoals=Subgoals(-batch.subgoals.near, -batch.subgoals.way))
    for one, two in zip(jax.tree.leaves(update(batch)), jax.tree.leaves(update(other)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", NAMES)
def test_target_networks_follow(name):
    agent, _, state, batch = small(name, tau=0.25)
    after, _ = agent.update(state, batch, jax.random.PRNGKey(2))
    part = {"gcivl": lambda p: p, "gciql": lambda p: p["q"], "hiql": lambda p: p["value"]}[name]
    leaves = map(jax.tree.leaves, (part(after.params["critic"]), state.target, after.target))
    for fresh, old, new in zip(*leaves, strict=True):
        close(new, 0.25 * fresh + 0.75 * old)


@pytest.mark.parametrize("name", NAMES)
def test_flags_that_do_not_fit_are_one_sentence(name):
    with pytest.raises(FlagError, match="--current_goals is 0.8 and --any_goals 0.3; together they must be at most 1."):
        AGENTS[name].make(AGENTS[name].config(current_goals=0.8), SPEC)
    all_of_them = "--relabel is final; it means nothing with --current_goals 0.7 and --any_goals 0.3, which are all"
    with pytest.raises(FlagError, match=all_of_them):
        AGENTS[name].make(AGENTS[name].config(current_goals=0.7, any_goals=0.3, relabel="final"), SPEC)


def test_shares_of_goals_may_be_all():
    """1 - 0.8 - 0.2 is less than 0 in floats."""
    needs = AGENTS["crl"].config(current_goals=0.8, any_goals=0.2).needs(SPEC)
    assert needs.goals == (0.0, 0.8, 0.2)


@pytest.mark.parametrize("multiplier", ["softplus", "exp"])
@pytest.mark.parametrize("first", [1e-3, 1.0, 200.0])
def test_the_multiplier_begins_where_it_is_told(multiplier, first):
    agent = cloner("qrl", multiplier=multiplier, multiplier_init=first)
    raw = 30 * agent.init(jax.random.PRNGKey(0)).params["critic"]["multiplier"]
    value = jnp.exp(raw) if multiplier == "exp" else jax.nn.softplus(raw)
    assert float(value) == pytest.approx(first, rel=1e-3)


# ---- The actor of the other agents near stored actions -------------------------------------------------------------

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


def test_the_actor_of_crl_with_a_weight_by_numpy(formulas):
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
    q, likelihood = np.min(values, 0), formulas.gaussian_log_density(np.asarray(batch.action), mean)
    expected = -q.mean() / (np.abs(q).mean() + 1e-6) - 0.1 * likelihood.mean()
    close(metrics["actor_loss"], expected, rtol=1e-3)


def actor_loss_by_advantages(formulas, state, config, batch, advantage):
    """What imitating stored actions by these advantages is expected to cost."""
    mean = np.asarray(actor_mean(config.mlp(3), state.params["actor"], batch.state, batch.actor_state[:, [1, 3]]))
    likelihood = formulas.gaussian_log_density(np.asarray(batch.action), mean)
    return -np.mean(formulas.awr_weight(advantage, 2.0) * likelihood)


AWR_FLAGS = {"extraction": "awr", "awr_alpha": 2.0, "actor_relabel": "uniform"}


def test_the_advantages_of_crl_by_numpy(formulas):
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
    expected = actor_loss_by_advantages(formulas, state, config, batch, np.min(advantages, 0))
    close(metrics["actor_loss"], expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["qrl", "tmd"])
def test_the_advantages_of_distances(formulas, name):
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
    close(metrics["actor_loss"], actor_loss_by_advantages(formulas, state, config, batch, advantage), rtol=1e-3)


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


# ---- Laws of goals --------------------------------------------------------------------------------------------------


def test_the_clipped_law_gives_the_golden_rows():
    """By inversion: the number in the middle of a step's share gives that step, or the last row."""
    g = golden("goal_sampling")
    inside = g["final"] > g["idx"]  # there, the last row is no goal; here it is, so each episode is one row longer
    row, last, k = (g[name][inside] for name in ("idx", "final", "geometric_offset"))
    ahead = clipped_geometric(jnp.asarray(1 - 0.9 ** (k - 0.5)), jnp.asarray(last - row, jnp.int32), 0.9)
    np.testing.assert_array_equal(row + ahead, g["geometric_goal"][inside])
    assert len(row) > 10


@pytest.mark.parametrize("left", [1, 4, 12])
def test_the_clipped_law_by_chi_square(left):
    uniform = jax.random.uniform(jax.random.key(3), (20_000,))
    ahead = np.asarray(clipped_geometric(uniform, jnp.full(20_000, left, jnp.int32), 0.9))
    expected = 0.1 * 0.9 ** np.arange(left)
    expected[-1] = 0.9 ** (left - 1)
    counts = np.bincount(ahead, minlength=left + 1)[1:]
    assert counts.sum() == 20_000 and len(counts) == left
    assert left == 1 or stats.chisquare(counts, 20_000 * expected).pvalue > 1e-4


def trajectories():
    """The golden file's rows as a dataset: the last row of each, which is no goal there, is left out."""
    g = golden("goal_sampling")
    lengths = g["rows_per_trajectory"] - 1
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = len(starts)
    column = lambda x: jnp.asarray(x, jnp.float32)[:, None]  # noqa: E731
    number = column(np.arange(rows))
    zero = 0 * number
    ring = Transition(number[..., None], number[..., None], zero[..., None], zero, zero, jnp.asarray(starts)[:, None])
    return buffer.BufferState(ring, jnp.int32(rows)), lengths, starts


def test_goals_of_a_file_by_chi_square():
    """Shares of current, trajectory and random goals, and rewards by equal rows, against the law that made the file."""
    data, lengths, starts = trajectories()
    g, num = golden("goal_sampling"), 60_000
    spec = Spec(1, 1, 1, (0,), discounting=0.9, goal_reach_thresh=0.1)
    config = GoalValueConfig(current_goals=float(g["p_cur"]), any_goals=1 - float(g["p_cur"] + (1 - 0.2) * 0.625))
    needs = config.needs(spec)
    np.testing.assert_allclose(needs.goals, (0.5, 0.2, 0.3), atol=1e-6)
    batch = buffer.sample(data, jax.random.key(0), num, spec, 20, needs)
    row, goal, wanted = (np.asarray(x[:, 0], int) for x in (batch.state, batch.future_state, batch.actor_state))
    np.testing.assert_array_equal(np.asarray(batch.same) > 0, row == goal)
    reward, discount = goal_reward(batch, 0.9)
    close(reward, np.where(row == goal, 0, -1))
    close(discount, np.where(row == goal, 0, 0.9))

    rows, ends = len(starts), starts + np.repeat(lengths, lengths) - 1
    for r in np.flatnonzero(ends > np.arange(rows)):
        left = ends[r] - r
        law = np.zeros(rows)
        law[r + 1 : ends[r] + 1] = 0.1 * 0.9 ** np.arange(left)
        law[ends[r]] = 0.9 ** (left - 1)
        expected = 0.5 * law + 0.3 / rows
        expected[r] += 0.2
        counts = np.bincount(goal[row == r], minlength=rows)
        assert stats.chisquare(counts, counts.sum() * expected / expected.sum()).pvalue > 1e-4
        counts = np.bincount(wanted[row == r], minlength=rows)
        later = np.arange(rows)[(np.arange(rows) > r) & (np.arange(rows) <= ends[r])]
        assert counts.sum() == counts[later].sum()
        assert left == 1 or stats.chisquare(counts[later]).pvalue > 1e-4
    # Both draws are independent: which goal the one is says nothing of the other.
    far, later = row == 0, np.arange(1, ends[0] + 1)
    table = [[np.sum(far & (goal == g) & (wanted == w)) for w in later] for g in range(rows)]
    assert stats.chi2_contingency(np.array(table)).pvalue > 1e-4


def test_subgoals_lie_on_the_way():
    data, _, starts = trajectories()
    spec = Spec(1, 1, 1, (0,), discounting=0.9, goal_reach_thresh=0.1)
    needs = AGENTS["hiql"].config(subgoal_steps=2, actor_any_goals=0.4).needs(spec)
    batch = buffer.sample(data, jax.random.key(1), 4000, spec, 20, needs)
    parts = batch.state, batch.actor_state, batch.subgoals.near, batch.subgoals.way
    row, wanted, near, way = (np.asarray(x[:, 0], int) for x in parts)
    end = np.array([np.flatnonzero(starts == starts[r])[-1] for r in row])
    np.testing.assert_array_equal(near, np.minimum(row + 2, end))
    ahead = (wanted > row) & (wanted <= end)  # any stored row may be one of these, too
    outside = ~ahead
    assert outside.mean() > 0.2
    np.testing.assert_array_equal(way[outside], np.minimum(row + 2, end)[outside])
    on_the_way = way[ahead] == np.minimum(row + 2, wanted)[ahead]
    assert on_the_way.mean() > 0.9 and (way[ahead] == np.minimum(row + 2, end)[ahead])[~on_the_way].all()


def test_who_asks_for_nothing_gets_nothing():
    data, _, _ = trajectories()
    spec = Spec(1, 1, 1, (0,), discounting=0.9, goal_reach_thresh=0.1)
    batch = buffer.sample(data, jax.random.key(1), 10, spec, 20, Needs())
    assert batch.same is None and batch.subgoals is None and batch.actor_state is None


# ---- Runs -----------------------------------------------------------------------------------------------------------

SMALL_RUN = [*toy.BASELINE, "--dataset", "data.npz", "--offline_steps", "40", "--num_timesteps", "120"]
BC = ["--bc_weight", "0.1", "--actor_relabel", "uniform"]
RUNS = {name: ["--agent", name] for name in NAMES} | {
    "crl": ["--agent", "crl", "--critics", "2", "--repr_dim", "4", *BC],
    "gcbc": ["--agent", "gcbc"],
    **{name: ["--agent", name, "--repr_dim", "16", *BC] for name in ("qrl", "cmd", "tmd")},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data.npz, noisy walks through `toy`, to work in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    episodes, rows = 60, 11
    angles = rng.uniform(0, 2 * np.pi, episodes)
    wanted = 0.4 * np.stack([np.cos(angles), np.sin(angles)], 1)[:, None]
    action = np.clip(wanted + 0.4 * rng.normal(size=(episodes, rows, 2)), -1, 1)
    way = np.cumsum(0.3 * action, axis=1) - 0.3 * action  # a row is the state before its action
    states = rng.uniform(-0.2, 0.2, (episodes, 1, 2)) + way
    written = {"observations": states.reshape(-1, 2), "actions": action.reshape(-1, 2)}
    files.write("data.npz", written | {"terminals": np.arange(episodes * rows) % rows == rows - 1})
    return tmp_path


def equal(state, other):
    leaves, others = jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(jax.device_get(other))
    return len(leaves) == len(others) and all(map(np.array_equal, leaves, others))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hiql", "gcbc", "tmd"])  # of each kind of state
def test_offline_resumed_then_online(here, name):
    """Saved after half of the updates, a run goes on bit for bit; then it collects and learns with the same state."""
    run = make_run(*read_flags([*SMALL_RUN, *RUNS[name], "--normalize_observations", "true"]))
    half = run.learn(run.start(), 20)
    run.save(half, "saved")
    whole = run.learn(half, 20)
    again = run.learn(run.restore("saved"), 20)
    assert equal(again.agent, whole.agent) and int(again.gradient_steps) == 40
    before = jax.device_get(whole.agent)
    online = run.advance(run.collect(whole), 2)
    assert not equal(before.agent, online.agent.agent) and equal(before.state_map, online.agent.state_map)
    means = run.evaluate(online)
    assert all(np.isfinite(value) for value in means.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", relatives_wait(NAMES))
def test_seeds_are_runs_of_their_own(here, name):
    both = make_run(*read_flags([*SMALL_RUN, *RUNS[name], "--num_seeds", "2"]))
    learned = jax.device_get(both.learn(both.start(), 10).agent)
    alone = make_run(*read_flags([*SMALL_RUN, *RUNS[name]]))
    second = jax.device_get(alone.learn(alone.start(1), 10).agent)
    for leaf, other in zip(jax.tree.leaves(learned), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(leaf[1], other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", relatives_wait(NAMES))
def test_it_learns_to_reach_goals(here, name):
    sizes = ["--utd_ratio", "5", "--num_eval_envs", "64", "--batch_size", "64", "--h_dim", "32", "--n_hidden", "2"]
    rates = ["--policy_lr", "1e-3", "--critic_lr", "1e-3", "--tau", "0.05", "--discounting", "0.9"]
    own = ["--subgoal_steps", "3"] if name == "hiql" else []
    run = make_run(*read_flags([*SMALL_RUN, *RUNS[name], *sizes, *rates, *own]))
    before = run.evaluate(run.learn(run.start(), 1))
    after = run.evaluate(run.learn(run.start(), 1500))
    assert before["eval/episode_success_any"] < 0.3 and after["eval/episode_success_any"] > 0.9
    assert after["eval/final_dist"] < 0.5 * before["eval/final_dist"]
