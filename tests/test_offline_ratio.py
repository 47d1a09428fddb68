"""Tests of online batches that hold a share of a dataset: counts by source, the program, resuming, and bad flags."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import train as training
from goalax.core import buffer, mixing
from goalax.core import updates as updating
from goalax.core.relabel.geometric import geometric
from goalax.core.sizes import sizes_of
from goalax.core.train import Loop, forget_metrics, make_train
from goalax.core.types import Agent, Needs
from goalax.data import files
from goalax.flags import FlagError
from goalax.host import checkpoint, memory
from goalax.host.config import read_flags
from goalax.host.loading import load
from goalax.host.make import make_run
from goalax.host.resolve import resolve
from tests.helpers import toy
from tests.helpers.offline import SPEC, equal, interrupted, walks
from tests.helpers.rings import filled_ring
from tests.helpers.runs import RUN, assert_equal_runs, rows

toy.register()

MARK = 100  # which all states and actions of a dataset here have more than those of a run
MIXED = [*toy.TINY, "--dataset", "data.npz", "--offline_ratio", "0.4"]  # of batches of 8: 3
RING_SPEC = SPEC._replace(state_size=3, goal_size=1, action_size=1, goal_indices=(0,))
EVERYTHING = Needs(
    goals=(0.5, 0.2, 0.3),
    actor_goals=(0.4, 0.2, 0.4),
    actor_law=geometric(0.5),
    horizon=2,
    waypoint=geometric(0.5),
    within=3,
    bins=(0, 1, 3),
    same=True,
    subgoal=2,
    next_action=True,
)


def run_of(*flags):
    return make_run(*read_flags([*MIXED, *flags]))


def marked_ring():
    """As `filled_ring`, of other episodes and with the mark."""
    ring = filled_ring(20)
    rows = ring.rows._replace(state=ring.rows.state + MARK, action=ring.rows.action + MARK, goal=ring.rows.goal + MARK)
    return ring._replace(rows=rows)


# ---- Batches ---------------------------------------------------------------------------------------------------------


def test_every_batch_has_its_share_and_each_sample_one_source():
    """Rows of a dataset are told by their mark in whatever an agent can ask for."""
    sizes = sizes_of(resolve(read_flags(toy.TINY)[0]).config)
    sizes = sizes._replace(updates_per_unroll=400, batch_size=8, offline_rows=3)
    rings = mixing.Rings(filled_ring(0), marked_ring())

    def drawn(rings, key):
        draws = mixing.choices(rings, key, sizes, EVERYTHING, RING_SPEC, 5)
        parts = zip(rings, (draws.own, draws.data), strict=True)
        of_one = [jax.vmap(lambda choice, ring=ring: gather(ring, choice))(choice) for ring, choice in parts]
        return draws.order, jax.vmap(lambda draw: mixing.gather(rings, draw, RING_SPEC, EVERYTHING))(draws), *of_one

    def gather(ring, choice):
        return buffer.gather(ring, choice, RING_SPEC, EVERYTHING)

    order, found, own, data = jax.device_get(jax.jit(drawn)(rings, jax.random.PRNGKey(0)))
    marked = found.state[..., 0] > MARK / 2  # [400, 8]
    assert (marked.sum(1) == 3).all()
    for name in ("next_state", "goal", "action", "future_state", "future_action", "actor_state", "next_action"):
        assert ((getattr(found, name) > MARK / 2) == marked[:, :, None]).all(), name
    for values in (found.path.state, found.path.action, found.waypoint.state, found.visit.goal, *found.subgoals):
        assert ((values > MARK / 2) == marked.reshape(*marked.shape, *(1,) * (values.ndim - 2))).all()
    # Put in line again, a batch is one of each ring after the other, in every entry.
    places = np.argsort(order, axis=1)
    in_line = jax.tree.map(lambda leaf: np.stack([row[place] for row, place in zip(leaf, places, strict=True)]), found)
    assert len(jax.tree.leaves(found)) > 20
    assert equal(jax.tree.map(lambda leaf: leaf[:, :5], in_line), own)
    assert equal(jax.tree.map(lambda leaf: leaf[:, 5:], in_line), data)
    # Wherever an agent looks in its batch, it meets both sources by their shares: 3 / 8 up to four standard errors.
    np.testing.assert_allclose(marked.mean(0), 3 / 8, atol=0.1)
    assert (marked & np.roll(marked, 1, axis=1)).mean() == pytest.approx(6 / 56, abs=0.03)  # neighbours: 3/8 * 2/7


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_original_goals_come_last_from_both_by_their_shares(share):
    sizes = sizes_of(resolve(read_flags(toy.TINY)[0]).config)
    sizes = sizes._replace(updates_per_unroll=300, batch_size=8, offline_rows=3)
    rings, needs = mixing.Rings(filled_ring(0), marked_ring()), Needs(within=3, original=share)

    def drawn(key):
        draws = mixing.choices(rings, key, sizes, needs, RING_SPEC, 5)
        return jax.vmap(lambda draw: mixing.gather(rings, draw, RING_SPEC, needs))(draws)

    found = jax.device_get(jax.jit(drawn)(jax.random.PRNGKey(0)))
    kept = (found.future_state[..., 1:] == found.state[..., 1:]).all(-1)
    asked = (found.future_state[..., 0] == found.goal[..., 0]) & kept
    others, of_data = 8 - round(share * 8), round(share * 3)
    np.testing.assert_array_equal(asked, np.broadcast_to(np.arange(8) >= others, asked.shape))
    np.testing.assert_array_equal(found.visit.goal, found.future_state[..., :1])
    marked = found.state[..., 0] > MARK / 2
    assert (marked.sum(1) == 3).all() and (marked[:, others:].sum(1) == of_data).all()
    # In each of the two parts the order is random.
    np.testing.assert_allclose(marked[:, :others].mean(0), (3 - of_data) / others, atol=0.12)
    np.testing.assert_allclose(marked[:, others:].mean(0), of_data / (8 - others), atol=0.12)


def counting_agent(run):
    """An agent whose metric is how many samples of a batch carry the mark, and which never changes."""
    plain = AGENTS["gcbc"].make(AGENTS["gcbc"].config(h_dim=8, n_hidden=1), run.spec)

    def update(state, batch, key):
        marked = jnp.sum(batch.state[:, 0] > MARK / 2)
        return state, {"marked": marked.astype(jnp.float32), "squared": (marked * marked).astype(jnp.float32)}

    return Agent(init=plain.init, act=plain.act, mode=plain.mode, update=update)


def test_the_loop_draws_from_both(here):
    """Online from the start: every update has 3 marked samples of 8, and none before there is something to mix."""
    marked = walks()
    files.write("data.npz", {**marked, "observations": marked["observations"] + MARK})
    run = run_of("--normalize_observations", "false")
    train = make_train(run.env, run.eval_env, counting_agent(run), run.spec, run.sizes, False)
    (data,) = run.mixed_in
    state = train.advance(train.init(run.keys(0)), np.int32(2), np.int32(0), data)
    assert int(state.buffer.count) == 10 and int(state.gradient_steps) == 0  # the prefill
    state = train.advance(state, np.int32(3), np.int32(2), data)
    assert int(state.gradient_steps) == 6 == float(state.metric_sums["updates"].value)
    assert float(state.metric_sums["marked"].value) == 6 * 3
    assert float(state.metric_sums["squared"].value) == 6 * 9
    assert not np.any(np.asarray(state.buffer.rows.state) > MARK / 2)
    assert equal(data, run.dataset.ring)  # is there still


# ---- The program -----------------------------------------------------------------------------------------------------


def lowered(*flags):
    run = make_run(*read_flags([*toy.TINY, *flags]))
    count, state = jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(run.train.init, run.keys(0))
    return run.train.advance.lower(state, count, count, *run.mixed_in)


def test_without_a_share_it_is_the_program_of_before(here, monkeypatch):
    """Lowering the whole of `advance`, with what a train step was before batches were mixed."""

    def train_step(self, state, updates):
        key, unroll_key, choice_key, update_key = jax.random.split(state.key, 4)
        state = self._unroll(state._replace(key=key), unroll_key)
        law = self.agent.needs, self.spec, self.sizes.max_episode_decisions
        drawn = updating.choices(state.buffer, choice_key, self.sizes, *law)
        return updating.learn(self.update, state, state.buffer, drawn, update_key, updates)

    def update(self, agent_state, ring, choice, key):
        return self.agent.update(agent_state, buffer.gather(ring, choice, self.spec, self.agent.needs), key)

    dataset = ["--dataset", "data.npz", "--offline_steps", "5", "--offline_ratio"]
    now, mixed = lowered(*dataset, "0"), lowered(*dataset, "0.4")
    monkeypatch.setattr(Loop, "_train_step", train_step)
    monkeypatch.setattr(Loop, "update", jax.jit(update, static_argnums=0))
    assert now.as_text() == lowered().as_text() != mixed.as_text()
    # The dataset is an argument that stays, and nothing of it lies in the program.
    args, _ = mixed.args_info
    assert [leaf.shape for leaf in jax.tree.leaves(args[3].rows)] == [(330, 1, 2)] * 3 + [(330, 1)] * 3
    assert not any(leaf.donated for leaf in jax.tree.leaves(args[3])) and args[0].buffer.rows.state.donated
    assert not re.search(r"constant dense.*tensor<330", mixed.as_text())


# ---- Runs ------------------------------------------------------------------------------------------------------------


def newest(directory=RUN):
    return jax.device_get(load(directory)[1])


@pytest.mark.slow
def test_resume_is_exact(here, capsys):
    """Online from the start, with the dataset."""
    assert training.main(MIXED) == 0
    found, state = rows(), newest()
    assert [float(row["training/envsteps"]) for row in found] == [60, 100, 120]
    assert {float(row["training/offline_updates"]) for row in found} == {0}
    assert float(found[-1]["training/gradient_steps"]) == 2 * 4
    assert state.buffer.rows.reward.shape == (40, 4)  # the run's own, and nothing else
    config = json.loads((RUN / "config.json").read_text())
    assert config["flags"]["offline_ratio"] == 0.4 and len(config["dataset_sha256"]) == 64
    again = [*MIXED, "--exp_name", "again"]
    interrupted(again, 1)
    assert checkpoint.steps(RUN.with_name("again_s0") / "checkpoints") == [60]
    assert training.main([*again, "--resume", "--offline_ratio", "0.5"]) == 2
    assert "it cannot change --offline_ratio" in capsys.readouterr().err
    assert training.main([*again, "--resume"]) == 0
    directory = RUN.with_name("again_s0")
    assert equal(forget_metrics(newest(directory)), forget_metrics(state)) and rows(directory) == found
    files.write("data.npz", walks(seed=1))
    assert training.main([*again, "--resume", "--num_timesteps", "160"]) == 2
    assert "data.npz is not the file that runs/again_s0 has learned from" in capsys.readouterr().err


@pytest.mark.slow
def test_online_after_offline(here):
    flags = [*MIXED, "--offline_steps", "6"]
    assert training.main(flags) == 0
    assert [float(row["training/envsteps"]) for row in rows()] == [0, 0, 0, 60, 100, 120]
    python = make_run(*read_flags(flags))
    by_hand = python.collect(python.learn(python.start(), 6))
    by_hand = python.advance(by_hand, python.sizes.train_steps(120))
    state = newest()
    assert int(state.gradient_steps) == 6 + 2 * 4
    assert equal(by_hand.agent, state.agent) and equal(by_hand.buffer, state.buffer)


@pytest.mark.slow
def test_seeds_are_single_runs_on_one_device_and_on_two(here):
    both = [*MIXED, "--num_seeds", "2", "--num_devices"]
    assert training.main([*both, "1"]) == 0
    assert training.main([*both, "2", "--exp_name", "two"]) == 0
    assert training.main([*MIXED, "--seed", "1", "--exp_name", "alone"]) == 0
    assert_equal_runs(RUN.with_name("toy_crl_s1"), RUN.with_name("alone_s1"))
    for seed in (0, 1):
        assert_equal_runs(RUN.with_name(f"two_s{seed}"), RUN.with_name(f"toy_crl_s{seed}"))
    assert not equal(newest(RUN).agent, newest(RUN.with_name("toy_crl_s1")).agent)


def test_after_fine_tuning_it_is_the_labelled_file(here):
    files.write("labelled.npz", walks(seed=1, episodes=7))
    flags = [*toy.BASELINE, *MIXED[len(toy.TINY) :], "--agent", "hilp", "--offline_steps", "4"]
    run = make_run(*read_flags([*flags, "--finetune_dataset", "labelled.npz", "--finetune_steps", "4"]))
    (data,) = run.mixed_in
    assert data is run.phases.labelled and data.rows.reward.shape == (77, 1)
    assert make_run(*read_flags(flags)).mixed_in[0].rows.reward.shape == (330, 1)


def test_memory_counts_the_dataset_once(here, monkeypatch, capsys):
    rows = 30 * 11 * 4 * (2 + 2 + 2 + 1 + 1 + 1) + 4  # bytes: state, goal, action, reward, terminal, episode; count
    base = memory.predict(make_run(*read_flags(toy.TINY)))
    for seeds in (1, 3):
        parts = memory.predict(run_of("--num_seeds", str(seeds), "--num_devices", "1"))
        assert parts == {**{name: seeds * size for name, size in base.items()}, "dataset": rows}
    files.write("data.npz", walks(episodes=9_000))
    monkeypatch.setattr(memory, "available", lambda: 3 * memory.MIB)
    assert training.main(MIXED) == 2
    error = capsys.readouterr().err
    assert "--dataset is data.npz; it must be a smaller file, because the run needs at least" in error
    assert error.count("\n") == 1 and not (here / "runs").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--offline_ratio 1", "--offline_ratio is 1.0; it must be at least 0 and less than 1"),
        ("--offline_ratio -0.1", "--offline_ratio is -0.1; it must be at least 0"),
        ("--offline_ratio 0.05", "--offline_ratio is 0.05, which is 0 of --batch_size 8 samples"),
        ("--offline_ratio 0.97", "--offline_ratio is 0.97, which is 8 of --batch_size 8 samples"),
        ("--offline_ratio 0", "--offline_steps must say how many updates to make on it, or --offline_ratio its share"),
        ("--num_timesteps 0 --offline_steps 5", "--offline_ratio is 0.4, a share of batches online; with"),
        ("--finetune_dataset x.npz --finetune_steps 5", "--finetune_dataset is 'x.npz'; --offline_steps must say"),
        ("--agent ppo", "mean nothing to --agent ppo"),
    ],
)
def test_what_does_not_fit_is_one_sentence(here, flags, words, capsys):
    assert training.main([*MIXED, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (here / "runs").exists()


def test_without_a_dataset_it_is_refused():
    flags, agent = read_flags([*toy.TINY, "--offline_ratio", "0.5"])
    with pytest.raises(FlagError, match=r"--offline_ratio is 0.5; --dataset must name the file"):
        make_run(flags, agent)
    assert sizes_of(make_run(dataclasses.replace(flags, offline_ratio=0.0), agent).config).offline_rows == 0
