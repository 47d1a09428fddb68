"""Tests of runs on several devices: equal to one device, nothing large moves, resume, and what does not divide."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.core import rollout, sharding
from goalax.core.sharding import make_mesh
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.host.runs import read_metrics
from tests.helpers import ROOT, toy
from tests.helpers.runs import assert_equal_runs

toy.register()
COLLECTIVE = re.compile(r"= (.*?) (?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
TINY = [*toy.TINY, "--checkpoint_interval", "0"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder with runs of seeds 0 and 1 on one device."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert training.main([*TINY, "--num_seeds", "2"]) == 0
    return folder / "runs"


def test_two_devices_share_the_environments_of_a_seed(alone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*TINY, "--num_devices", "2"]) == 0
    assert "4 environments on 2 devices" in capsys.readouterr().out
    assert_equal_runs(Path("runs/toy_crl_s0"), alone / "toy_crl_s0")


@pytest.mark.slow
def test_eight_devices_share_two_seeds(alone, tmp_path):
    code = f"{toy.START} train.main({[*TINY, '--num_seeds', '2']} + "
    code += "['--num_devices', '8'])"
    flags = re.sub(r"(device_count)=\d+", r"\1=8", os.environ["XLA_FLAGS"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True)
    for name in ("toy_crl_s0", "toy_crl_s1"):
        assert_equal_runs(tmp_path / "runs" / name, alone / name)


def moved(num_seeds):
    """Sizes of everything that two devices exchange in training, and of a seed's buffer, in entries."""
    run = make_run(
        *read_flags([*TINY, "--num_devices", "2", "--num_seeds", str(num_seeds), "--max_replay_size", "400"])
    )
    keys = np.zeros((num_seeds, 2) if num_seeds > 1 else 2, np.uint32)
    state, count = jax.eval_shape(run.train.init, keys), jax.ShapeDtypeStruct((), np.int32)
    program = run.train.advance.lower(state, count, count).compile().as_text()
    shapes = [shape for result in COLLECTIVE.findall(program) for shape in re.findall(r"\[([\d,]*)\]", result)]
    sizes = [np.prod([int(size) for size in shape.split(",") if size], initial=1) for shape in shapes]
    return sizes, state.buffer.rows.reward.size // num_seeds


def test_the_buffer_stays_where_it_is():
    sizes, rows = moved(num_seeds=1)
    assert rows == 1600  # 4 candidates for each of the 8 samples of 2 updates are the most that moves
    assert 0 < max(sizes) <= 4 * 2 * 8


def test_seeds_have_nothing_to_tell_each_other():
    assert moved(num_seeds=2)[0] == []


def test_seeds_apart_have_goals_commanded_from_rows_of_their_own():
    """Each seed has its own row; no mesh takes it as a constant of what a device does alone."""
    mesh, commands = make_mesh(2, jax.devices()[:2]), rollout.Commands(lambda key, num: jnp.full((num, 2), 9.0), 5)
    still = rollout.memoryless(lambda state, goal, key: jnp.zeros((len(state), 2)))

    def one(key, row):
        envs, sizes = rollout.init(toy.Toy(), key, 4), {"length": 5, "episode_length": 2, "action_repeat": 1}
        return rollout.unroll(toy.Toy(), still, envs, row, key, **sizes, commands=commands)[1].goal

    of_seeds = jax.vmap(sharding.within(mesh, one), spmd_axis_name=sharding.SEED)
    keys = jnp.stack([jax.random.PRNGKey(seed) for seed in range(2)])
    goals = jax.jit(of_seeds, in_shardings=sharding.everywhere(mesh))(keys, jnp.array([4, 5], jnp.int32))
    assert [bool((of_seed[-1] == 9).all()) for of_seed in np.asarray(goals)] == [False, True]


def test_seeds_are_spread_first():
    devices = jax.devices()
    assert make_mesh(1, devices[:1]) is None
    assert [dict(make_mesh(seeds, devices).shape) for seeds in (1, 2, 3, 4)] == [
        {"seed": 1, "env": 2},
        {"seed": 2, "env": 1},
        {"seed": 1, "env": 2},
        {"seed": 2, "env": 1},
    ]


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [("2", "1"), ("1", "2")])
def test_a_run_is_resumed_on_another_number_of_devices(numbers, alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, after = numbers
    directory = Path("runs/toy_crl_s0")
    shorter = ["--num_timesteps", "100", "--num_evals", "2"]
    assert training.main([*toy.TINY, *shorter, "--num_devices", before]) == 0
    assert training.main([*toy.TINY, "--num_devices", after, "--resume"]) == 0
    assert [row["training/envsteps"] for row in read_metrics(directory / "metrics.csv")] == [80, 100, 120]
    assert_equal_runs(directory, alone / "toy_crl_s0", slice(2, 3))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--num_devices 3", ["--num_devices is 3", "at most 2"]),
        ("--num_devices 2 --num_envs 5", ["--num_envs is 5", "a multiple of 2", "4 and 6"]),
        ("--num_devices 2 --num_eval_envs 1", ["--num_eval_envs is 1", "nearest: 2)"]),
        ("--num_devices 2 --num_seeds 3 --batch_size 9", ["--batch_size is 9", "8 and 10"]),
    ],
)
def test_what_does_not_divide_is_one_sentence(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*toy.TINY, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error
    assert not list(tmp_path.iterdir())


def test_seeds_need_no_even_sizes():
    config = make_run(*read_flags([*toy.TINY, "--num_devices", "2", "--num_seeds", "2", "--num_envs", "5"])).config
    assert config.num_devices == 2


def test_the_default_takes_all_accelerators_that_divide_the_sizes(monkeypatch):
    from goalax.host import devices

    config = make_run(*read_flags(toy.TINY)).config
    assert config.num_devices == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    sizes = {name: getattr(config, name) for name in ("num_eval_envs", "batch_size")}
    asked = ((1, 4), (2, 4), (8, 5), (6, 5), (1, 5))
    assert [devices.choose(None, seeds, {**sizes, "num_envs": envs}) for seeds, envs in asked] == [4, 8, 8, 6, 1]
