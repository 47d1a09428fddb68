"""Runs that pre-train without rewards and then tune: their two phases, resumed bit for bit, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import train as training
from goalax.core.train import forget_metrics
from goalax.data import files
from goalax.flags import FlagError
from goalax.host import checkpoint
from goalax.host.config import read_flags
from goalax.host.loading import load
from goalax.host.make import make_run
from tests.helpers import toy, toy_rewards
from tests.helpers.agents import relatives_wait
from tests.helpers.offline import PRETRAINING, equal, interrupted
from tests.helpers.runs import RUN, rows

toy.register()
toy_rewards.register()

FREE = ["--num_timesteps", "0", "--dataset", "free.npz", "--offline_steps", "15"]
TUNE = ["--finetune_dataset", "labelled.npz", "--finetune_steps", "21"]


def sizes(name):
    """Flags of a small run of an agent."""
    own = ["--repr_dim", "4"] if name in PRETRAINING else []
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
@pytest.mark.parametrize("name", relatives_wait(PRETRAINING))
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
