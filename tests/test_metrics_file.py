"""A metrics.csv that somebody edited, tore or deleted: what can be read counts, and all is kept."""

import csv
import math
import os
import re

import pytest

from goalax.commands import train as training
from goalax.host import display, runs
from tests.helpers import toy
from tests.helpers.runs import LONGER, RUN, envsteps, rows

toy.register()


@pytest.fixture
def run(resumed_toy):
    """(flags) -> exit code."""
    return resumed_toy


def test_a_column_of_words_is_kept(run, capsys):
    path = RUN / "metrics.csv"
    first, *lines = path.read_text().splitlines()
    path.write_text("\n".join([first + ",notes", *(line + ",a good one" for line in lines)]) + "\n")
    content = path.read_text()
    (RUN / "metrics.csv.bak-1").write_text("mine")
    before = rows()
    assert run(*LONGER) == 0
    assert (RUN / "metrics.csv.bak-1").read_text() == "mine"
    assert (RUN / "metrics.csv.bak-2").read_text() == content
    assert "it is kept as metrics.csv.bak-2; 3 rows of it could be read and go on" in capsys.readouterr().out
    del before[0]["notes"], before[1]["notes"], before[2]["notes"]
    assert rows()[:3] == before and envsteps() == [60, 100, 120, 140, 160]


def saved_by_a_spreadsheet(text):
    return text.replace(".", ",!").replace(",!", "!").replace(",", ";").replace("!", ",")


@pytest.mark.parametrize(
    ("change", "kept", "steps"),
    [
        (lambda text: "\ufeff" + text.replace(",", " , ").replace("\n", "  \r\n"), False, [60, 100, 120]),
        (saved_by_a_spreadsheet, True, [60, 100, 120]),
        (lambda text: text.replace(",", "\t"), True, [60, 100, 120]),
        (lambda text: text + "130,1,0", False, [60, 100, 120]),  # torn by a crash
        (lambda text: text[:-2], True, [60, 100]),  # torn inside its last value, or by somebody's editor
        (lambda text: text.replace("\n60,", "\nsixty,"), True, [100, 120]),
        (lambda text: text.replace("\n60,", "\n60,1,1,1,"), True, [100, 120]),
        (lambda text: text.replace("envsteps", "steps"), True, []),
        (lambda text: "nothing of this\nis a table\n", True, []),
        (lambda text: "\0" * 5 + '"' + "x" * 200_000, True, []),
        (lambda text: "", False, []),
    ],
)
def test_tables_that_something_else_wrote(change, kept, steps, run):
    path = RUN / "metrics.csv"
    text = change(path.read_bytes().decode().replace("\r", ""))
    path.write_bytes(text.encode())
    said = []
    file = runs.MetricsFile(RUN, 120, said.append)
    assert [row["training/envsteps"] for row in file.rows] == steps
    assert len(said) == kept and (RUN / "metrics.csv.bak-1").exists() == kept
    if kept:
        assert (RUN / "metrics.csv.bak-1").read_bytes() == text.encode()
    file.append({"training/envsteps": 140, "eval/x": 0.5})
    assert envsteps() == [*steps, 140] and len(said) == kept


def test_bytes_that_are_no_text_are_kept(run):
    (RUN / "metrics.csv").write_bytes(bytes(range(256)))
    assert runs.MetricsFile(RUN, 120, [].append).rows == []
    assert (RUN / "metrics.csv.bak-1").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("torn", [True, False])
def test_a_table_that_goes_while_training(torn, run, monkeypatch, capsys):
    evaluated, path = display.Display.evaluated, RUN / "metrics.csv"

    def spoil(display, env_steps, metrics):
        if env_steps == 140:
            path.write_bytes(path.read_bytes()[:-30]) if torn else path.unlink()
        return evaluated(display, env_steps, metrics)

    monkeypatch.setattr(display.Display, "evaluated", spoil)
    assert run(*LONGER) == 0
    assert envsteps() == [60, 100, 120, 140, 160]
    out = capsys.readouterr().out
    assert out.count("it is written anew, with all rows") == 1
    assert ("is kept as metrics.csv.bak-1" if torn else "metrics.csv was deleted") in out


def test_a_summary_of_a_table_without_some_columns(run):
    (RUN / "metrics.csv").write_text("training/envsteps,notes\n5,x\n")
    assert training.numbers(RUN) == {"environment steps": "5"}


def test_columns_that_come_later_do_not_shift_the_others(tmp_path):
    file = runs.MetricsFile(tmp_path, 0)
    table = [{runs.STEPS: 1, "a": 1.0}, {runs.STEPS: 2, "a": 2.0, "b": 3.0}, {runs.STEPS: 3, "a": 4.0}]
    for row in table:
        file.append(row)
    assert runs.read_metrics(tmp_path / "metrics.csv") == table
    with (tmp_path / "metrics.csv").open(newline="") as lines:
        assert {len(line) for line in csv.reader(lines)} == {3}
    assert not re.search("part|bak", " ".join(os.listdir(tmp_path)))


def test_a_number_too_large_for_a_float_is_none(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(f"training/envsteps,a\n12,{'9' * 400}\n")
    (row,) = runs.read_metrics(path)
    assert isinstance(row["training/envsteps"], int) and not math.isfinite(row["a"])
