"""Tests of PPO by Brax's trainer: flags that reach it, whole runs, resume, and what it refuses."""

import dataclasses
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from goalax.agents.brax import trainer as ppo
from goalax.agents.brax.flags import PPOConfig
from goalax.commands import benchmark, benchmark_ppo, evaluate
from goalax.commands import train as training
from goalax.host import checkpoint, display
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.host.runs import read_metrics
from tests.helpers import toy
from tests.helpers.runs import TIMES, rows

toy.register()
TINY = [
    *("--env_name", "toy", "--agent", "ppo", "--num_envs", "4", "--num_eval_envs", "4", "--unroll_length", "5"),
    *("--vis_length", "0", "--num_timesteps", "120", "--num_evals", "3", "--h_dim", "8", "--num_minibatches", "2"),
]

# ---- Flags ----


@pytest.fixture
def arguments(monkeypatch):
    """(flags) -> the arguments that Brax's trainer is called with, and nothing trained."""

    def call(*argv):
        caught = {}

        def trainer(env, **kwargs):
            caught.update(kwargs, env=env)
            raise ArithmeticError

        monkeypatch.setattr(ppo.brax_ppo, "train", trainer)
        run = make_run(*read_flags([*TINY, *argv]))
        with pytest.raises(ArithmeticError):
            run.train.advance(run.train.init(jax.random.PRNGKey(run.config.seed)), 1, 0)
        return caught

    return call


CHANGES = {"num_minibatches": "4", "num_envs": "6", "unroll_length": "6", "episode_length": "8", "action_repeat": "2"}
CHANGES |= {"discounting": "0.5", "normalize_observations": "false", "gae_lambda": "0.5"}


# Flags that are arguments of Brax's trainer.
SAME = ("num_envs", "episode_length", "action_repeat", "unroll_length", "discounting", "normalize_observations")
SAME += ("learning_rate", "num_minibatches", "num_updates_per_batch", "gae_lambda", "clipping_epsilon", "entropy_cost")
SAME += ("reward_scaling",)


@pytest.mark.parametrize("name", SAME)
def test_flags_are_arguments_of_the_trainer(name, arguments):
    value = CHANGES.get(name, "3")
    before, after = arguments(), arguments(f"--{name}", value)
    assert before[name] != after[name] and str(after[name]).lower() in (value, f"{value}.0")
    steps = after["num_timesteps"] / (after["num_evals"] - 1)
    assert steps == after["batch_size"] * after["num_minibatches"] * after["unroll_length"] * after["action_repeat"]
    assert after["batch_size"] * after["num_minibatches"] == after["num_envs"]


def test_the_other_flags_of_ppo_are_its_networks(arguments):
    factory = arguments("--h_dim", "7", "--n_hidden", "3")["network_factory"]
    assert factory.keywords == {"policy_hidden_layer_sizes": (7, 7, 7), "value_hidden_layer_sizes": (7, 7, 7)}
    assert {field.name for field in dataclasses.fields(PPOConfig)} - set(SAME) == {"h_dim", "n_hidden"}


def test_environment_and_seed_reach_the_trainer(arguments):
    first, other = arguments(), arguments("--seed", "1", "--dense_reward", "--backend", "mjx")
    assert first["seed"] != other["seed"] and first["seed"] == arguments()["seed"]
    assert (first["env"].dense_reward, other["env"].dense_reward, other["env"].backend) == (False, True, "mjx")
    policies = [jax.tree.leaves(kwargs["restore_params"].policy) for kwargs in (first, other)]
    assert any((a != b).any() for a, b in zip(*policies, strict=True))


@pytest.mark.parametrize(
    "argv",
    [
        ["--batch_size", "256"],  # its default
        ["--min-replay-size=10"],
        ["--max_replay_size", "20"],
        ["--utd_ratio", "1"],
        ["--train_step_multiplier", "2"],
    ],
)
def test_flags_of_a_replay_buffer_are_refused(argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training.main([*TINY, *argv]) == 2
    error = capsys.readouterr().err
    assert "mean nothing to --agent ppo: leave them out." in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_minibatches_must_be_equal(capsys):
    assert training.main([*TINY, "--num_envs", "5"]) == 2
    error = capsys.readouterr().err
    assert "--num_minibatches is 2; it must divide --num_envs 5" in error and error.count("\n") == 1


def test_the_benchmark_of_the_common_loop_is_refused(capsys):
    assert benchmark.main(TINY) == 2
    error = capsys.readouterr().err
    assert "--agent ppo has a training loop of its own" in error and error.count("\n") == 1


def test_help_shows_the_flags_and_names_those_that_mean_nothing(capsys):
    with pytest.raises(SystemExit):
        read_flags(["--agent", "ppo", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert all(f"--{field.name}" in words for field in dataclasses.fields(PPOConfig))
    assert "mean nothing to --agent ppo" in words


@pytest.mark.slow
def test_speeds_are_compared(capsys):
    """In reacher, for Brax's own wrapper needs environments that keep its notes."""
    flags = ["--num_envs", "4", "--num_minibatches", "2", "--unroll_length", "5", "--rounds", "1", "--phases", "1"]
    assert benchmark_ppo.main(flags) == 0
    assert re.search(r"wall clock: median ratio [\d.]+ ", capsys.readouterr().out)


def test_a_trainer_goes_on_with_the_state_that_it_brought_about(monkeypatch):
    """Of two runs in turns each has its own, even at equal steps."""
    number = iter(range(1, 9))

    def trainer(_env, restore_params, policy_params_fn, progress_fn, **_arguments):
        of_this = next(number)
        mine = jax.tree.map(lambda leaf: np.full_like(leaf, of_this), restore_params.value)
        while True:
            policy_params_fn(0, None, (restore_params.normalizer, restore_params.policy, mine))
            progress_fn(0, {f"training/{name}": np.zeros(()) for name in ppo.METRICS})

    monkeypatch.setattr(ppo.brax_ppo, "train", trainer)
    train = make_run(*read_flags(TINY)).train
    first, second = (train.init(jax.random.PRNGKey(seed)) for seed in range(2))
    first, second = train.advance(first, 1, 0), train.advance(second, 1, 0)
    again = train.advance(train.advance(first, 1, 0), 1, 0)
    trainers = [float(np.ravel(jax.tree.leaves(state.agent.value)[0])[0]) for state in (first, second, again)]
    assert trainers == [1, 2, 3]  # the third has trained twice


def test_an_episode_may_be_longer_than_a_buffer():
    config = make_run(*read_flags([*TINY, "--episode_length", "20000"])).config
    assert (config.episode_length, config.min_replay_size) == (20_000, 0)


# ---- Whole runs ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two seeds, to be read only."""
    folder = tmp_path_factory.mktemp("ppo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert training.main([*TINY, "--num_seeds", "2"]) == 0
    return folder


@pytest.mark.slow
def test_a_run_writes_what_other_agents_write(finished, toy_runs):
    directory = finished / "runs" / "toy_ppo_s0"
    assert {"config.json", "metrics.csv", "curves.png", "checkpoints"} == {path.name for path in directory.iterdir()}
    table, crl = (read_metrics(path / "metrics.csv") for path in (directory, toy_runs / "l2_s0"))
    assert [row["training/envsteps"] for row in table] == [40, 80, 120]
    assert [row["training/gradient_steps"] for row in table] == [16, 32, 48]
    names = {name for name in crl[0] if name.startswith("eval/")} | TIMES
    assert {name for name in table[0] if name.startswith("eval/")} | TIMES == names
    assert {f"training/{name}" for name in ppo.METRICS.values()} <= table[0].keys()
    assert len({row["training/actor_loss"] for row in table}) == 3


@pytest.mark.slow
def test_a_seed_alone_equals_the_one_beside_another(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training.main([*TINY, "--seed", "1"]) == 0
    together, alone = rows(finished / "runs" / "toy_ppo_s1"), rows("runs/toy_ppo_s1")
    assert together != rows(finished / "runs" / "toy_ppo_s0")
    for name, value in alone[-1].items():
        np.testing.assert_allclose(float(together[-1][name]), float(value), rtol=1e-4, atol=1e-4, err_msg=name)


def newest(directory):
    train = make_run(*read_flags(TINY)).train
    return checkpoint.restore(directory / "checkpoints", jax.eval_shape(train.init, jax.random.PRNGKey(0)))


@pytest.mark.slow
def test_a_stopped_run_goes_on_from_its_checkpoint(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    step, signals = display.Display.step, [signal.SIGINT]

    def interrupt_once(display, env_steps):
        if signals:
            os.kill(os.getpid(), signals.pop())
        return step(display, env_steps)

    monkeypatch.setattr(display.Display, "step", interrupt_once)
    assert training.main(TINY) == 130
    directory = tmp_path / "runs" / "toy_ppo_s0"
    assert "--resume --run_dir runs/toy_ppo_s0" in capsys.readouterr().out
    assert checkpoint.steps(directory / "checkpoints") == [20]  # Brax's trainer stops after a learning phase
    stopped, taken, train = newest(directory), [], ppo.brax_ppo.train
    monkeypatch.setattr(
        ppo.brax_ppo, "train", lambda env, **kwargs: taken.append(kwargs["restore_params"]) or train(env, **kwargs)
    )
    assert training.main([*TINY, "--resume"]) == 0
    jax.tree.map(np.testing.assert_array_equal, taken[0], stopped.agent)
    assert [row["training/envsteps"] for row in read_metrics(directory / "metrics.csv")] == [40, 80, 120]
    straight, resumed = newest(finished / "runs" / "toy_ppo_s0"), newest(directory)
    count = 120  # observations that the statistics have seen, resumed or not
    assert int(straight.agent.normalizer.count) == int(resumed.agent.normalizer.count) == count
    assert (int(resumed.env_steps), int(resumed.gradient_steps)) == (120, 48)


@pytest.mark.slow
def test_a_checkpoint_is_evaluated(finished, capsys):
    assert evaluate.main([str(finished / "runs" / "toy_ppo_s0"), "--episodes", "4", "--step", "80"]) == 0
    out = capsys.readouterr().out
    assert "ppo in toy, 80 steps, 4 episodes" in out and "eval/episode_success_any" in out


@pytest.mark.slow
def test_the_evaluated_policy_is_the_mode_of_brax(finished):
    run, state = make_run(*read_flags(TINY)), newest(finished / "runs" / "toy_ppo_s0")
    agent = ppo.make_agent(run.agent_config, ppo_spec(run), normalize=True)
    observed, goal = jax.random.normal(jax.random.PRNGKey(0), (2, 5, 2))
    mode = agent.mode(state.agent, observed, goal)
    inputs = (np.concatenate([observed, goal], -1) - state.agent.normalizer.mean) / state.agent.normalizer.std
    for name in ("hidden_0", "hidden_1", "hidden_2"):
        layer = state.agent.policy["params"][name]
        inputs = inputs @ layer["kernel"] + layer["bias"]
        inputs = inputs if name == "hidden_2" else inputs / (1 + np.exp(-inputs))
    np.testing.assert_allclose(mode, np.tanh(inputs[:, :2]), rtol=1e-4, atol=1e-5)
    sampled = agent.act(state.agent, observed, goal, jax.random.PRNGKey(0))
    assert not np.allclose(sampled, mode) and (np.abs(sampled) <= 1).all()


def ppo_spec(run):
    from goalax.core.types import Spec

    return Spec.of(run.env, run.config.discounting)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*TINY, "--learning_rate", "1e38"]) == 1
    assert "Training stopped at 40 environment steps" in capsys.readouterr().err


@pytest.mark.slow
def test_another_size_is_no_checkpoint_of_the_run(finished, tmp_path, capsys):
    copy = shutil.copytree(finished / "runs" / "toy_ppo_s0", tmp_path / "run")
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace('"h_dim": 8', '"h_dim": 9'))
    assert evaluate.main([str(copy)]) == 2
    assert "does not fit the run" in capsys.readouterr().err


@pytest.mark.slow
def test_it_learns_to_reach(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--agent", "ppo", "--dense_reward", "--num_timesteps", "200000", "--num_evals", "2", "--vis_length", "0"]
    assert training.main(flags) == 0
    table = read_metrics(tmp_path / "runs" / "reacher_ppo_s0" / "metrics.csv")
    assert table[-1]["eval/episode_success_any"] > 0.8  # 0.92 here, 1.00 after 300k steps
