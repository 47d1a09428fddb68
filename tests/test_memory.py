"""Tests of the prediction of memory: against what XLA reports, on devices, and the sentence on what to lower."""

import jax
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.host import memory
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy

toy.register()
MIB = 2**20


def predicted(*flags):
    return memory.predict(make_run(*read_flags([*toy.TINY, *flags])))


def test_the_state_is_what_xla_takes_once():
    run = make_run(*read_flags([*toy.TINY, "--max_replay_size", "4000"]))
    state, count = jax.eval_shape(run.train.init, np.zeros(2, np.uint32)), jax.ShapeDtypeStruct((), np.int32)
    program = run.train.advance.lower(state, count, count).compile().memory_analysis()
    parts = memory.predict(run)
    in_place = parts["buffer"] / 2 + parts["environments"] / 2 + parts["agent"] / 2  # the copy of a checkpoint aside
    assert in_place == pytest.approx(program.argument_size_in_bytes, rel=0.01)
    assert program.alias_size_in_bytes == pytest.approx(program.argument_size_in_bytes, rel=0.01)
    everything = program.argument_size_in_bytes + program.temp_size_in_bytes
    assert sum(parts.values()) - parts["buffer"] / 2 - parts["agent"] / 2 <= everything


def test_what_grows_with_what():
    base = predicted()
    assert predicted("--max_replay_size", "80")["buffer"] == pytest.approx(2 * base["buffer"], rel=0.01)
    assert predicted("--num_seeds", "3") == {name: 3 * size for name, size in base.items()}
    assert predicted("--num_envs", "8")["environments"] == 2 * base["environments"]
    assert predicted("--batch_size", "800")["batch"] > 5000 * base["batch"]


def test_devices_share_the_buffer_but_not_the_agent(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    one, two = (predicted("--num_devices", number) for number in ("1", "2"))
    assert two["buffer"] == pytest.approx(one["buffer"] / 2, rel=0.01)
    assert two["agent"] == one["agent"]
    seeds = predicted("--num_devices", "2", "--num_seeds", "2")
    assert seeds == one


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--max_replay_size 1e6", "--max_replay_size is 1000000; it must be at most about 3"),
        ("--max_replay_size 1e6 --min_replay_size 9e5 --num_timesteps 1e8", "--num_envs is 4; it must be at most"),
        ("--max_replay_size 2e5 --min_replay_size 19e4 --num_timesteps 1e8 --num_seeds 9", "--num_seeds is 9; it must"),
        (
            "--max_replay_size 9e6 --min_replay_size 9e6 --num_timesteps 1e8",
            "--max_replay_size is 9000000; lower it and",
        ),
        ("--batch_size 16384", "--batch_size is 16384; it must be at most about "),
        ("--num_envs 1e6 --num_timesteps 1e9 --utd_ratio 1e-6", "--num_envs is 1000000; it must be at most about "),
        ("--h_dim 4096 --n_hidden 2 --num_seeds 3", "--num_seeds is 3; it must be at most about 1"),
    ],
)
def test_what_cannot_fit_is_one_sentence(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 1200 * MIB if "h_dim" in flags else 100 * MIB)
    assert training.main([*toy.TINY, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


def test_the_value_that_is_named_fits(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 100 * MIB)
    with pytest.raises(memory.FlagError) as error:
        memory.check(make_run(*read_flags([*toy.TINY, "--max_replay_size", "1e6"])))
    fits = str(error.value).split("about ")[1].split(",")[0]
    memory.check(make_run(*read_flags([*toy.TINY, "--max_replay_size", str(int(fits) - 5)])))


@pytest.mark.parametrize(
    ("line", "top", "names"),
    [
        ("0::/job/step", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/job/step",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_a_container_has_what_its_groups_leave(tmp_path, line, top, names):
    own = tmp_path / "cgroup"
    own.write_text(f"9:cpu:/job\n{line}\n")
    groups = tmp_path / "groups"
    for path, limit, used, cached in (("job/step", "max", 10, 0), ("job", "1000", 300, 50), ("", "5000", 400, 0)):
        group = groups / top / path
        group.mkdir(parents=True, exist_ok=True)
        for name, text in zip(names, (limit, used, f"anon 3\n{names[2]} {cached}"), strict=True):
            (group / ("memory.stat" if name == names[2] else name)).write_text(f"{text}\n")
    assert sorted(memory.left_in_groups(groups, own)) == [750, 4600]
    own.write_text(line.replace("/job/step", "/of/the/host"))  # whose groups are not seen here
    assert list(memory.left_in_groups(groups, own)) == [4600]
    assert (
        list(memory.left_in_groups(tmp_path / "none", own)) == [] == list(memory.left_in_groups(groups, groups / "x"))
    )


def test_a_group_with_less_than_the_host_decides(monkeypatch):
    monkeypatch.setattr(memory, "left_in_groups", lambda: iter([100 * MIB, 200 * MIB]))
    assert memory.available() == 100 * MIB


def test_there_is_memory():
    assert 100 * MIB < memory.available() < 2**50
