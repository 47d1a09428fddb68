"""scripts/table.py: numbers of the CSVs as Markdown, CSV and JSON; and scripts/gpu_report.sh at toy size."""

import csv
import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from goalax.commands import report, table
from goalax.study import markdown
from tests.helpers.experiments import make_run
from tests.helpers.runs import last

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu_report.sh"


def test_the_formats_say_the_same(toy_runs, tmp_path, capsys):
    for suffix in table.WRITERS:
        assert table.main([str(toy_runs), "--out", str(tmp_path / f"t{suffix}")]) == 0
    rows = json.loads((tmp_path / "t.json").read_text())
    assert [row["agent"] for row in rows] == ["crl, energy_fn dot", "crl, energy_fn l2"]
    for row, energy in zip(rows, ("dot", "l2"), strict=True):
        values = [last(toy_runs / f"{energy}_s{seed}", "eval/final_dist") for seed in range(3)]
        assert row["final_dist"] == pytest.approx(sum(values) / 3)  # of three, none is cut
        assert row["final_dist_low"] <= row["final_dist"] <= row["final_dist_high"]
        assert (row["environment"], row["seeds"], row["steps"]) == ("toy", 3, 120)
        assert row["seconds"] > 0 and "cpu" in row["device"]
        content = json.loads((toy_runs / f"{energy}_s0/config.json").read_text())
        assert shlex.split(row["command"]) == content["command"]
    with (tmp_path / "t.csv").open(newline="") as file:
        written = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
        assert written == list(csv.DictReader(file))
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[-2].startswith("| toy | crl, energy_fn dot | 3 | 120 | ")
    assert f"{rows[1]['final_dist']:.2f} ({rows[1]['final_dist_low']:.2f} to" in lines[-1]
    assert str(tmp_path / "t.md") in capsys.readouterr().out


def test_numbers_of_the_way_by_hand(tmp_path, capsys):
    for seed, final in enumerate((0.3, 0.6, 0.9)):  # at 1/3, 2/3 and all of this after 60, 100 and 120 steps
        make_run(tmp_path / "runs" / f"a_s{seed}", seed, (final, 1), falls=seed / 10)
        make_run(tmp_path / "runs" / f"b_s{seed}", seed, (final, 1), agent="tmd")
    for suffix in ("md", "json"):
        argv = [str(tmp_path / "runs"), "--threshold", "0.4", "--out", str(tmp_path / f"t.{suffix}")]
        assert table.main(argv) == 0
    first, second = json.loads((tmp_path / "t.json").read_text())
    assert first["mean_time_at_goal"] == pytest.approx(0.6 * (0.5 * 40 + 5 / 6 * 20) / 60)
    assert first["mean_time_at_goal_low"] < first["mean_time_at_goal"] < first["mean_time_at_goal_high"]
    # never, 100 steps (0.4), 100 steps (0.6)
    assert (first["threshold"], first["steps_to_threshold"], first["seeds_at_threshold"]) == (0.4, 100, 2)
    assert first["falls"] == pytest.approx(0.1) and second["falls"] is None is second["falls_low"]
    assert first["coverage"] is None
    line = (tmp_path / "t.md").read_text().splitlines()[-2]
    assert "| 100 (2 of 3 seeds) |  | 0.100 (0.000 to 0.200) |  |" in line
    assert table.main([str(tmp_path / "runs"), "--threshold", "0.7", "--out", str(tmp_path / "t.md")]) == 0
    assert "steps to 0.7 of the time" in (tmp_path / "t.md").read_text()
    assert "| > 120 (1 of 3 seeds) |" in (tmp_path / "t.md").read_text()


def test_updates_on_a_dataset_are_no_steps(tmp_path):
    for name, more in {"a": {}, "b": {"agent": "gcbc", "steps": (0, 0, 0), "updates": (40, 60, 30_000)}}.items():
        make_run(tmp_path / f"{name}_1_s0", 0, (0.3, 1), **more)
        make_run(tmp_path / f"{name}_2_s0", 0, (0.9, 1), env_name="toy_eval", **more)
    for suffix in ("md", "json"):
        assert table.main([str(tmp_path), "--out", str(tmp_path / f"t.{suffix}")]) == 0
    units = ["environment steps", "environment steps", "updates on a dataset", "updates on a dataset"]
    assert [row["unit"] for row in json.loads((tmp_path / "t.json").read_text())] == units
    lines = (tmp_path / "t.md").read_text().splitlines()[-4:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[3] for line in cells] == ["120", "120", "30,000 updates", "30,000 updates"]
    assert [line[7].split(" (")[0] for line in cells] == ["> 120", "100", "> 30,000 updates", "60 updates"]


def test_the_command_runs_as_it_is_written(tmp_path):
    """config.json keeps the bare name of the program."""
    for name, program in {"a": "training.py", "b": "goalax"}.items():
        run = make_run(tmp_path / f"{name}_s0", 0, (0.3, 1), exp_name=name)
        content = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(content | {"command": [program, "--exp_name", "a b"]}))
    assert table.main([str(tmp_path), "--out", str(tmp_path / "t.json")]) == 0
    commands = [row["command"] for row in json.loads((tmp_path / "t.json").read_text())]
    assert commands == ["python training.py --exp_name 'a b'", "goalax --exp_name 'a b'"]


def test_a_run_that_was_resumed_has_the_flags_of_all_its_calls(tmp_path):
    run = make_run(tmp_path / "a_s0", 0, (0.3, 1))
    content = json.loads((run / "config.json").read_text())
    content |= {"command": ["training.py", "--num_timesteps", "100", "--h_dim", "8"]}
    content |= {"resumed": [{"command": ["training.py", "--resume", "--num_timesteps", "120"]}]}
    (run / "config.json").write_text(json.dumps(content))
    assert table.main([str(tmp_path), "--out", str(tmp_path / "t.json")]) == 0
    (row,) = json.loads((tmp_path / "t.json").read_text())
    assert row["command"] == "python training.py --num_timesteps 120 --h_dim 8"


def test_success_over_tasks_takes_the_place_of_time_at_the_goal(tmp_path):
    """As docs/evaluation.md says of OGBench's environments, in all of these numbers."""
    for seed, success in enumerate((0.2, 0.4, 0.6)):
        path = make_run(tmp_path / f"a_s{seed}", seed, (0.001, 1)) / "metrics.csv"
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{head},eval/success", *(f"{line},{success}" for line in lines)]) + "\n")
    for suffix in ("md", "csv", "json"):
        assert table.main([str(tmp_path), "--out", str(tmp_path / f"t.{suffix}")]) == 0
    (row,) = json.loads((tmp_path / "t.json").read_text())
    for name in ("time_at_goal", "mean_time_at_goal", "success"):
        assert row[name] == pytest.approx(0.4)
    assert row["share"] == "success over tasks"
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [float(each["time_at_goal"]) for each in csv.DictReader(file)] == [pytest.approx(0.4)]
    assert "| 0.400 (0.200 to 0.600) | 0.400 (0.200 to 0.600) |" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(("main", "name"), [(table.main, "t.md"), (report.main, "r.html")])
def test_what_cannot_be_written_leaves_what_was_there(main, name, tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "runs" / "a_s0", 0, (0.3, 1))
    (tmp_path / name).write_text("of before")
    write = Path.write_text

    def full(path, text, **options):
        write(path, text[:10], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.endswith(f"{tmp_path / name} cannot be written: No space left on device.\n")
    assert (tmp_path / name).read_text() == "of before"
    assert {path.name for path in tmp_path.iterdir()} == {"runs", name}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["--out", "x.pdf"],
            "table.py: --out is 'x.pdf'; it must name a file that ends in .md, .csv, .json, in a directory that"
            " exists.",
        ),
        (["a", "--threshold", "0"], "table.py: --threshold is 0.0; it must be greater than 0 and at most 1."),
        (["no/such/run"], "table.py: There is no directory no/such/run. It is skipped. No run is left to show."),
    ],
)
def test_a_bad_call_ends_with_one_sentence_and_exit_code_2(argv, sentence, capsys):
    assert table.main(argv) == 2
    assert capsys.readouterr().err == sentence + "\n"


def gpu_report(*argv, seconds=540):
    environment = {**os.environ, "TOY": "1", "GOALAX_PYTHON": sys.executable, "SLICE": str(seconds)}
    return subprocess.run([str(SCRIPT), *map(str, argv)], capture_output=True, text=True, env=environment)


def test_gpu_report_refuses_what_it_does_not_know(tmp_path):
    result = gpu_report(tmp_path / "out", "sped")
    assert result.returncode == 1 and "There is no part sped; choose from: speed " in result.stderr
    assert not (tmp_path / "out").exists()
    assert "Usage" in gpu_report().stderr and "Usage" in gpu_report("--help").stderr
    assert (gpu_report().returncode, gpu_report("--help").returncode) == (1, 0)


def test_gpu_report_says_where_nothing_can_be_listed(tmp_path):
    environment = {**os.environ, "GOALAX_PYTHON": "/bin/false"}
    argv = [str(SCRIPT), str(tmp_path), "envs"]
    result = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and "All is there" not in result.stderr


@pytest.mark.slow
def test_gpu_report_at_toy_size(tmp_path):
    cut = gpu_report(tmp_path, "success", seconds=1)
    assert cut.returncode == 3 and "the same call goes on" in cut.stderr
    assert not list(tmp_path.glob("*.json"))
    result = gpu_report(tmp_path, "seeds", "success")
    assert result.returncode == 0, result.stderr
    assert {row["value"] for row in json.loads((tmp_path / "seeds.json").read_text())["results"]} == {1, 2}
    assert (tmp_path / "seeds.csv").exists() and (tmp_path / "seeds.png").exists()
    with (tmp_path / "success.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["environment"], row["agent"], row["seeds"]) for row in rows] == [
        ("simple_u_maze", "crl", "2"),
        ("simple_u_maze", "tmd", "2"),
    ]
    assert "| simple_u_maze | tmd | 2 |" in (tmp_path / "success.md").read_text()
    again = gpu_report(tmp_path, "seeds", "success")
    assert again.returncode == 0 and "training.py" not in again.stderr and "seeds.json is there." in again.stderr


def test_cells_keep_their_bars():
    assert markdown.table(("a", "b"), [("c|d", "e")]).splitlines()[-1] == r"| c\|d | e |"
