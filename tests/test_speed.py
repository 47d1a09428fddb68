"""The table of speeds of scripts/speed.py: an hour a call, where it is written, and what is no such table."""

import json
from pathlib import Path

import pytest

from goalax.commands import speed
from goalax.flags import FlagError
from goalax.study import markdown
from tests.helpers import toy
from tests.helpers.benchmarks import NAMELESS, raising

toy.register()


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


def test_the_middle_of_an_even_number_lies_between_two():
    assert speed.span([4.0, 1.0, 2.0, 3.0], "{:g}".format) == "2.5 (1 to 4)"


def test_speeds_that_meet_an_error_without_a_file(speed_document, monkeypatch, capsys):
    monkeypatch.setattr(speed, "measure", raising(NAMELESS))
    assert speed_document() == 2
    assert capsys.readouterr().err == "speed.py: a file cannot be read or written: No space left on device.\n"
