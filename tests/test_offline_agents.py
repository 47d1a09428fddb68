"""Offline goal-conditioned agents: losses by NumPy, target networks, flags; runs that are resumed and go on online."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.agents.goal_values import Pair
from goalax.core.types import Subgoals
from goalax.data import files
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import ROOT, toy
from tests.helpers.agents import relatives_wait
from tests.helpers.offline import SPEC, actor_mean, close, equal, formulas, noisy_walks, whole_batch

toy.register()
NAMES = ("gcivl", "gciql", "hiql")


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


# ---- Whole agents: what an update reports is what NumPy makes of its networks ----------------------------------------


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


def reward_and_mask(batch):
    """Those of OGBench, but for ends for good that are neither at the goal nor the goal: -1 a step for ever."""
    reward, mask = formulas().sparse_goal_reward(np.asarray(batch.same) > 0)
    lost = (batch.discount == 0) & (batch.future_reward == 0) & (batch.same == 0)
    assert lost.any() and not lost.all()
    return np.where(lost, -10, reward), np.where(lost, 0, mask)


@pytest.mark.parametrize("critic_goal", ["state", "goal"])
def test_losses_of_gcivl_by_numpy(critic_goal):
    agent, config, state, batch = small("gcivl", critic_goal=critic_goal)
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(2))
    value = Pair(config.mlp(1))
    v = lambda params, s, g: np.asarray(value.values(params, s, goal_of(config, g)), np.float64)  # noqa: E731
    critic, (s, s2, g, ga) = (
        state.params["critic"],
        (batch.state, batch.next_state, batch.future_state, batch.actor_state),
    )
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, (critic, state.target)), strict=True))
    reward, mask = reward_and_mask(batch)
    loss, _, _ = formulas().ivl_loss(
        reward, mask, v(state.target, s, g), v(state.target, s2, g), v(critic, s, g), 0.9, 0.9
    )
    close(metrics["critic_loss"], loss, rtol=1e-4)
    then = np.where(batch.discount == 0, -10, v(critic, s2, ga).mean(0))  # who has ended gets nowhere
    advantage = then - v(critic, s, ga).mean(0)
    mean = actor_mean(config.mlp(3, use_ln=False), state.params["actor"], s, ga[:, [1, 3]])
    likelihood = formulas().gaussian_log_density(np.asarray(batch.action), np.asarray(mean))
    close(metrics["actor_loss"], -np.mean(formulas().awr_weight(advantage, 10.0) * likelihood), rtol=1e-4)


@pytest.mark.parametrize("extraction", ["ddpg_bc", "awr"])
def test_losses_of_gciql_by_numpy(extraction):
    agent, config, state, batch = small("gciql", extraction=extraction)
    _, metrics = agent.update(state, batch, jax.random.PRNGKey(2))
    pair, net, params = Pair(config.mlp(1)), config.mlp(1), state.params["critic"]
    q = lambda params, s, g, a: np.asarray(pair.values(params, s, g, a), np.float64)  # noqa: E731
    v = lambda s, g: np.asarray(net.apply(params["value"], jnp.concatenate([s, g], -1))[:, 0], np.float64)  # noqa: E731
    s, s2, g, ga, a = batch.state, batch.next_state, batch.future_state, batch.actor_state, batch.action
    reward, mask = reward_and_mask(batch)
    above = q(state.target, s, g, a).min(0) - v(s, g)
    close(metrics["value_loss"], formulas().expectile_loss(above, above, 0.9), rtol=1e-4)
    target = reward + 0.9 * mask * v(s2, g)
    close(metrics["q_loss"], np.sum(np.mean((q(params["q"], s, g, a) - target) ** 2, axis=1)), rtol=1e-4)
    mean = np.asarray(actor_mean(config.mlp(3, use_ln=False), state.params["actor"], s, ga[:, [1, 3]]))
    likelihood = formulas().gaussian_log_density(np.asarray(a), mean)
    if extraction == "awr":
        weight = formulas().awr_weight(q(params["q"], s, ga, a).min(0) - v(s, ga), 10.0)
        expected = -np.mean(weight * likelihood)
    else:
        of_actor = q(params["q"], s, ga, jnp.clip(mean, -1, 1)).min(0)
        expected = -of_actor.mean() / (np.abs(of_actor).mean() + 1e-6) - 0.3 * likelihood.mean()
    close(metrics["actor_loss"], expected, rtol=1e-4)


def test_losses_of_hiql_by_numpy():
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
    reward, mask = reward_and_mask(batch)
    slow, value = state.target, params["value"]
    loss, _, _ = formulas().ivl_loss(reward, mask, v(slow, s, g), v(slow, s2, g), v(value, s, g), 0.7, 0.9)
    close(metrics["critic_loss"], loss, rtol=1e-4)
    actors = state.params["actor"]
    low_mean = actor_mean(config.mlp(3, use_ln=False), actors["low"], s, jnp.asarray(rho(s, near), jnp.float32))
    high_mean = actor_mean(config.mlp(4, use_ln=False), actors["high"], s, ga[:, [1, 3]])
    low_weight = formulas().awr_weight(v(value, s2, near).mean(0) - v(value, s, near).mean(0), 3.0)
    high_weight = formulas().awr_weight(v(value, way, ga).mean(0) - v(value, s, ga).mean(0), 3.0)
    low = formulas().gaussian_log_density(np.asarray(batch.action), np.asarray(low_mean))
    high = formulas().gaussian_log_density(rho(s, way), np.asarray(high_mean))
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


@pytest.mark.parametrize("name", NAMES)
def test_a_law_of_goals_that_the_actor_never_has_is_refused(name):
    words = "--actor_relabel is final; it means nothing with --actor_any_goals 1, which are all"
    with pytest.raises(FlagError, match=words):
        AGENTS[name].make(AGENTS[name].config(actor_any_goals=1.0, actor_relabel="final"), SPEC)


def test_shares_of_goals_may_be_all():
    """1 - 0.8 - 0.2 is less than 0 in floats."""
    needs = AGENTS["crl"].config(current_goals=0.8, any_goals=0.2).needs(SPEC)
    assert needs.goals == (0.0, 0.8, 0.2)


@pytest.mark.parametrize("multiplier", ["softplus", "exp"])
@pytest.mark.parametrize("first", [1e-3, 1.0, 200.0])
def test_the_multiplier_begins_where_it_is_told(multiplier, first):
    flags = {"h_dim": 8, "n_hidden": 2, "repr_dim": 16, "multiplier": multiplier, "multiplier_init": first}
    agent = AGENTS["qrl"].make(AGENTS["qrl"].config(**flags), SPEC)
    raw = 30 * agent.init(jax.random.PRNGKey(0)).params["critic"]["multiplier"]
    value = jnp.exp(raw) if multiplier == "exp" else jax.nn.softplus(raw)
    assert float(value) == pytest.approx(first, rel=1e-3)


# ---- Runs ------------------------------------------------------------------------------------------------------------


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
    files.write("data.npz", noisy_walks())
    return tmp_path


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
