"""Tests of agents that pre-train without rewards: golden loss terms, what labelled samples tell, the two phases of a
run, resumed bit for bit, and what is refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.agents import AGENTS, crl_infonce, fb, hilp
from goalax.agents.extraction import linear_actor
from goalax.agents.goal_values import goal_reward, value_loss
from goalax.agents.pretraining import ImplicitQ, joined, on_sphere, uniform_latents
from goalax.commands import train as training
from goalax.core.train import forget_metrics
from goalax.core.types import Needs
from goalax.data import files
from goalax.flags import FlagError
from goalax.host import checkpoint
from goalax.host.config import read_flags
from goalax.host.loading import load
from goalax.host.make import make_run
from goalax.learning.losses import contrastive_loss
from goalax.learning.losses.infonce import infonce
from tests.helpers import toy, toy_rewards
from tests.helpers.agents import relatives_wait
from tests.helpers.offline import NO_GOALS, SPEC, batch_of, close, config_of, equal, golden, interrupted
from tests.helpers.runs import RUN, rows

toy.register()
toy_rewards.register()

NAMES = ("hilp", "fb", "crl_infonce")


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
    for name in NAMES:
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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
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


def test_goals_of_crl_infonce_begin_at_the_state_itself():
    needs = make("crl_infonce").needs
    assert needs.goals == pytest.approx((0.9, 0.1, 0.0)) and needs != Needs()
    steps = np.asarray(needs.law(jnp.array([0.0, 0.05, 0.15]), jnp.full(3, 50)))
    assert list(steps) == [1, 1, 2]


# ---- Runs ------------------------------------------------------------------------------------------------------------

FREE = ["--num_timesteps", "0", "--dataset", "free.npz", "--offline_steps", "15"]
TUNE = ["--finetune_dataset", "labelled.npz", "--finetune_steps", "21"]


def sizes(name):
    """Flags of a small run of an agent."""
    own = ["--repr_dim", "4"] if name in NAMES else []
    return [*toy.BASELINE, "--env_name", "toy_rewards", "--agent", name, *own]


PRETRAIN = [*sizes("hilp"), *FREE]
BOTH = [*PRETRAIN, *TUNE]
DIRECTORY = RUN.with_name("toy_rewards_hilp_s0")


@pytest.mark.slow
def test_what_is_validated_follows_the_phase(here):
    """Of --dataset there is no validation set here, of --finetune_dataset one, from its first update on."""
    columns = toy_rewards.walks(20, 11, 2)
    files.write("labelled-val.npz", {key: np.asarray(leaf) for key, leaf in columns.items()})
    run = make_run(*read_flags(BOTH))
    state = run.learn(run.start(), 15)
    assert run.validate(state) == {}
    told = run.validate(run.finetune(state, 2))
    assert "validation/critic_loss" in told and all(np.isfinite(value) for value in told.values())


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with free.npz, without rewards, and labelled.npz, to work in."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("free", 0), ("labelled", 1)):
        columns = {key: np.asarray(leaf) for key, leaf in toy_rewards.walks(100, 11, seed).items()}
        columns.pop("rewards" if name == "free" else "nothing", None)
        files.write(f"{name}.npz", columns)
    return tmp_path


def run_of(*flags):
    return make_run(*read_flags([*BOTH, *flags]))


def newest(directory=DIRECTORY):
    return jax.device_get(load(directory)[1])


@pytest.mark.slow
def test_a_run_pretrains_and_then_tunes(here, capsys):
    assert training.main(BOTH) == 0
    printed = capsys.readouterr().out
    assert "learning from free.npz" in printed and "then from labelled.npz" in printed
    found = rows(DIRECTORY)
    assert [float(row["training/offline_updates"]) for row in found] == [6, 10, 15, 23, 29, 36]
    assert checkpoint.steps(DIRECTORY / "checkpoints") == [36, 29]
    run, content = run_of(), json.loads((DIRECTORY / "config.json").read_text())
    for name, dataset in run.datasets.items():
        assert content[f"{name}_sha256"] == dataset.sha256
    state = newest()
    assert int(state.agent.agent.tuned) == 21
    by_hand = run.finetune(run.learn(run.start(), 15), 21)
    assert equal(by_hand.agent, state.agent) and equal(by_hand.key, state.key)
    parts = run.finetune(run.finetune(run.learn(run.start(), 15), 10), 10, switch=False)
    assert int(parts.agent.agent.tuned) == 20


@pytest.mark.slow
def test_resume_is_exact_in_both_phases(here, capsys):
    assert training.main(BOTH) == 0
    whole, expected = newest(), rows(DIRECTORY)
    for stop, done in ((2, 10), (3, 15), (5, 29)):  # within the first phase, between them, within the second
        name = ["--exp_name", f"again{stop}"]
        directory = DIRECTORY.with_name(f"again{stop}_s0")
        interrupted([*BOTH, *name], stop)
        assert checkpoint.steps(directory / "checkpoints")[0] == done
        assert training.main([*BOTH, *name, "--resume"]) == 0
        assert equal(newest(directory), whole) and rows(directory) == expected
    name = ["--exp_name", "later"]  # a run that was to pre-train alone
    assert training.main([*PRETRAIN, *name]) == 0
    assert training.main([*BOTH, *name, "--resume"]) == 0
    assert equal(newest(DIRECTORY.with_name("later_s0")), whole)
    files.write("labelled.npz", {key: np.asarray(leaf) for key, leaf in toy_rewards.walks(100, 11, 5).items()})
    for flags, words in (
        ([], "--finetune_dataset: labelled.npz is not the file"),
        (["--offline_steps", "20"], "it cannot change --offline_steps"),
    ):
        assert training.main([*BOTH, *name, "--resume", "--finetune_steps", "30", *flags]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fb", "iql"])
def test_an_agent_goes_through_all_phases(name, here):
    """With seeds side by side and online afterwards, with a `switch` and without one."""
    dataset = "labelled.npz" if name == "iql" else "free.npz"
    more = ["--dataset", dataset, "--num_timesteps", "120", "--num_seeds", "2"]
    assert training.main([*sizes(name), *FREE, *TUNE, *more]) == 0
    for seed in (0, 1):
        found = rows(DIRECTORY.with_name(f"toy_rewards_{name}_s{seed}"))
        assert [float(row["training/envsteps"]) for row in found] == [0] * 6 + [60, 100, 120]
        assert all(np.isfinite(float(value)) for row in found for value in row.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", relatives_wait(NAMES))
def test_tuning_finds_the_rewards(name, here):
    """Pre-training alone goes anywhere; tuning goes where the rewards are."""
    larger = ["--utd_ratio", "5", "--num_eval_envs", "64", "--batch_size", "128", "--h_dim", "64", "--repr_dim", "8"]
    flags = [*larger, "--discounting", "0.9", "--offline_steps", "600"]
    run = make_run(*read_flags([*sizes(name), *FREE, *TUNE, *flags]))
    state = run.learn(run.start(), 600)
    before = run.evaluate(state)["eval/episode_reward"]
    after = run.evaluate(run.finetune(state, 5000))["eval/episode_reward"]
    assert after > 1.5 * before, (before, after)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--finetune_steps", "0"], "--finetune_steps must say how many updates"),
        (["--finetune_dataset", "none.npz"], "--finetune_dataset: none.npz cannot be read"),
        (["--finetune_dataset", "free.npz"], "--finetune_dataset: free.npz has no rewards"),
    ],
)
def test_what_does_not_fit_is_one_sentence(here, flags, words, capsys):
    assert training.main([*BOTH, *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (here / "runs").exists()


def test_files_and_steps_come_together(here):
    for flags, words in (
        ([*PRETRAIN, "--finetune_steps", "3"], "--finetune_dataset must name the file"),
        ([*sizes("hilp"), *TUNE], "--dataset must name what comes"),
    ):
        with pytest.raises(FlagError, match=words):
            make_run(*read_flags(flags))
    run = make_run(*read_flags(PRETRAIN))
    with pytest.raises(FlagError, match="of a run with --finetune_dataset"):
        run.finetune(forget_metrics(run.start()), 3)
    run = run_of()
    with pytest.raises(FlagError, match="Fine-tuning begins after --offline_steps 15 updates; this state has 4."):
        run.finetune(run.learn(run.start(), 4), 3)
    with pytest.raises(FlagError, match=r"free.npz has no rewards"):  # which it would learn from
        _ = make_run(*read_flags([*sizes("iql"), *FREE])).dataset


def test_a_switch_must_keep_the_form_of_the_state(here, monkeypatch):
    entry = AGENTS["hilp"]

    def broken(config, spec):
        return entry.make(config, spec)._replace(switch=lambda agent, batch, key: agent._replace(latent=()))

    monkeypatch.setitem(AGENTS._entries, "hilp", dataclasses.replace(entry, make=broken))
    run = run_of()
    with pytest.raises(FlagError, match="The agent's `switch` takes a state"):
        run.finetune(run.learn(run.start(), 15), 1)
