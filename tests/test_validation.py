"""Tests of validation: losses on the held-out file beside a dataset, which change nothing that is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import train as training
from goalax.core import buffer
from goalax.core.updates import HELD_OUT
from goalax.data import files, sources
from goalax.host.config import algorithm_of, read_flags
from goalax.host.loading import load
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.offline import ROWS, equal, walks
from tests.helpers.runs import RUN, rows

toy.register()

OFFLINE = ["--dataset", "data.npz", "--offline_steps", "50", "--num_timesteps", "0"]
GCBC = [*toy.BASELINE, "--agent", "gcbc", *OFFLINE, "--normalize_observations", "false"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data.npz and its validation set, to work in."""
    monkeypatch.chdir(tmp_path)
    files.write("data.npz", walks(0))
    files.write("data-val.npz", walks(1, episodes=7))
    return tmp_path


def columns(found):
    return {name for row in found for name in row if name.startswith("validation/")}


@pytest.mark.slow
def test_every_evaluation_has_them_and_training_is_as_without(here, capsys):
    flags = [*toy.TINY, *OFFLINE]
    assert training.main(flags) == 0
    assert "validating on data-val.npz" in capsys.readouterr().out
    found = rows(RUN)
    trained = {name.removeprefix("training/") for name in found[0] if name.startswith("training/")}
    assert columns(found) == {
        f"validation/{name}" for name in trained - {"offline_updates", "envsteps", "gradient_steps"}
    }
    assert all(np.isfinite(float(row[name])) for row in found for name in columns(found))
    with_file = load(RUN)[1]
    (here / "data-val.npz").unlink()
    assert training.main([*flags, "--exp_name", "without"]) == 0
    assert equal(load(RUN.with_name("without_s0"))[1], with_file)
    others = rows(RUN.with_name("without_s0"))
    assert not columns(others) and "validating" not in capsys.readouterr().out
    assert others == [{name: value for name, value in row.items() if name not in columns(found)} for row in found]


@pytest.mark.parametrize("updates", [20, 21])
@pytest.mark.slow
def test_delayed_actors_are_validated_on_held_out_samples_at_any_time(here, updates):
    """The same state on two files: with an actor that learns in every second update, its loss differs, too."""
    flags = ["--agent", "crl", "--policy_delay", "2", "--bc_weight", "0.1", "--repr_dim", "4"]
    run = make_run(*read_flags([*toy.BASELINE, *OFFLINE, *flags]))
    state = run.learn(run.start(), updates)
    held_out, trained = (sources.read(name, run.spec).ring for name in ("data-val.npz", "data.npz"))
    found = [run.train.offline.validate(state, ring) for ring in (held_out, trained)]
    for name in ("validation/actor_loss", "validation/log_density", "validation/critic_loss"):
        assert float(found[0][name]) != float(found[1][name])


def test_they_are_means_of_what_updates_on_held_out_samples_tell(here):
    run = make_run(*read_flags(GCBC))
    state = run.learn(run.start(), 20)
    ring = sources.read("data-val.npz", run.spec).ring
    agent = algorithm_of(run.config).make(run.agent_config, run.spec)
    choice_key, update_key = jax.random.split(jax.random.split(state.key, 6)[5])
    batch = run.sizes.batch_size
    held_out = jax.tree.map(jnp.asarray, ring)
    choice = buffer.choose(held_out, choice_key, HELD_OUT * batch, agent.needs, 0.99, ring.rows.reward.shape[0] - 1)
    found = []
    for i, key in enumerate(jax.random.split(update_key, HELD_OUT)):
        part = jax.tree.map(lambda leaf: leaf[batch * i : batch * (i + 1)], choice)  # noqa: B023
        found.append(agent.update(state.agent, buffer.gather(held_out, part, run.spec, agent.needs), key)[1])
    expected = {f"validation/{name}": np.mean([one[name] for one in found]) for name in found[0]}
    before = jax.device_get(state)
    values = run.validate(state)
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5, err_msg=name)
    assert equal(jax.device_get(state), before)
    assert run.validate(state).keys() <= run.evaluate(state).keys()


def test_they_tell_what_was_not_learned(here):
    """Of walks by the law of the dataset the loss falls as that of training does; of others it does not."""
    run = make_run(*read_flags([*GCBC, "--batch_size", "64", "--h_dim", "32"]))
    files.write("data-val.npz", walks(1, turn=np.pi))
    other = make_run(run.config, run.agent_config)
    assert np.array_equal(
        other.held_out["dataset"].rows.action, walks(1, turn=np.pi)["actions"][:, None].astype(np.float32)
    )
    files.write("data-val.npz", walks(1))
    state = run.start()
    (name,) = [name for name in run.validate(state) if name.endswith("loss")]
    first, first_other = (each.validate(state)[name] for each in (run, other))
    state = run.learn(state, 400)
    assert run.validate(state)[name] < first - 0.1
    assert other.validate(state)[name] > first_other


@pytest.mark.slow
def test_resume_has_the_rows_of_one_run(here):
    flags = [*GCBC, "--exp_name", "whole"]
    assert training.main([*flags, "--offline_steps", "74", "--num_evals", "3"]) == 0
    part = [*GCBC, "--exp_name", "part"]
    assert training.main([*part, "--offline_steps", "26", "--num_evals", "1"]) == 0
    more = ["--offline_steps", "74", "--num_evals", "3", "--resume"]
    assert training.main([*part, *more]) == 0
    whole, parts = (load(RUN.with_name(f"{name}_s0"))[1] for name in ("whole", "part"))
    assert equal(whole.agent, parts.agent)
    found, others = (rows(RUN.with_name(f"{name}_s0")) for name in ("whole", "part"))
    assert columns(found) == columns(others) != set()
    assert [others[-1][name] for name in columns(found)] == [found[-1][name] for name in columns(found)]


@pytest.mark.slow
def test_seeds_have_their_own(here):
    assert training.main([*GCBC, "--num_seeds", "2"]) == 0
    assert training.main([*GCBC, "--seed", "1", "--exp_name", "alone"]) == 0
    first, second = (rows(f"runs/toy_gcbc_s{seed}")[-1] for seed in (0, 1))
    alone = rows("runs/alone_s1")[-1]
    for name in columns([alone]):
        assert first[name] != second[name]
        np.testing.assert_allclose(float(second[name]), float(alone[name]), rtol=1e-3)


def test_a_file_that_does_not_fit_is_one_sentence(here, capsys):
    files.write("data-val.npz", walks(1) | {"observations": np.zeros((30 * ROWS, 3))})
    assert training.main(GCBC) == 2
    error = capsys.readouterr().err
    assert "data-val.npz has observations of shape [330, 3]" in error and error.count("\n") == 1
    assert not (here / "runs").exists()
