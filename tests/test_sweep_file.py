"""Tests of scripts/sweep.yml with the code of wandb's agent, but without a server."""

import os
import random
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb.wandb_agent import Agent

from goalax.host.config import Flags, read_flags
from goalax.host.runs import read_metrics
from goalax.study import sweeps
from tests.helpers import ROOT
from tests.helpers.logs import read_wandb

SWEEP = yaml.safe_load((ROOT / "scripts" / "sweep.yml").read_text())
TINY = {
    **{"num_envs": 4, "num_eval_envs": 2, "episode_length": 20, "unroll_length": 10, "min_replay_size": 20},
    **{"max_replay_size": 40, "batch_size": 8, "num_timesteps": 160, "num_evals": 2, "h_dim": 8, "vis_length": 0},
}


def sampled(seed):
    """Parameters as a server would send them."""
    source, args = random.Random(seed), {}
    for name, spec in SWEEP["parameters"].items():
        values = [spec["value"]] if "value" in spec else spec.get("values")
        args[name] = {"value": source.choice(values) if values else source.uniform(spec["min"], spec["max"])}
    return args


@pytest.mark.parametrize("seed", range(5))
def test_sampled_parameters_are_flags(seed):
    args = sampled(seed)
    argv = create_sweep_command_args({"args": args})["args_no_boolean_flags"]
    config, agent_config = read_flags(argv)
    for name, value in args.items():
        assert getattr(config if hasattr(config, name) else agent_config, name) == value["value"]


def test_the_metric_is_one_that_a_run_logs():
    assert SWEEP["metric"] == {"name": "eval/episode_success", "goal": "maximize"} and SWEEP["method"] == "bayes"
    assert create_sweep_command(SWEEP["command"]) == ["${env}", "${program}", "${args_no_boolean_flags}"]
    assert Flags().log_wandb is False and SWEEP["parameters"]["log_wandb"] == {"value": True}


@pytest.mark.slow
def test_the_agent_runs_it_to_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training.py").symlink_to(ROOT / "training.py")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in ("DIR", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name))
    for name in ("RUN_ID", "SWEEP_ID", "SWEEP_PARAM_PATH"):
        monkeypatch.setenv(f"WANDB_{name}", "ownsweep")  # so that it is taken back after the test
    extra = {name: {"value": value} for name, value in {**TINY, "wandb_mode": "offline"}.items()}
    args = sampled(0) | extra
    agent = Agent(api=None, queue=None)
    agent._sweep_command = SWEEP["command"]
    agent._command_run({"run_id": "abcd1234", "program": SWEEP["program"], "args": args})
    assert agent._run_processes["abcd1234"].wait(timeout=300) == 0
    directory = tmp_path / "runs" / "sweep" / "reacher_crl_s0"
    logged = read_wandb(directory)
    assert logged.run.run_id == "abcd1234" and logged.run.sweep_id == "ownsweep"
    assert logged.summary["eval/episode_success"] == read_metrics(directory / "metrics.csv")[-1]["eval/episode_success"]
    assert {name: logged.config[name] for name in args} == {name: value["value"] for name, value in args.items()}


def test_the_script_without_an_account_reads_it_too():
    job = sweeps.suggest(sweeps.read(ROOT / "scripts" / "sweep.yml"), [])
    config, agent_config = read_flags([f"--{name}={value}" for name, value in job.parameters.items()])
    assert (config.group_name, agent_config.energy_fn) == ("sweep", job.parameters["energy_fn"])
