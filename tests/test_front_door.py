"""`import goalax`: the public names, training from Python, policies without a run directory, and the same sentences."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import goalax
from goalax import cli
from goalax.commands import train as training
from goalax.host import checkpoint
from goalax.host.checkpoint import SaveError
from goalax.host.lock import only_writer
from tests.helpers import toy
from tests.helpers.benchmarks import raising

toy.register()

SIZES = dict(num_envs=4, num_eval_envs=4, unroll_length=5, utd_ratio=0.1, min_replay_size=10, max_replay_size=40)
SIZES |= dict(batch_size=8, vis_length=0, num_timesteps=120, h_dim=8, n_hidden=1, repr_dim=4)


@pytest.fixture(scope="module")
def run():
    return goalax.make("toy", agent="crl", **SIZES)


def test_every_public_name_is_there():
    assert set(goalax.__all__) == set(dir(goalax)) and goalax.__version__
    for name in goalax.__all__:
        assert getattr(goalax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'mak'"):
        goalax.mak  # noqa: B018


def test_import_and_the_list_of_commands_need_no_jax():
    code = "import sys, goalax, goalax.cli; goalax.cli.main(['--help']); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_training_from_python(run):
    state = run.start(seed=3)
    before = run.evaluate(state)
    state = run.advance(state, 2)
    after = run.evaluate(state)
    assert set(before) == set(after) and 0 <= after["eval/time_at_goal"] <= 1
    assert np.isfinite(after["training/critic_loss"]) and isinstance(after["eval/final_dist"], float)
    assert int(state.env_steps) == (run.sizes.prefill_unrolls + 2) * run.sizes.steps_per_unroll


def test_it_trains_as_the_command_line_does(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training.main([*toy.TINY, "--num_evals", "1", "--seed", "3"]) == 0
    state = run.advance(run.start(seed=3), run.sizes.train_steps(120))
    rows = (tmp_path / "runs/toy_crl_s3/metrics.csv").read_text().splitlines()
    table = dict(zip(rows[0].split(","), map(float, rows[1].split(",")), strict=True))
    for name, value in run.evaluate(state).items():
        np.testing.assert_allclose(value, table[name], rtol=1e-6, err_msg=name)


def test_a_state_is_saved_and_restored(run, tmp_path, monkeypatch):
    state = run.advance(run.start(), 1)
    folder = run.save(state, tmp_path / "saved")
    again = run.restore(folder)
    with pytest.raises(goalax.FlagError, match="There is another run in .*saved: save into a directory of its own"):
        goalax.make("toy", agent="crl", **{**SIZES, "h_dim": 16}).save(state, folder)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    other = again._replace(agent=jax.tree.map(lambda leaf: leaf + 1, again.agent))
    run.save(other, folder)  # of as many steps
    for a, b in zip(jax.tree.leaves(run.restore(folder)), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(list(folder.glob("checkpoints/*.earlier"))) == 1
    with monkeypatch.context() as failing, pytest.raises(SaveError):
        failing.setattr(checkpoint, "save", raising(SaveError("full")))
        run.save(state, folder)
    for a, b in zip(jax.tree.leaves(run.restore(folder)), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)  # as it was
    with only_writer([folder]), pytest.raises(goalax.FlagError, match="A training writes into .*saved already"):
        run.save(other, folder)
    with pytest.raises(goalax.FlagError, match="There is another run in"):
        goalax.make("toy", agent="crl", seed=4, **SIZES).save(state, folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"command": ["once"], "resumed": [{"device": "a"}]}))
    run.save(other, folder)
    kept = json.loads((folder / "config.json").read_text())
    assert kept["command"] == ["once"] and kept["resumed"] == [{"device": "a"}]
    one, other = run.advance(state, 1), run.advance(again, 1)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_policy_outlives_its_run_directory(run, tmp_path):
    state = run.start()
    run.save(state, tmp_path / "saved")
    policy = goalax.load(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved")
    states, goals = np.random.default_rng(0).uniform(-1, 1, (2, 7, 2)).astype(np.float32)
    action = policy(states, goals)
    assert action.shape == (7, 2) and np.all(np.abs(action) <= 1)
    np.testing.assert_allclose(policy(states[0], goals[0]), action[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.policy(state)(states, goals), action, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"Expected states \[..., 2\] and goals \[..., 2\]"):
        policy(states, goals[:3])


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ({"agent": "crll"}, ["--agent", "crll"]),
        ({"env_name": "toyy"}, ["--env_name", "toyy"]),
        ({"num_env": 4}, ["--num_env", "4"]),
        ({"discounting": 2.0}, ["--discounting", "2.0"]),
        ({"batch_size": 0}, ["--batch_size", "0"]),
        ({"zeta": 0.1}, ["--zeta", "0.1"]),
        ({"energy_fn": "l3"}, ["--energy_fn", "l3"]),
        ({"min_replay_size": 5}, ["--min_replay_size", "5"]),
        ({"agent": "ppo", "batch_size": 8}, ["--agent", "ppo", "--batch_size", "8"]),
    ],
)
def test_the_sentences_of_the_command_line(flags, argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {**SIZES, **flags} if "agent" not in flags else flags
    base = toy.TINY if "agent" not in flags else []
    with pytest.raises(goalax.FlagError) as error:
        goalax.make(**{"env_name": "toy", **given})
    assert training.main([*base, *argv]) == 2
    assert capsys.readouterr().err == f"training.py: {error.value}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"num_envs": "4"}, "--num_envs is '4'; it must be a whole number."),
        ({"num_envs": 4.5}, "--num_envs is 4.5; it must be a whole number."),
        ({"use_ln": "false"}, "--use_ln is 'false'; it must be true or false."),
        ({"discounting": None}, "--discounting is None; it must be a finite number."),
        ({"discounting": 10**400}, "--discounting is 1e400 or more; it must be a finite number."),
        ({"batch_size": 10**5000}, "--batch_size is 1e5000 or more; it must be at most 10,000,000."),
        ({"batch_size": -(10**5000)}, "--batch_size is -1e5000 or more; it must be at least 2."),
        ({"discounting": float("nan")}, "--discounting is nan; it must be a finite number."),
        ({"exp_name": 3}, "--exp_name is 3; it must be text."),
    ],
)
def test_wrong_types(flags, words):
    with pytest.raises(goalax.FlagError) as error:
        goalax.make("toy", **{**SIZES, **flags})
    assert str(error.value) == words


def test_several_seeds_have_metrics_each():
    run = goalax.make("toy", num_seeds=2, **SIZES)
    metrics = run.evaluate(run.advance(run.start(), 1))
    assert metrics["eval/final_dist"].shape == (2,)
    with pytest.raises(goalax.FlagError, match="--num_seeds is 2; `save` takes"):
        run.save(run.start(), "nowhere")


@pytest.mark.parametrize("argv", [["trian"], ["--nope"]])
def test_an_unknown_command_lists_the_others(argv, capsys):
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(name in error for name in cli.COMMANDS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"goalax {goalax.__version__}\n"


def test_commands_speak_by_their_own_name(capsys):
    assert cli.main(["evaluate"]) == 2
    assert capsys.readouterr().err.startswith("goalax evaluate: It takes one run directory")
