"""Tests of scripts/benchmark.py: the measuring functions at toy size, curves, results as printed and as written."""

import csv
import dataclasses
import json
import time

import jax
import numpy as np
import pytest

from goalax.agents import AGENTS
from goalax.commands import benchmark
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.speed import benchmark as measuring
from goalax.speed import cost_curves
from goalax.speed.stepping import BRAX_NAMES
from tests.helpers import toy
from tests.helpers.benchmarks import ARGV, NAMELESS, raising

toy.register()

PARTS = ("env_only", "updates_only", "end_to_end")


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
    rows[1]["value"] = 10**20  # more than an integer of NumPy holds
    cost_curves.draw(rows, "num_seeds", "title", tmp_path / "curve.png")


def test_there_is_nothing_to_measure_where_nothing_is_collected(capsys):
    argv = [*ARGV, "--dataset", "x.npz", "--offline_steps", "5", "--num_timesteps", "0"]
    assert benchmark.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmark.py: --num_timesteps is 0; what is measured is training online")
    assert error.count("\n") == 1


def test_a_pattern_that_is_none_is_one_sentence(capsys):
    assert benchmark.main(["--all_envs", "--env_match", "["]) == 2
    assert "--env_match is '['; it must be a regular expression (" in capsys.readouterr().err


def test_an_error_without_a_file_and_a_folder_that_cannot_be_made(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "measure_run", raising(NAMELESS))
    assert benchmark.main(ARGV) == 2
    assert capsys.readouterr().err == "benchmark.py: a file cannot be written: No space left on device.\n"
    assert benchmark.main([*ARGV, "--out", str(tmp_path / "a.json")]) == 2
    assert f"benchmark.py: {tmp_path}/a.json cannot be written: No space" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert benchmark.main([*ARGV, "--profile", "--trace", str(tmp_path / "file/x")]) == 2
    assert capsys.readouterr().err == f"benchmark.py: {tmp_path}/file/x cannot be written: Not a directory.\n"
