"""The command line that a whole run amounts to: what resumed it, with which flags, and what is not known."""

import json

import pytest

from goalax.host.config import read_flags
from goalax.host.stored import read_resumed_flags
from goalax.study import whole_command

FIRST = ["training.py", "--agent", "gcbc", "--dataset", "a b.npz", "--offline_steps=62", "--num_timesteps", "0"]


def content(first, *later):
    return {"command": first, "resumed": [{"command": command} for command in later]}


def test_the_flags_of_all_calls_stand_in_one():
    longer = ["training.py", "--resume", "--exp_name", "ch", "--offline_steps", "124"]
    (line,) = whole_command.lines(content(FIRST, longer), "gcbc")
    assert line == "python training.py --agent gcbc --dataset 'a b.npz' --offline_steps 124 --num_timesteps 0"
    tuned = [
        "goalax",
        "train",
        "--resume",
        "--run_dir",
        "runs/x_s0",
        "--finetune-dataset",
        "c",
        "--no_watch",
        "--seed=3",
    ]
    (line,) = whole_command.lines(content(FIRST, longer, tuned), "gcbc")
    assert line.endswith("--offline_steps 124 --num_timesteps 0 --finetune-dataset c --no_watch")
    names = [
        "training.py",
        "--num_seeds",
        "3",
        "--exp_name",
        "a",
        "--log_tensorboard",
        "false",
        "--total_env_steps",
        "9",
    ]
    again = ["training.py", "--resume", "--num_seeds", "1", "--num_timesteps", "20", "--log_tensorboard"]
    (line,) = whole_command.lines(content(names, again), "crl")
    assert line == "python training.py --num_seeds 3 --exp_name a --log_tensorboard --num_timesteps 20"


def test_what_means_nothing_in_the_end_is_left_out():
    logged = ["training.py", "--log_wandb", "--wandb_mode", "offline"]
    for more in (["--no_log_wandb"], ["--log_wandb", "false"], ["--log_wandb=0"]):
        (line,) = whole_command.lines(content(logged, ["training.py", "--resume", *more]), "crl")
        assert line == f"python training.py {' '.join(more)}"
        read_flags(line.split()[2:])
    for more in (["--log_wandb"], ["--num_evals", "3"]):
        (line,) = whole_command.lines(content(logged, ["training.py", "--resume", *more]), "crl")
        assert "--wandb_mode offline" in line
    assert whole_command.lines(content(["training.py", *logged[2:], "--seed", "3"]), "crl") == [
        "python training.py --seed 3"
    ]


def test_they_are_the_flags_that_config_json_has(tmp_path):
    later = [["training.py", "--resume", "--offline_steps", "90"], ["training.py", "--resume", "--num_evals", "2"]]
    flags, agent_flags = read_flags(FIRST[1:])
    for call in later:
        (tmp_path / "config.json").write_text(json.dumps({"flags": vars(flags), "agent_flags": vars(agent_flags)}))
        given = [*call[1:], "--agent", "gcbc"]
        flags, agent_flags = read_resumed_flags(given, read_flags(given)[0], [tmp_path])
    (line,) = whole_command.lines(content(FIRST, *later), "gcbc")
    words = line.replace("'a b.npz'", "a_b.npz").split()[2:]
    told, told_agent = read_flags([word.replace("a_b.npz", "a b.npz") for word in words])
    assert (told, told_agent) == (flags.__class__(**{**vars(flags), "resume": False}), agent_flags)


@pytest.mark.parametrize(
    ("first", "later"),
    [(["my.py", "--fast"], ["my.py", "--slow"]), (FIRST, ["training.py", "--resume", "--gone", "1"])],
)
def test_calls_whose_flags_are_not_known_stand_one_after_another(first, later):
    lines = whole_command.lines(content(first, later), "gcbc")
    assert len(lines) == 2 and lines[1] == " ".join(["python", *later])
    assert len(whole_command.lines(content(FIRST, ["training.py", "--resume"]), "agent of another version")) == 2


def test_what_is_not_there_is_not_told():
    assert whole_command.lines({"command": None, "resumed": None}, "crl") == []
    assert whole_command.lines(content(None, ["training.py", "--resume"]), "crl") == []
    assert whole_command.lines({"command": ["a.py", 3], "resumed": "x"}, "crl") == ["python a.py 3"]
