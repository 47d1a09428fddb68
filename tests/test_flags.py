"""Tests of the command line: what is read, and the one sentence for everything that is wrong."""

import dataclasses
import shutil
import subprocess
import sys

import pytest

from goalax.agents import AGENTS, Algorithm, crl
from goalax.agents.crl import CRLConfig
from goalax.commands import train as training
from goalax.flags import FlagError, flag
from goalax.host.config import Flags, flags_from, read_flags
from goalax.host.make import make_run
from tests.helpers import toy

toy.register()


def resolved(*argv):
    return make_run(*read_flags([*toy.TINY, *argv]))


def test_defaults():
    assert read_flags([]) == (Flags(), CRLConfig())


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--num_envs", "16"], "num_envs", 16),
        (["--num-envs=16"], "num_envs", 16),
        (["--num_timesteps", "1e6"], "num_timesteps", 1_000_000),
        (["--total_env_steps", "10_000_000"], "num_timesteps", 10_000_000),
        (["--train_step_multiplier", "2"], "multiplier_num_sgd_steps", 2.0),
        (["--log_wandb"], "log_wandb", True),
        (["--no_log_wandb"], "log_wandb", False),
        (["--log-wandb", "true"], "log_wandb", True),
        (["--log_wandb=False"], "log_wandb", False),
        (["--no-normalize-observations"], "normalize_observations", False),
        (["--normalize_observations"], "normalize_observations", True),
        (["--wandb_group", "g"], "group_name", "g"),
        (["--wandb_project_name", "p"], "project_name", "p"),
        (["--use_ln", "false"], "use_ln", False),
        (["--no_resubs"], "resubs", False),
        (["--energy_fn", "norm"], "energy_fn", "l2"),
        (["--contrastive_loss_fn", "dp"], "contrastive_loss_fn", "dpo"),
        (["--logsumexp_penalty_coeff", "0.5"], "logsumexp_penalty", 0.5),
    ],
)
def test_spellings(argv, name, value):
    config, agent_config = read_flags(argv)
    assert getattr(config if hasattr(config, name) else agent_config, name) == value


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--env_name antt", ["--env_name", "'antt'", "choose from: ant,"]),
        ("--env_name ant_foo_maze", ["--env_name", "'ant_foo_maze'", "ant_u_maze"]),
        ("--agent crll", ["--agent", "'crll'", "choose from: crl"]),
        ("--agent", ["--agent", "needs a value"]),
        ("--energy_fn l22", ["--energy_fn", "'l22'", "choose from: l2,"]),
        ("--contrastive_loss_fn inf", ["--contrastive_loss_fn", "'inf'", "choose from: infonce,"]),
        ("--backend foo", ["--backend", "'foo'", "spring, mjx"]),
        ("--num_envs 0", ["--num_envs", "0", "at least 1"]),
        ("--batch_size -5", ["--batch_size", "-5", "at least 2"]),
        ("--num_evals 0", ["--num_evals", "at least 1"]),
        ("--num_envs 2.5", ["--num_envs", "'2.5'", "a whole number"]),
        ("--num_timesteps inf", ["--num_timesteps", "'inf'", "a whole number"]),
        ("--policy_lr nan", ["--policy_lr", "'nan'", "a finite number"]),
        ("--discounting 1", ["--discounting", "greater than 0 and less than 1"]),
        ("--random_goals 1.5", ["--random_goals", "at least 0 and at most 1"]),
        ("--log_wandb perhaps", ["'perhaps'"]),
        ("--log_wandb=perhaps", ["--log_wandb", "true or false"]),
        ("--h_dimm 3", ["--h_dimm", "--h_dim"]),
        ("--no_h_dim", ["--no_h_dim"]),
        ("stray", ["'stray'"]),
        ("--seed", ["--seed", "needs a value"]),
        ("--min_replay_size 41", ["--min_replay_size", "41", "--max_replay_size 40"]),
        ("--min_replay_size 9", ["--min_replay_size", "9", "at least one episode, 10 actions"]),
        ("--min_replay_size 9 --max_replay_size 9", ["_replay_size", "9", "at least one episode, 10 actions"]),
        ("--num_timesteps 40", ["--num_timesteps", "40", "greater than 40"]),
        ("--eval_env reacher --num_eval_envs 2", ["--eval_env", "'reacher'", "(10, 3, 2)", "(2, 2, 2)"]),
        ("--episode_length 15 --action_repeat 2", ["--action_repeat", "15", "16"]),
        ("--exp_name a/b", ["--exp_name", "'a/b'"]),
        ("--group_name ..", ["--group_name", "'..'"]),
        ("--log_wandb --project_name a/b", ["--project_name", "'a/b'"]),
        (f"--log_wandb --project_name {129 * 'a'}", ["--project_name", "128 characters at most"]),
        ("--run_dir somewhere", ["--run_dir", "--resume"]),
        ("--resume", ["--resume", "nothing to resume"]),
        ("--resume --run_dir nowhere", ["--run_dir", "'nowhere'"]),
        ("--env_name simple_u_maze --dense_reward", ["--dense_reward", "simple_u_maze"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*toy.TINY, *argv.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("training.py: ") and error.count("\n") == 1
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())


SILENT = "--wandb_mode means nothing without --log_wandb: leave it out."


@pytest.mark.parametrize("more", ["", "--log_wandb false", "--no_log_wandb"])
@pytest.mark.parametrize("mode", ["--wandb_mode online", "--wandb-mode=offline"])
def test_how_a_run_logs_that_does_not_log_is_refused(mode, more):
    with pytest.raises(FlagError, match=f"^{SILENT}$"):
        read_flags([*mode.split(), *more.split()])
    flags, _ = read_flags([*mode.split(), "--log_wandb"])
    assert flags.log_wandb and flags.wandb_mode in mode
    assert not read_flags(more.split())[0].log_wandb


def test_how_a_run_logs_is_checked_in_python_too():
    with pytest.raises(FlagError, match=f"^{SILENT}$"):
        flags_from({"wandb_mode": "offline"})
    assert flags_from({"wandb_mode": "offline", "log_wandb": True})[0].wandb_mode == "offline"


@dataclasses.dataclass(frozen=True)
class OtherConfig:
    eagerness: float = flag(0.1, "weight")


def test_a_flag_of_another_agent_is_named(monkeypatch, capsys):
    monkeypatch.setitem(AGENTS._entries, "other", Algorithm(OtherConfig, make=crl.make))
    monkeypatch.setitem(AGENTS._names, "other", "other")
    assert training.main(["--eagerness", "1"]) == 2
    assert "--eagerness is a flag of --agent other" in capsys.readouterr().err


def test_an_unwritable_run_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("in the way")
    assert training.main(toy.TINY) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "updates"),
    [
        ("--num_envs 64 --episode_length 250 --batch_size 256 --min_replay_size 250 --max_replay_size 250", 62),
        ("--num_envs 512 --episode_length 1000 --batch_size 256 --min_replay_size 1000 --max_replay_size 1000", 1998),
        ("--num_envs 64 --episode_length 257 --batch_size 256 --min_replay_size 300 --max_replay_size 300", 64),
        ("--num_envs 2 --batch_size 256", 1),
        ("--num_envs 512 --batch_size 256 --multiplier_num_sgd_steps 2", 36),
        ("--num_envs 512 --unroll_length 10 --utd_ratio 0.01 --min_replay_size 10", 51),
    ],
)
def test_updates_per_unroll(flags, updates):
    base = [flag for flag in toy.TINY if flag not in ("--utd_ratio", "0.1")]
    run = make_run(*read_flags([*base, "--num_timesteps", "1e8", *flags.split()]))
    assert run.sizes.updates_per_unroll == updates


def test_the_step_budget_is_a_floor():
    sizes = resolved().sizes
    assert (sizes.steps_per_unroll, sizes.prefill_unrolls) == (20, 2)
    assert [sizes.train_steps(steps) for steps in (41, 60, 61, 80, 81)] == [1, 1, 2, 2, 3]


def test_presets_of_the_environment():
    config = make_run(*read_flags(["--env_name", "simple_u_maze"])).config
    assert (config.episode_length, config.num_timesteps, config.backend) == (250, 600_000, "spring")
    assert config.utd_ratio == 1 / 16
    twice = make_run(*read_flags(["--env_name", "simple_u_maze", "--multiplier_num_sgd_steps", "2"])).config
    assert twice.utd_ratio == 1 / 8
    config = make_run(*read_flags(["--env_name", "ant", "--episode_length", "2000"])).config
    assert (config.num_timesteps, config.min_replay_size, config.num_envs) == (10_000_000, 2000, 64)
    assert config.utd_ratio == pytest.approx(1999 / 256 / 62)  # of no preset: an episode's worth of samples, once


def test_help_lists_every_flag_with_its_meaning():
    command = [sys.executable, "training.py", "--agent", "crl", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = " ".join(text.split()).replace("│", "")
    for field in (*dataclasses.fields(Flags), *dataclasses.fields(CRLConfig)):
        assert f"--{field.name}" in text
        assert field.metadata["help"].split()[0] in words


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "bc"])  # which needs none
def test_help_of_an_agent_names_its_paper(name, capsys):
    with pytest.raises(SystemExit):
        read_flags(["--agent", name, "--help"])
    about, _, flags = capsys.readouterr().out.partition("Flags options")
    assert "arXiv" in about, "the first line of an agent's file names the paper it is from"
    assert ("arXiv 2608.30640" in " ".join(flags.replace("│", "").split())) == ("--action_chunk" in flags)


def test_import_starts_no_computation():
    code = "from goalax.commands import train; from jax._src.xla_bridge import _backends; assert not _backends"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_flags(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        read_flags(["--tyro-print-completion", "bash"])
    assert ended.value.code in (0, None)
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    line = "COMP_WORDS=(./training.py --num_e); COMP_CWORD=1; COMP_LINE='./training.py --num_e'; COMP_POINT=21"
    code = f'source completion; {line}; _tyro_training_py; printf "%s\\n" "${{COMPREPLY[@]}}"'
    result = subprocess.run(["bash", "--norc", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert {"--num_envs", "--num_eval_envs", "--num_evals"} <= set(result.stdout.split())
