"""Tests of scripts/benchmark.py: the measuring functions at toy size, the results as printed and as written."""

import contextlib
import csv
import dataclasses
import io
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import benchmark, speed
from goalax.commands import scale as scale_command
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.speed import benchmark as measuring
from goalax.speed import cost_curves, roofline, scale
from goalax.speed.stepping import BRAX_NAMES
from goalax.study import markdown
from tests.helpers import ROOT, toy

toy.register()

PARTS = ("env_only", "updates_only", "end_to_end")
ARGV = [*toy.TINY, "--seconds", "0.02"]


class FakePart:
    """Every round does `work` and takes `seconds`."""

    def __init__(self, work, seconds):
        self.work, self.seconds, self.spent = work, seconds, 0.0

    def run(self, rounds):
        started = time.perf_counter()
        time.sleep(rounds * self.seconds)  # or longer, where other programs run
        self.spent += time.perf_counter() - started


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.table)], ids=["one_seed", "two_seeds"])
def result(request, tmp_path_factory):
    """What the benchmark of a toy run writes."""
    out = tmp_path_factory.mktemp("benchmark") / "results.json"
    argv = [*ARGV, "--repeats", "2", "--num_seeds", str(request.param), "--offline", "--out", str(out)]
    assert benchmark.main(argv) == 0
    written = json.loads(out.read_text())
    assert len(written["results"]) == 1
    assert written["machine"]["cores"] >= 1 and written["machine"]["versions"]["jax"]
    return written["results"][0]


@pytest.mark.parametrize("name", [*PARTS, "offline_updates", "limit", "efficiency"])
def test_every_rate_is_positive_and_has_its_spread(result, name):
    rates = result[name]
    assert len(rates["samples"]) == 2
    assert 0 < rates["min"] == min(rates["samples"]) <= rates["median"] <= rates["max"] == max(rates["samples"])


def test_limit_and_efficiency_compare_samples_of_one_repeat(result):
    env_only, updates_only, end_to_end = (np.array(result[name]["samples"]) for name in PARTS)
    limit = 1 / (1 / env_only + result["updates_per_step"] / updates_only)
    np.testing.assert_allclose(result["limit"]["samples"], limit)
    np.testing.assert_allclose(result["efficiency"]["samples"], end_to_end / limit)


def test_updates_per_step_is_the_ratio_asked_for(result):
    assert result["updates_per_step"] == result["flags"]["utd_ratio"] == 0.1


def test_compile_times_memory_and_flags(result):
    assert set(result["compile_seconds"]) == {*PARTS, "offline_updates"} and min(result["compile_seconds"].values()) > 0
    # 40 rows of 4 environments: state, goal and action of size 2, reward, terminal, episode start; and the row count.
    num_seeds = result["flags"]["num_seeds"]
    assert result["bytes"]["buffer"] == num_seeds * 4 * (40 * 4 * 9 + 1)
    assert result["bytes"]["host_peak"] > 2**20
    assert result["flags"]["env_name"] == "toy" and result["agent_flags"]["h_dim"] == 8


def test_the_table_shows_every_rate(result, capsys):
    benchmark.show(result)
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*PARTS, "limit", "efficiency", "buffer", "program", "crl on toy"))


@pytest.mark.parametrize("seconds", [0.001, 0.05])
def test_rate_measures_long_enough(seconds):
    part = FakePart(work=10, seconds=0.004)
    assert 0 < measuring.rate(part, seconds) <= 10 / 0.004
    assert part.spent >= 0.5 * seconds


def test_sample_on_parts_of_known_speed():
    parts = {
        "env_only": FakePart(work=1000, seconds=0.01),
        "updates_only": FakePart(work=1, seconds=0.01),
        "end_to_end": FakePart(work=1000, seconds=0.04),
    }
    config = measuring.BenchmarkFlags(seconds=0.1)
    rates = measuring.sample(parts, config, updates_per_step=0.001)
    # A thousand steps and one update take 10 ms each, together 40 ms: half the limit.
    assert rates["limit"] == pytest.approx(1000 / 0.02, rel=0.3)
    assert rates["efficiency"] == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("name", ["toy", pytest.param("reacher", marks=pytest.mark.table)])
def test_all_envs_measures_them_against_those_of_brax(name, tmp_path, capsys):
    out = tmp_path / "results.json"
    argv = [*ARGV, "--repeats", "2", "--all_envs", "--env_match", f"^{name}$"]
    argv += ["--episode_length", "10", "--num_timesteps", "100_000"]
    with jax.numpy_rank_promotion("allow"):
        assert benchmark.main([*argv, "--json", str(out)]) == 0
    results = json.loads(out.read_text())["results"]
    assert [(result["env_name"], result["num_envs"]) for result in results] == [(name, 64), (name, 512)]
    printed = capsys.readouterr().out.splitlines()
    for result, line in zip(results, printed[-2:], strict=True):
        assert f"{result['steps']['median']:,.0f}" in line
        assert ("brax" in result) == ("ratio" in result) == (name in BRAX_NAMES)
        if "brax" in result:
            ratios = np.array(result["steps"]["samples"]) / result["brax"]["samples"]
            np.testing.assert_allclose(result["ratio"]["samples"], ratios)
            assert f"{result['brax']['median']:,.0f}" in line and f"{result['ratio']['median']:.2f}" in line


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--all_envs", "--env_match", "mars"], "benchmark.py: --env_match is 'mars'; it must match"),
        (["--repeats", "0"], "benchmark.py: --repeats is 0; it must be at least 1."),
        (["--seconds", "soon"], "benchmark.py: --seconds is 'soon'; it must be"),
        (["--second", "1"], "benchmark.py: Unknown flag --second; did you mean --seconds"),
        (["--agent", "dqn"], "benchmark.py: --agent is 'dqn'; choose from: "),
        (["--env_name", "moon"], "benchmark.py: --env_name is 'moon'; choose from: "),
        (["--backend", "warp"], "benchmark.py: --backend is 'warp' with --env_name toy: "),
        (["--trace", "t"], "benchmark.py: --trace is that of a --profile; give both."),
        (["--profile", "--curve", "h_dim"], "benchmark.py: --profile and --curve are two measurements; give one"),
        (["--env_match", "ant"], "benchmark.py: --env_match is that of --all_envs; give both."),
        (["--profile", "--offline"], "benchmark.py: --offline is that of a run; --profile has none."),
        (["--values", "1,2"], "benchmark.py: --values are those of a --curve; name its flag."),
        (["--curve", "seed"], "benchmark.py: --curve is 'seed'; choose from: "),
        (["--curve", "num_envs", "--values", "1,many"], "benchmark.py: --values is 'many'; it must be a whole number."),
        (
            ["--curve", "num_envs", "--values", "0"],
            "benchmark.py: No value of --num_envs can run here; 0: --num_envs is",
        ),
        (["--curve", "h_dim", "--out", "x.png"], "benchmark.py: --out is 'x.png'; with --curve it must end in .json"),
        (["--out", "no/such/directory/x.json"], "benchmark.py: --out is 'no/such/directory/x.json'; it must name"),
    ],
)
def test_a_bad_flag_ends_with_one_sentence_and_exit_code_2(argv, sentence, capsys):
    assert benchmark.main([*ARGV, *argv]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence) and printed.err.count("\n") == 1
    assert not printed.out


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


@pytest.mark.slow
def test_a_curve_over_what_the_agent_does_not_have_is_one_sentence():
    with pytest.raises(FlagError, match="^--curve is 'n_hidden', which --agent dt does not have.$"):
        cost_curves.values_of(measuring.BenchmarkFlags(agent="dt", curve="n_hidden"), AGENTS["dt"].config())


def test_a_curve_has_a_row_per_value_and_names_its_gaps(tmp_path, monkeypatch, capsys):
    largest = 2**22
    monkeypatch.setattr(cost_curves, "device_bytes", lambda: largest)
    out = tmp_path / "curve.json"
    argv = ["--curve", "max_replay_size", "--values", "80,5,40,100_000", "--repeats", "2", "--out", str(out)]
    assert benchmark.main([*ARGV, *argv]) == 0
    content = json.loads(out.read_text())
    rows = content["results"]
    assert [row["value"] for row in rows] == [5, 40, 80, 100_000]
    assert rows[0]["gap"].startswith("--max_replay_size is 5; it must be at least one episode")
    assert rows[3]["gap"].startswith("It needs ") and not any(row["gap"] for row in rows[1:3])
    for row in (rows[0], rows[3]):
        assert row["steps_per_second"] is None
    for row in rows[1:3]:
        assert 0 < row["min"] <= row["steps_per_second"] <= row["max"] and row["updates_per_step"] == 0.1
        assert 0 < row["program_mib"] < largest / 2**20 and row["compile_seconds"] > 0
    assert rows[2]["program_mib"] - rows[1]["program_mib"] == pytest.approx(40 * 4 * 36 / 2**20, rel=0.05)
    assert content["command"][0] == "benchmark.py" and content["machine"]["device"]
    with out.with_suffix(".csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["gap"] for row in table] == [row["gap"] for row in rows]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "It needs " in capsys.readouterr().out


def test_the_values_of_a_curve_surround_those_of_the_run():
    config, agent_config = read_flags(ARGV[:-2])
    for curve, values in {"num_envs": [1, 2, 4, 8, 16], "num_seeds": [1, 2, 4], "h_dim": [2, 4, 8, 16, 32]}.items():
        asked = measuring.BenchmarkFlags(**{**dataclasses.asdict(config), "curve": curve})
        assert cost_curves.values_of(asked, agent_config) == values


def test_a_gap_that_shows_while_it_runs(monkeypatch, tmp_path):
    class Failing(FakePart):
        work, bytes, compile_seconds = 1, 2**20, 1.0

        def __init__(self, value):
            super().__init__(work=1, seconds=0.001)
            self.value = value

        def start(self):
            if self.value == 2:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nby a lot")

        def stop(self):
            pass

    monkeypatch.setattr(cost_curves, "measured_at", lambda config, agent_config, value, say: (Failing(value), 0.1))
    config = measuring.BenchmarkFlags(curve="num_seeds", values="1,2", seconds=0.01, repeats=2)
    rows = cost_curves.measure(config, None, lambda words: None)
    assert [row["gap"] for row in rows] == ["", "RESOURCE_EXHAUSTED: Out of memory"]
    cost_curves.draw(rows, "num_seeds", "title", tmp_path / "curve.png")
    assert rows[0]["steps_per_second"] > 0 and rows[1]["steps_per_second"] is None


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


# ---- the table of speeds ---------------------------------------------------------------------------------------------


@pytest.fixture
def speed_document(tmp_path, monkeypatch):
    """A folder with a document that has a place for the table, and toy sizes; memory is not measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "peak_memory", lambda env_name, sizes: 3 * 2**20)
    (tmp_path / "d.md").write_text("before\n" + "".join(markdown.marks("speed", "speed.py")) + "after\n")
    sizes = " ".join(toy.TINY[toy.TINY.index("--num_envs") :])
    argv = ["--env_names", "toy", "--seconds", "0.02", "--repeats", "2", "--keep", "k.json", "--out", "d.md"]
    return lambda *more: speed.main([*argv, *more], sizes=sizes)


@pytest.mark.slow
def test_every_call_adds_an_hour_to_the_table_of_speeds(speed_document):
    assert speed_document() == speed_document() == 0
    calls = json.loads(Path("k.json").read_text())
    assert len(calls) == 2 and all(len(call["results"]["toy"]["samples"]) == 2 for call in calls)
    text = Path("d.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and text.count("| `toy` |") == 1
    rates = sorted(row["end_to_end"] for call in calls for row in call["results"]["toy"]["samples"])
    assert f"({rates[0]:,.0f} to {rates[-1]:,.0f})" in text and "3 MiB" in text
    assert speed_document("--tables") == 0
    assert Path("d.md").read_text() == text and len(json.loads(Path("k.json").read_text())) == 2


def test_a_document_without_a_place_for_the_speeds_is_one_sentence(speed_document, capsys):
    Path("d.md").write_text("nothing\n")
    assert speed_document() == 2
    assert (
        capsys.readouterr().err.startswith("speed.py: The document is without a place for speed")
        and not Path("k.json").exists()
    )


def test_a_table_of_nothing_is_refused(speed_document, capsys):
    assert speed_document("--tables") == 2
    assert capsys.readouterr().err == "speed.py: --keep is 'k.json'; there is no such file to write the table from.\n"
    assert speed_document("--out", "no/d.md") == 2
    assert capsys.readouterr().err == "speed.py: no/d.md cannot be read or written: No such file or directory.\n"


@pytest.mark.parametrize(
    "text",
    [
        *("", "nothing", "[{}]", "{}", "3", "[3]", "null", '[{"machine": {"versions": {"jax": "1"}, "cores": 1}}]'),
        *('{"a": 1}', "[" * 100_000, "\udcff"),
        json.dumps([{"machine": {"versions": {"jax": "1"}, "cores": 1}, "processor": "x", "results": {"toy": {}}}]),
        json.dumps(
            [
                {
                    "machine": {"versions": {"jax": "1"}, "cores": 1},
                    "processor": "x",
                    "hour": "now",
                    "results": {"toy": {"peak_bytes": 1, "samples": [{"end_to_end": 0.0, "efficiency": 1.0}]}},
                }
            ]
        ),
    ],
    ids=lambda text: text[:30],
)
@pytest.mark.parametrize("tables", [True, False])
def test_speeds_that_it_did_not_write_are_one_sentence(text, tables, speed_document, monkeypatch, capsys):
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("it is told before anything is measured"))
    Path("k.json").write_bytes(text.encode(errors="surrogateescape"))
    assert speed_document(*["--tables"] * tables) == 2
    expected = "speed.py: --keep is 'k.json'; it must be a file that scripts/speed.py wrote.\n"
    assert capsys.readouterr().err == expected


def test_a_document_that_is_no_text_is_one_sentence(speed_document, capsys):
    Path("d.md").write_bytes(b"\xff")
    assert speed_document() == 2
    assert capsys.readouterr().err == "speed.py: --out is 'd.md'; it must be a file of text.\n"


@pytest.mark.table
def test_peak_memory_is_that_of_a_training():
    sizes = "--num_envs 16 --h_dim 8 --n_hidden 1 --repr_dim 4 --min_replay_size 250 --utd_ratio 0.001"
    assert 200 * 2**20 < speed.peak_memory("reacher", sizes) < 3000 * 2**20


@pytest.mark.slow
def test_a_training_that_ends_early_has_no_peak():
    with pytest.raises(FlagError, match=r"--env_name reacher .* ended with 2"):
        speed.peak_memory("reacher", "--h_dim 0")


def test_there_is_nothing_to_measure_where_nothing_is_collected(capsys):
    argv = [*ARGV, "--dataset", "x.npz", "--offline_steps", "5", "--num_timesteps", "0"]
    assert benchmark.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmark.py: --num_timesteps is 0; what is measured is training online")
    assert error.count("\n") == 1


def test_the_middle_of_an_even_number_lies_between_two():
    assert speed.span([4.0, 1.0, 2.0, 3.0], "{:g}".format) == "2.5 (1 to 4)"


def test_a_pattern_that_is_none_is_one_sentence(capsys):
    assert benchmark.main(["--all_envs", "--env_match", "["]) == 2
    assert "--env_match is '['; it must be a regular expression (" in capsys.readouterr().err


NAMELESS = OSError(28, "No space left on device")


def test_an_error_without_a_file_and_a_folder_that_cannot_be_made(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "measure_run", raising(NAMELESS))
    assert benchmark.main(ARGV) == 2
    assert capsys.readouterr().err == "benchmark.py: a file cannot be written: No space left on device.\n"
    assert benchmark.main([*ARGV, "--out", str(tmp_path / "a.json")]) == 2
    assert f"benchmark.py: {tmp_path}/a.json cannot be written: No space" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert benchmark.main([*ARGV, "--profile", "--trace", str(tmp_path / "file/x")]) == 2
    assert capsys.readouterr().err == f"benchmark.py: {tmp_path}/file/x cannot be written: Not a directory.\n"


def test_speeds_that_meet_an_error_without_a_file(speed_document, monkeypatch, capsys):
    monkeypatch.setattr(speed, "measure", raising(NAMELESS))
    assert speed_document() == 2
    assert capsys.readouterr().err == "speed.py: a file cannot be read or written: No space left on device.\n"


def raising(error):
    def call(*_):
        raise error

    return call
