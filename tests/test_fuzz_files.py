"""Damaged files of runs and sweeps: whatever reads them ends with 0 or 2, in a sentence, and loses nothing."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from goalax.commands import evaluate, plot, report, sweep, table
from goalax.commands import train as training
from goalax.host import output
from goalax.host.runs import MetricsFile, read_metrics
from goalax.study import report as page
from tests.helpers import toy
from tests.helpers.experiments import make_run

toy.register()
FILES = 100
RUN = Path("runs/toy_crl_s0")
VALUES = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        1.5,
        10**30,
        10**400,
        1e308,
        float("nan"),
        float("inf"),
        "",
        " ",
        "é目",
        "\ud800",
        "\u0000",
        "1",
    ),
    *("true", "a/b", "..", "x" * 300, "[red]", "<b>", "a\nb", "toy", "crl", [], {}, [[]], [1], ["a"], {"a": 1}, [None]),
    *({"flags": {}}, json.loads("[" * 60 + "]" * 60)),
]

SANE = [0.01, 1, 2, "grid", "train.py", "crl", {"value": 8}, {"values": [8, 16]}, {"name": "x"}, {"min": 1, "max": 2}]


def chosen(rng, values):
    return values[int(rng.integers(len(values)))]


def spoilt_bytes(rng, data):
    """A file that something else has written into."""
    at, noise = int(rng.integers(len(data))), bytes(rng.integers(0, 256, 5, dtype=np.uint8))
    ways = [
        data[:at],
        data[at:],
        data[:at] + noise + data[at:],
        data[:at] + noise + data[at + 5 :],
        b"",
        noise,
        b"\0" * 50,
    ]
    ways += [
        data.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + data,
        data + data,
        b"[" * 100_000,
        data.replace(b'"', b"'"),
    ]
    return chosen(rng, ways)


def spoilt_json(rng, content):
    """A file of JSON in which something was changed by hand."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.integers(1, 4)):
        part = chosen(rng, [content, *[content["flags"], content["agent_flags"]] * 3])
        if not isinstance(part, dict) or not part:
            continue
        name = chosen(rng, list(part))
        match int(rng.integers(6)):
            case 0:
                del part[name]
            case 1:
                part[chosen(rng, ["", "é", "help", "a b", "flags", "seed"])] = part.pop(name)
            case _:
                part[name] = chosen(rng, VALUES)
        if not {"flags", "agent_flags"} <= content.keys():
            break
    return json.dumps(chosen(rng, VALUES) if rng.random() < 0.05 else content).encode()


def outcome(capsys, main, *argv):
    """Exit code of a command; what it says of a file that it cannot use is lines, the last of which names it."""
    with output.protected():  # as `cli.run` has it
        code = main(list(argv))
    error = capsys.readouterr().err
    assert code in (0, 2) and "Traceback" not in error, error
    assert code == 0 or error.strip(), argv
    return code


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(page, "drawing", lambda *_: "")
    monkeypatch.setattr(plot.curves, "compare", lambda *_: plot.curves.Drawing(Figure(), [], []))
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())


@pytest.mark.slow
def test_config_json(toy_runs, tmp_path, monkeypatch, capsys, no_pictures):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", lambda *_: 0)
    monkeypatch.setattr(training.memory, "check", lambda _: None)
    monkeypatch.setattr(evaluate, "play", lambda *_: {"eval/x": np.zeros(2)})
    shutil.copytree(toy_runs / "l2_s0", RUN)
    path = RUN / "config.json"
    good, rng, codes = path.read_bytes(), np.random.default_rng(2), []
    for _ in range(FILES // 2):
        bad = spoilt_bytes(rng, good) if rng.random() < 0.3 else spoilt_json(rng, json.loads(good))
        path.write_bytes(bad)
        codes.append(outcome(capsys, training.main, "--resume", "--run_dir", str(RUN)))
        codes.append(outcome(capsys, evaluate.main, str(RUN), "--episodes", "2"))
        codes.append(outcome(capsys, report.main, "runs", "--out", "r.html"))
        codes.append(outcome(capsys, table.main, "runs", "--out", str(chosen(rng, ["t.md", "t.csv", "t.json"]))))
        assert path.read_bytes() == bad
    print(f"{FILES // 2} files, {codes.count(0)} of {len(codes)} readers could use them")
    assert min(codes.count(0), codes.count(2)) > FILES // 10


def test_metrics_csv(tmp_path, monkeypatch, capsys, no_pictures):
    monkeypatch.chdir(tmp_path)
    path = make_run(RUN, 0, (0.5, 0.5)) / "metrics.csv"
    good, rng, codes = path.read_bytes(), np.random.default_rng(3), []
    words = [
        "",
        "nan",
        "inf",
        "-1e999",
        "9" * 400,
        "é",
        "a,b",
        '"',
        "1;2",
        "1,5",
        "-",
        "0x1",
        "1_0",
        "²",
        "٣",
        " 7 ",
        "1e5",
        "2e1",
    ]
    for _ in range(FILES):
        lines = [line.split(",") for line in good.decode().splitlines()]
        for _ in range(rng.integers(1, 4)):
            line = chosen(rng, lines)
            line[int(rng.integers(len(line)))] = chosen(rng, words)
        text = chosen(rng, ["\n", "\r\n", "\n\n"]).join(chosen(rng, [",", ",", ";", "\t"]).join(line) for line in lines)
        bad = spoilt_bytes(rng, good) if rng.random() < 0.3 else text.encode()
        path.write_bytes(bad)
        codes += [
            outcome(capsys, main, "runs", "--out", name)
            for main, name in ((report.main, "r.html"), (plot.main, "p.png"), (table.main, "t.json"))
        ]
        assert path.read_bytes() == bad
        notes = []
        file = MetricsFile(RUN, 10**9, notes.append)
        file.append({"training/envsteps": 10**9, "eval/final_dist": 1.0})
        assert notes or all(row in file.rows for row in read_metrics(path) if "training/envsteps" in row)
        kept = list(RUN.glob("metrics.csv.bak-*"))
        assert bool(notes) == bool(kept) and all(copy.read_bytes() == bad for copy in kept)
        for copy in kept:
            copy.unlink()
    print(f"{FILES} files, {codes.count(0)} of {len(codes)} readers could use them")
    assert min(codes.count(0), codes.count(2)) > FILES // 5


def test_sweep_yml(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "run", lambda *_: True)
    Path("train.py").write_text("")
    parameters = {"env_name": {"value": "toy"}, "critic_lr": {"min": 1e-4, "max": 1e-3}, "seed": {"values": [1, 2]}}
    good = {"program": "train.py", "method": "random", "metric": {"name": "m"}, "parameters": parameters, "run_cap": 3}
    rng, codes = np.random.default_rng(4), []
    for _ in range(FILES):
        content = json.loads(json.dumps(good))
        for _ in range(rng.integers(0, 3)):
            part = chosen(rng, [content, content["parameters"], *content["parameters"].values()])
            if isinstance(part, dict) and part and isinstance(content["parameters"], dict):
                name = chosen(rng, [*part, "min", "command", "distribution", "agent"])
                part[name] = chosen(rng, VALUES if rng.random() < 0.4 else SANE)
            if not isinstance(content.get("parameters"), dict):
                break
        text = yaml.safe_dump(content, allow_unicode=bool(rng.integers(2))).encode("utf-8", "surrogatepass")
        Path("s.yml").write_bytes(spoilt_bytes(rng, text) if rng.random() < 0.3 else text)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree("sweeps")
        with output.protected():
            code = sweep.main(["s.yml"])
        error = capsys.readouterr().err
        assert code in (1, 2) and "Traceback" not in error and error.endswith("\n"), error  # 1: no run has finished
        assert code == 1 or not Path("sweeps").exists()
        codes.append(code)
    print(f"{FILES} files, {codes.count(1)} of them could be run")
    assert min(codes.count(1), codes.count(2)) > FILES // 10
