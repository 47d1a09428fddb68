"""Tests of scripts/benchmark.py: the measuring functions at toy size, the results as printed and as written."""

import json
import time

import jax
import numpy as np
import pytest

from scripts import benchmark
from tests import toy

toy.register()

PARTS = ("env_only", "updates_only", "end_to_end")
ARGV = [*toy.TINY, "--seconds", "0.02"]


class FakePart:
    """Every round does `work` and takes `seconds`."""

    def __init__(self, work, seconds):
        self.work, self.seconds, self.calls = work, seconds, []

    def run(self, rounds):
        self.calls.append(rounds)
        time.sleep(rounds * self.seconds)


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["one_seed", "two_seeds"])
def result(request, tmp_path_factory):
    """What the benchmark of a toy run writes."""
    out = tmp_path_factory.mktemp("benchmark") / "results.json"
    assert benchmark.main([*ARGV, "--repeats", "2", "--num_seeds", str(request.param), "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert len(written["results"]) == 1
    assert written["machine"]["cores"] >= 1 and written["machine"]["versions"]["jax"]
    return written["results"][0]


@pytest.mark.parametrize("name", [*PARTS, "limit", "efficiency"])
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
    assert set(result["compile_seconds"]) == set(PARTS) and min(result["compile_seconds"].values()) > 0
    # 40 rows of 4 environments: state, goal and action of size 2, reward, terminal, episode start; and the row count.
    num_seeds = result["flags"]["num_seeds"]
    assert result["bytes"]["buffer"] == num_seeds * 4 * (40 * 4 * 9 + 1)
    assert result["bytes"]["host_peak"] > 2**20
    assert result["flags"]["env_name"] == "toy" and result["agent_flags"]["h_dim"] == 8


def test_the_table_shows_every_rate(result, capsys):
    benchmark.show(result)
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*PARTS, "limit", "efficiency", "buffer", "crl on toy"))


@pytest.mark.parametrize("seconds", [0.001, 0.05])
def test_rate_measures_long_enough(seconds):
    part = FakePart(work=10, seconds=0.004)
    assert 0 < benchmark.rate(part, seconds) <= 10 / 0.004
    assert sum(part.calls) * part.seconds >= seconds - part.seconds


def test_sample_on_parts_of_known_speed():
    parts = {
        "env_only": FakePart(work=1000, seconds=0.01),
        "updates_only": FakePart(work=1, seconds=0.01),
        "end_to_end": FakePart(work=1000, seconds=0.04),
    }
    config = benchmark.BenchmarkConfig(seconds=0.1)
    rates = benchmark.sample(parts, config, updates_per_step=0.001)
    # A thousand steps and one update take 10 ms each, together 40 ms: half the limit.
    assert rates["limit"] == pytest.approx(1000 / 0.02, rel=0.3)
    assert rates["efficiency"] == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("name", ["toy", pytest.param("reacher", marks=pytest.mark.slow)])
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
        assert ("brax" in result) == ("ratio" in result) == (name in benchmark.BRAX_NAMES)
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
        (["--agent", "ppo"], "benchmark.py: --agent is 'ppo'; choose from: "),
        (["--env_name", "moon"], "benchmark.py: --env_name is 'moon'; choose from: "),
        (["--backend", "warp"], "benchmark.py: --backend is 'warp' with --env_name toy: "),
        (["--out", "no/such/directory/x.json"], "benchmark.py: --out is 'no/such/directory/x.json'; it must be"),
    ],
)
def test_a_bad_flag_ends_with_one_sentence_and_exit_code_2(argv, sentence, capsys):
    assert benchmark.main([*ARGV, *argv]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence) and printed.err.count("\n") == 1
    assert not printed.out
