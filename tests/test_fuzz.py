"""Hostile command lines of every command: exit code 0 or 2, one sentence, no traceback, nothing left behind."""

import dataclasses
import os
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from goalax import cli
from goalax.agents import AGENTS
from goalax.commands import train as training
from goalax.flags import value_type
from goalax.host import output
from goalax.host.config import Flags
from tests.helpers import toy
from tests.helpers.experiments import make_run

toy.register()
LINES = 200
HOSTILE = [
    *(
        "",
        " ",
        "0",
        "-1",
        "-0",
        "1",
        "2",
        "3.5",
        "1e7",
        "1e400",
        "-1e400",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "NaN",
        "1_000",
    ),
    *(
        "9" * 30,
        "9" * 400,
        "9" * 5000,
        "0x10",
        "1,5",
        "1.",
        ".5",
        "1e",
        "e5",
        "True",
        "FALSE",
        "yes",
        "none",
        "None",
        "null",
        "é目🙂",
    ),
    *(
        "\ud800",
        "\u202e",
        "a\nb",
        "a\tb",
        "$(touch x)",
        "`id`",
        "; rm x",
        "'",
        '"',
        "a'b",
        "[",
        "]",
        "[red]",
        "[/x]",
        "{}",
    ),
    *(
        "{0}",
        "%s",
        "*",
        "?",
        "~",
        "/",
        ".",
        "..",
        "../../x",
        "/dev/null",
        "/proc/self",
        "/nonexistent/a",
        "-",
        "--",
        "---",
    ),
    *(
        "-x",
        "=",
        "==",
        "a=b",
        "<script>",
        "x" * 250,
        "x" * 300,
        f"{'x' * 300}/a.html",
        "crl",
        "toy",
        "ant",
        "spring",
        "mjx",
        "(1, 2)",
        "[1]",
    ),
]
AGENT_FLAGS = {name: [field.name for field in dataclasses.fields(entry.config)] for name, entry in AGENTS.items()}
FIELDS = {field.name: field for entry in AGENTS.values() for field in dataclasses.fields(entry.config)}
FIELDS |= {field.name: field for field in dataclasses.fields(Flags)}
SIZES = {"num_envs": 4, "num_eval_envs": 4, "unroll_length": 5, "num_timesteps": 4000}
REPLAY = {"min_replay_size": 10, "max_replay_size": 40, "batch_size": 8}


def valid(rng, field):
    """A value that a flag takes by itself."""
    meta, kind = field.metadata, value_type(field)
    if size := (SIZES | REPLAY).get(field.name):
        return str(size * int(rng.integers(1, 3)))
    if meta["valid"] is not None:
        return "toy" if "env" in field.name else str(rng.choice(list(meta["valid"])))
    if kind is bool:
        return str(rng.choice(["true", "False", "1", "0"]))
    if kind is str:
        return str(rng.choice(["plain", "two words", "é目", "[x]", "$(x)", "n" * 240]))
    low = next((meta[name] for name in ("low", "above") if meta[name] is not None), 0)
    high = next((meta[name] for name in ("high", "below") if meta[name] is not None), low + 9)
    number = rng.uniform(low, min(high, low + 9))
    return f"{number:.4f}" if kind is float else str(int(number))


def command_line(rng):
    """Flags of training, most of them with values that some flag takes, but maybe not this one."""
    agent = str(rng.choice(list(AGENTS)))
    sizes = SIZES if "replay" in AGENTS[agent].unused else SIZES | REPLAY
    words = [(f"--{name}={value}",) for name, value in {"env_name": "toy", "agent": agent, **sizes}.items()]
    words = words if rng.random() < 0.9 else []
    others = [name for name in FIELDS if name not in ("coordinator_address", "env_name", "eval_env", "agent")]
    own = [*AGENT_FLAGS[agent], *sizes]
    tame = rng.random() < 0.5
    for _ in range(rng.integers(0, 6)):
        name = str(rng.choice(own if tame or rng.random() < 0.3 else others))
        field = FIELDS[name]
        value = valid(rng, field) if tame or rng.random() < 0.4 else str(rng.choice(HOSTILE))
        spelled = str(rng.choice([name, *field.metadata["aliases"], name.replace("_", "-")]))
        if not tame:
            spelled = str(
                rng.choice([*[spelled] * 12, f"no_{name}", name[:-1], name.upper(), str(rng.choice(HOSTILE))])
            )
        ways = [(f"--{spelled}", value), (f"--{spelled}={value}",)]
        ways += [] if tame else [(f"--{spelled}",), (f"-{spelled}", value), (value,), (f"--{spelled}", value) * 2]
        words.insert(int(rng.integers(0, len(words) + 1)), ways[int(rng.choice(len(ways)))])
    if not tame and rng.random() < 0.1:
        words.append((str(rng.choice(["--help", "-h", "--resume", "--version", "--tyro-print-completion"])),))
    return [word for part in words for word in part]


def code_of(main, argv, prog):
    """Exit code, with output as `cli.run` has it."""
    with output.protected():
        try:
            return main(argv, prog)
        except SystemExit as end:
            return end.code or 0


def sentence(error):
    """Whether it is what a person should be told: short, on a line."""
    return error.count("\n") == 1 and error.endswith("\n") and "Traceback" not in error and ": " in error


def test_training(tmp_path, monkeypatch, capsys):
    """All of training up to its first compilation, but for the sum of its bytes, which takes longer than all else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", lambda *_: 0)
    monkeypatch.setattr(training.memory, "check", lambda _: None)
    rng, codes = np.random.default_rng(0), []
    for _ in range(LINES):
        argv = command_line(rng)
        code = code_of(training.main, argv, "training.py")
        error = capsys.readouterr().err
        assert code in (0, 2), argv
        assert sentence(error) if code == 2 else error == "", (argv, error)
        assert set(os.listdir()) <= {"runs"} and (code == 0 or not list(Path().rglob("*_s[0-9]*"))), argv
        shutil.rmtree("runs", ignore_errors=True)
        codes.append(code)
    print(f"{codes.count(0)} of {len(codes)} command lines were right, {codes.count(2)} wrong")
    assert min(codes.count(0), codes.count(2)) > LINES // 5


# Flags of the other commands that would start their work are left out of what may be right.
COMMANDS = {
    "evaluate": (["run", "--env_name", "--episodes", "--step", "--seed"], []),
    "render": (["--env_name", "--run", "--step", "--seed", "--backend", "--vis_length", "--height", "--out"], []),
    "plot": (["--x", "--out"], ["empty", "broken", "gone"]),
    "report": (["--out"], ["empty", "broken", "gone"]),
    "table": (["--out"], ["empty", "broken", "gone"]),
    "sweep": (["--file", "--count", "--workers", "--out"], []),
    "results": (["--rows", "--keep", "--out", "--list", "--tables"], []),
    "benchmark": (["--env_match", "--values", "--curve", "--out", "--seconds", "--repeats", "--agent"], ["--h_dim"]),
    "distances": (["--run", "--step", "--resolution"], []),
}


@pytest.mark.parametrize("name", [*COMMANDS, "nonsense"])
def test_other_commands(name, tmp_path, monkeypatch, capsys):
    """On empty folders and broken runs, where none of them has anything to do."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for broken in ("broken", "half"):
        make_run(Path(broken), 0, (0.5, 0.5))
    Path("broken/config.json").write_text('{"flags": [], "agent_flags": null}')
    Path("half/metrics.csv").write_text("a,b")
    before = sorted(Path().rglob("*"))
    if name == "nonsense":
        for word in HOSTILE:
            assert word.startswith(("-h", "--help")) or cli.main([word]) == 2, word
            assert "is no command" in capsys.readouterr().err
        return
    module = import_module(f"goalax.commands.{name}")
    if name == "benchmark":
        monkeypatch.setattr(module, "measure_run", lambda *_: [])
        monkeypatch.setattr(module, "measure_envs", lambda *_: [])
        monkeypatch.setattr(module, "measure_curve", lambda *_: [])
    rng, (flags, words) = np.random.default_rng(1), COMMANDS[name]
    for _ in range(20):
        argv = []
        for _ in range(rng.integers(1, 4)):
            value = str(rng.choice([*HOSTILE, "empty", "broken", "half", "out.html", "out.png"]))
            flag = str(rng.choice([*flags, *words, value]))
            argv += [[flag, value], [f"{flag}={value}"], [value], [flag]][int(rng.integers(4))]
        code = code_of(module.main, argv, name)
        error = capsys.readouterr().err
        assert code in (0, 2), argv
        error = error.replace("a\nb", "a b")  # a name as it was given
        assert code == 0 or sentence(error.splitlines(True)[-1]), (argv, error)
        if code == 2 and name != "benchmark":
            assert sorted(Path().rglob("*")) == before, argv
        for path in set(Path().rglob("*")) - {*before}:
            shutil.rmtree(path, ignore_errors=True)
