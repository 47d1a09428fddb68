"""What `goalax benchmark --profile` counts of a train step, and the speeds that are predicted from such counts."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.commands import benchmark
from goalax.commands import scale as scale_command
from goalax.speed import roofline, scale
from tests.helpers import ROOT, toy
from tests.helpers.benchmarks import ARGV

toy.register()


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """What --profile of a toy run writes and prints."""
    out = tmp_path_factory.mktemp("profile") / "results.json"
    flags = ["--repeats", "2", "--profile", "--out", str(out), "--trace", str(out.with_name("trace"))]
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.Toy, "compiler_options", {})  # the programs that people run are optimised
        assert benchmark.main([*ARGV, *flags]) == 0
    assert len(list((out.with_name("trace") / "plugins" / "profile").rglob("*.xplane.pb"))) == 1  # where xprof looks
    return json.loads(out.read_text())["results"][0], printed.getvalue()


@pytest.mark.slow
def test_the_profile_counts_what_a_train_step_runs(profiled):
    result, printed = profiled
    assert set(result["phases"]) == set(roofline.PHASES) and all(row in printed for row in roofline.ROWS)
    assert all(phase["kernels"] > 0 for phase in result["phases"].values())
    *parts, whole = (np.array(result["seconds"][name]["samples"]) for name in roofline.ROWS)
    np.testing.assert_allclose(whole, sum(parts))
    # One step of all environments per row, and the updates' matrix products in the whole step as in one update alone.
    assert result["phases"]["physics"]["kernels"] % 5 == 0
    assert result["times"] == {"physics": 5, "updates": 2}
    assert result["kinds"]["matmul"]["kernels"] >= 2 * result["programs"]["updates"]["kernels"]["matmul"]["kernels"]


@pytest.mark.slow
def test_the_profile_counts_flops_and_bytes_of_an_update(profiled):
    update = profiled[0]["programs"]["updates"]
    # CRL by hand, batch 8, width 8, one hidden layer: encoders of state and action (4) and of goals (2), an actor (4).
    phi, psi, actor = 4 * 8 + 8 * 4, 2 * 8 + 8 * 4, 4 * 8 + 8 * 4
    hidden = 8 * 4 + 8 * 4 + 8 * 4  # the only layers whose inputs have gradients, once each
    critic = 2 * (phi + psi) + actor + actor  # forward, and gradients of the weights
    value = phi + 8 * 4 + 2 * 8  # the critic again, and back to the actions: of a first layer, their rows alone
    logits = 3 * 8 * 4  # and their gradients with respect to both sides
    assert 0.8 < update["matmul_flops"] / (2 * 8 * (critic + hidden + value + logits)) < 1.2
    assert update["matmul_flops"] < update["flops"]
    assert 0 < update["bytes_in_and_out"] < update["bytes"]
    achieved = np.array(update["matmul_flops_per_second"]["samples"])
    np.testing.assert_allclose(achieved * update["seconds"]["samples"], update["matmul_flops"])


def test_matmul_flops_of_known_shapes():
    def function(x, w):
        x = jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x)  # a scan, as its length is known
        return jax.jit(jnp.einsum, static_argnums=0)("bi,ci->bc", x, x)

    jaxpr = jax.make_jaxpr(function)(jnp.ones((2, 3)), jnp.ones((3, 3)))
    assert roofline.matmul_flops(jaxpr) == 5 * 2 * 2 * 3 * 3 + 2 * 2 * 2 * 3

    def branches(x, due):
        return jax.lax.cond(due, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert roofline.matmul_flops(jax.make_jaxpr(branches)(jnp.ones((3, 3)), True)) == 2 * 2 * 3 * 3 * 3


def test_kernels_are_found_in_loops_and_have_kinds_and_phases():
    @jax.jit
    def update(x):
        return jnp.sin(x @ x) / 10

    def advance(x, rounds):
        return jax.lax.fori_loop(0, rounds, lambda _, x: update(x), jnp.cos(x))

    compiled = jax.jit(advance).lower(jnp.ones((64, 64)), 1).compile()
    program = roofline.Program(compiled)
    found = roofline.traced(program, lambda: jax.block_until_ready(compiled(jnp.ones((64, 64)), 7)))
    phases, kinds = roofline.by(program.phases, found), roofline.by(program.kinds, found)
    assert set(phases) == {"updates", roofline.DRAWS} and kinds["matmul"]["kernels"] == 7


def counts(**changes):
    """Made-up counts of 10 environments whose steps take 100 kernels, and of an update per 10 steps."""
    small = {"kernels": 100, "flops": 1e6, "bytes": 1e6}
    given = {"num_envs": 10, "unroll_length": 5, "updates_per_step": 0.1, "physics": small, "update": small}
    return scale.Counts(**{**given, "others": 0.0, "buffer_bytes": 1e6, "agent_bytes": 3e6, **changes})


def test_a_prediction_by_hand():
    machine = scale.Machine(launch=1e-5)
    speed, bottleneck = scale.predict(counts(), 10, 1, 1, machine)
    assert speed == pytest.approx(50 / (5 * 1e-3 + 5 * 1e-3)) and "launches" in bottleneck
    assert scale.predict(counts(), 10, 4, 1, machine).steps_per_second == pytest.approx(
        4 * speed
    )  # they share launches
    shared = scale.predict(counts(), 10, 1, 2, machine).steps_per_second
    exchange = scale.EXCHANGES * 20e-6 + 2 * 1e6 / 300e9
    assert shared == pytest.approx(50 / (5 * 1e-3 + 5 * (1e-3 + exchange)))


def test_a_prediction_names_the_first_bottleneck():
    huge = {"kernels": 1, "flops": 1e15, "bytes": 1e6}
    assert scale.predict(counts(update=huge), 10, 1, 1).bottleneck == "arithmetic of the updates"
    wide = {"kernels": 1, "flops": 1.0, "bytes": 1e12}
    assert scale.predict(counts(physics=wide), 10, 1, 1).bottleneck == "memory bandwidth of the physics"
    full = scale.predict(counts(buffer_bytes=1e10), 10, 1, 1)
    assert full == (0.0, "memory: 100 GB a GPU")
    assert scale.predict(counts(buffer_bytes=1e10), 10, 1, 2).steps_per_second > 0
    assert scale.predict(counts(), 10, 1, 3).bottleneck == "does not divide"


def test_the_table_of_predictions_is_that_of_the_docs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert scale_command.main([]) == 0
    assert capsys.readouterr().out.strip() in (ROOT / "docs" / "scale.md").read_text()


def test_what_is_no_profile_is_one_sentence(tmp_path, capsys):
    path = tmp_path / "none.json"
    assert scale_command.main(["--profile", str(path)]) == 2
    path.write_text('{"results": [{}]}')
    assert scale_command.main(["--profile", str(path)]) == 2
    path.write_text('{"results": [{"flags": {"num_seeds": 4, "action_repeat": 1}}]}')
    assert scale_command.main(["--profile", str(path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "cannot be read: No such file" in errors[0] and "it must be a file of" in errors[1]
    assert "of a run with --num_seeds above 1; it must be 1." in errors[2]
