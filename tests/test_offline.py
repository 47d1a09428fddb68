"""Tests of learning from a dataset: offline, then online, resumed bit for bit, and what is refused."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import dataset
from goalax.commands import train as training
from goalax.core import buffer, counting
from goalax.core.train import Loop, forget_metrics
from goalax.core.types import BufferState
from goalax.data import files
from goalax.flags import FlagError
from goalax.host import checkpoint, runs
from goalax.host.config import algorithm_of, read_flags
from goalax.host.loading import load, load_policy
from goalax.host.make import make_run
from goalax.host.runs import read_metrics
from tests.helpers import toy
from tests.helpers.offline import equal, interrupted, walks
from tests.helpers.runs import RUN, assert_equal_runs, rows

toy.register()

OFFLINE = [*toy.TINY, "--dataset", "data.npz", "--offline_steps", "50", "--num_timesteps", "0"]


def run_of(*flags):
    return make_run(*read_flags([*OFFLINE, *flags]))


def newest(directory=RUN):
    run, state = load(directory)
    return run, jax.device_get(state)


def metrics_of(directory=RUN):
    timed = ("walltime", "sps", "time")
    return [{name: value for name, value in row.items() if not name.endswith(timed)} for row in rows(directory)]


def test_offline_training_is_a_run_like_others(here, capsys):
    assert training.main(OFFLINE) == 0
    printed = capsys.readouterr().out
    assert "learning from data.npz: 300 transitions in 30 episodes" in printed
    assert re.search(r"training speed +│ [\d,]+ updates/s", printed)
    found = rows(RUN)
    assert [float(row["training/offline_updates"]) for row in found] == [16, 34, 50]  # of 25 phases of 2 updates
    assert [float(row["training/envsteps"]) for row in found] == [0, 0, 0]
    assert [float(row["training/gradient_steps"]) for row in found] == [16, 34, 50]
    assert all(np.isfinite(float(value)) for row in found for value in row.values())
    assert all(row["training/sps"] > 0 for row in read_metrics(RUN / "metrics.csv"))  # updates per second
    assert checkpoint.steps(RUN / "checkpoints") == [50, 34]
    run, state = newest()
    assert run.sizes.updates_per_unroll == 2
    assert state.buffer.rows.reward.shape == (5, 4) and int(state.buffer.count) == 0  # small checkpoints
    config = json.loads((RUN / "config.json").read_text())
    assert config["flags"]["dataset"] == "data.npz" and config["dataset_sha256"] == run.dataset.sha256
    (here / "data.npz").unlink()
    assert load_policy(RUN)(np.zeros(2), np.ones(2)).shape == (2,)  # needs no dataset


@pytest.mark.slow
def test_a_phase_is_choose_gather_update_on_the_file(here):
    run = run_of("--normalize_observations", "false")
    state, data = run.start(), run.data
    expected = jax.device_get(state.agent)
    key, _, choice_key, update_key = jax.random.split(state.key, 4)
    agent = algorithm_of(run.config).make(run.agent_config, run.spec)
    choice = buffer.choose(data, choice_key, 2 * 8, agent.needs, 0.99, data.rows.reward.shape[0] - 1)
    for i, one in enumerate(jax.random.split(update_key, 2)):
        part = jax.tree.map(lambda leaf: leaf[8 * i : 8 * (i + 1)], choice)  # noqa: B023
        expected = agent.update(expected, buffer.gather(data, part, run.spec, agent.needs), one)[0]
    learned = run.learn(state, 2)
    assert np.array_equal(learned.key, key)
    for leaf, other in zip(jax.tree.leaves(learned.agent), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)


def test_inputs_are_normalised_with_the_dataset(here):
    agent = run_of().start().agent
    states = walks()["observations"]
    np.testing.assert_allclose(agent.state_map.mean, states.mean(0), atol=1e-5)
    assert (np.asarray(agent.state_map.spread) >= states.std(0) - 1e-4).all()


def test_it_learns_to_imitate(here):
    """Behaviour cloning of straight walks reaches goals; an untrained policy does not."""
    sizes = ["--utd_ratio", "5", "--num_eval_envs", "64", "--batch_size", "64", "--h_dim", "32"]
    run = make_run(*read_flags([*toy.BASELINE, "--agent", "gcbc", *OFFLINE[len(toy.TINY) :], *sizes]))
    state = run.start()
    before = run.evaluate(run.learn(state, 1))
    state = run.learn(run.start(), 800)
    after = run.evaluate(state)
    assert after["eval/final_dist"] < 0.6 * before["eval/final_dist"]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2])
def test_resume_is_exact(here, stop):
    assert training.main(OFFLINE) == 0
    whole, whole_rows = newest()[1], metrics_of()
    name = ["--exp_name", "again"]
    directory = RUN.with_name("again_s0")
    interrupted([*OFFLINE, *name], stop)
    assert checkpoint.steps(directory / "checkpoints")[0] == [16, 34][stop - 1]
    assert training.main([*OFFLINE, *name, "--resume"]) == 0
    assert equal(newest(directory)[1], whole)
    assert metrics_of(directory) == whole_rows


@pytest.mark.slow
def test_how_often_the_host_looks_up_changes_nothing(here, monkeypatch):
    assert training.main(OFFLINE) == 0
    often = newest()[1]
    monkeypatch.setattr("goalax.host.session.CHUNK_SECONDS", 0.0)
    assert training.main([*OFFLINE, "--exp_name", "often"]) == 0
    assert equal(newest(RUN.with_name("often_s0"))[1], often)


@pytest.mark.slow
def test_online_goes_on_with_the_same_state(here):
    both = [*OFFLINE[:-1], "120"]
    assert training.main(both) == 0
    found = rows(RUN)
    assert [float(row["training/envsteps"]) for row in found] == [0, 0, 0, 60, 100, 120]
    assert [float(row["training/offline_updates"]) for row in found] == [16, 34, 50, 50, 50, 50]
    run, state = newest()
    assert checkpoint.steps(RUN / "checkpoints") == [170, 150]
    assert int(state.gradient_steps) == 50 + 2 * run.sizes.train_steps(120)
    python = make_run(*read_flags(both))
    by_hand = python.collect(python.learn(python.start(), 50))
    by_hand = python.advance(by_hand, python.sizes.train_steps(120))
    assert equal(by_hand.agent, state.agent) and equal(by_hand.buffer, state.buffer)
    for stop in (3, 4):  # before and after what is collected before learning
        name = f"again{stop}"
        interrupted([*both, "--exp_name", name], stop)
        assert training.main([*both, "--exp_name", name, "--resume"]) == 0
        assert equal(forget_metrics(newest(RUN.with_name(f"{name}_s0"))[1]), forget_metrics(state))


@pytest.mark.slow
def test_seeds_share_the_dataset(here):
    assert training.main([*OFFLINE, "--num_seeds", "2"]) == 0
    assert training.main([*OFFLINE, "--seed", "1", "--exp_name", "alone"]) == 0
    seeds = [newest(RUN.with_name(f"toy_crl_s{seed}"))[1].agent for seed in (0, 1)]
    alone = newest(RUN.with_name("alone_s1"))[1].agent
    assert not equal(*seeds)
    for leaf, other in zip(jax.tree.leaves(seeds[1]), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_devices_hold_whole_seeds(here):
    """Two seeds on two devices, resumed on one, are the two seeds of one device."""
    both = [*OFFLINE[:-1], "100", "--num_seeds", "2"]
    assert training.main(both) == 0
    interrupted([*both, "--exp_name", "two", "--num_devices", "2"], 2)
    assert training.main([*both, "--exp_name", "two", "--resume", "--num_devices", "1"]) == 0
    for seed in (0, 1):
        assert_equal_runs(RUN.with_name(f"two_s{seed}"), RUN.with_name(f"toy_crl_s{seed}"))


@pytest.mark.slow
def test_an_offline_run_goes_on_for_longer(here, capsys):
    assert training.main(OFFLINE) == 0
    (here / "data.npz").rename(here / "moved.npz")
    more = ["--resume", "--offline_steps", "75", "--dataset", "moved.npz"]
    assert training.main([*OFFLINE, *more]) == 0
    assert [float(row["training/offline_updates"]) for row in rows(RUN)] == [16, 34, 50, 75]
    assert int(newest()[1].gradient_steps) == 75
    kept = checkpoint.steps(RUN / "checkpoints"), rows(RUN)
    assert training.main([*OFFLINE, *more]) == 0  # it is over, and stays what it is
    assert (checkpoint.steps(RUN / "checkpoints"), rows(RUN)) == kept
    assert training.main([*OFFLINE, *more[:2], "60", *more[3:]]) == 2  # or its config.json would say what was not
    assert "--offline_steps is 60; the run has made 75 updates already" in capsys.readouterr().err
    assert runs.read_config(RUN)[0]["offline_steps"] == 75


@pytest.mark.slow
def test_a_run_teaches_another(here):
    """What a run holds, written to a file, is a dataset."""
    assert training.main([*toy.TINY, "--exp_name", "teacher"]) == 0
    assert dataset.main([str(RUN.with_name("teacher_s0")), "--out", "data.npz"]) == 0
    assert training.main(OFFLINE) == 0
    assert dataset.main([str(RUN), "--out", "none.npz"]) == 2 and not (here / "none.npz").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--dataset", "none.npz"], "--dataset: none.npz cannot be read: No such file or directory"),
        (["--offline_steps", "0"], "--offline_steps must say how many updates"),
        (["--env_name", "simple_u_maze"], "observations of shape [330, 2]"),
        (["--num_timesteps", "1"], "--num_timesteps is 1; it must be greater than 40"),
        (["--num_devices", "2"], "--num_devices is 2; with --dataset it must divide --num_seeds 1"),
        (["--resume"], "--resume found no run"),
        (
            ["--agent", "srl", "--original_goals", "0.5"],
            "--dataset: data.npz has no goals that episodes were asked for: --original_goals must be 0.",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(here, flags, words, capsys):
    assert training.main([*OFFLINE, *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (here / "runs").exists()


def test_without_a_dataset_its_flags_are_refused(here, capsys):
    for flags, words in (
        (["--offline_steps", "5"], "--dataset must name the file"),
        (["--num_timesteps", "0"], "--num_timesteps is 0; it must be greater than 40"),
    ):
        assert training.main([*toy.TINY, *flags]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(FlagError, match="--dataset means nothing to --agent ppo"):
        make_run(*read_flags(["--env_name", "toy", "--agent", "ppo", "--dataset", "x.npz", "--offline_steps", "5"]))


def test_another_file_does_not_resume_a_run(here, capsys):
    assert training.main(OFFLINE) == 0
    files.write("data.npz", walks(seed=1))
    assert training.main([*OFFLINE, "--resume", "--offline_steps", "75"]) == 2
    assert "data.npz is not the file that runs/toy_crl_s0 has learned from" in capsys.readouterr().err
    for flags, name in ((["--num_timesteps", "120"], "num_timesteps"),):
        files.write("data.npz", walks())
        assert training.main([*OFFLINE, "--resume", *flags]) == 2
        assert f"it cannot change --{name}" in capsys.readouterr().err


def test_a_run_that_never_collects_says_so(here):
    run = run_of()
    state = run.start()
    for function in (run.advance, run.collect):
        with pytest.raises(FlagError, match="--num_timesteps is 0"):
            function(state)
    with pytest.raises(FlagError, match="of a run with --dataset"):
        make_run(*read_flags(toy.TINY)).learn(state, 3)
    assert isinstance(state.buffer, BufferState) and dataclasses.is_dataclass(run)


def test_a_run_without_a_dataset_has_the_program_of_before(monkeypatch):
    """Lowering the whole of `advance`, with what a train step was before there were datasets."""

    def train_step(self, state, updates):
        key, unroll_key, choice_key, update_key = jax.random.split(state.key, 4)
        state = self._unroll(state._replace(key=key), unroll_key)
        shape = self.sizes.updates_per_unroll, self.sizes.batch_size
        law = self.agent.needs, self.spec.discounting, self.sizes.max_episode_decisions
        drawn = buffer.choose(state.buffer, choice_key, math.prod(shape), *law)
        drawn = jax.tree.map(lambda leaf: leaf.reshape(shape), drawn)
        keys = jax.random.split(update_key, self.sizes.updates_per_unroll)

        def learn(i, carry):
            agent_state, sums = carry
            choice = jax.tree.map(lambda leaf: leaf[i], drawn)
            agent_state, metrics = self.update(agent_state, state.buffer, choice, keys[i])
            terms = {"updates": jnp.ones(()), **metrics}
            return agent_state, {name: counting.added(sums[name], term) for name, term in terms.items()}

        agent_state, sums = jax.lax.fori_loop(0, updates, learn, (state.agent, state.metric_sums))
        gradient_steps = counting.plus(state.gradient_steps, updates)
        return state._replace(agent=agent_state, metric_sums=sums, gradient_steps=gradient_steps)

    def program(*flags):
        run = make_run(*read_flags([*toy.TINY, *flags]))
        count = jax.ShapeDtypeStruct((), jnp.int32)
        state = jax.eval_shape(run.train.init, run.keys(0))
        return run.train.advance.lower(state, count, count).as_text()

    now = program()
    with_dataset = program("--dataset", "none.npz", "--offline_steps", "5")  # online, it is the same
    monkeypatch.setattr(Loop, "_train_step", train_step)
    assert now == program() == with_dataset != program("--batch_size", "9")
