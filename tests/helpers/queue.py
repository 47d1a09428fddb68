"""A folder with the rows of a results queue that trains on `toy`."""

import json
import sys

from goalax.commands import results as command
from goalax.study import markdown, results
from tests.helpers import ROOT, toy

FLAGS = " ".join(toy.BASELINE)
TRAIN = [sys.executable, "-c", f"{toy.START} sys.exit(train.main())"]


def folder_of(tmp_path, monkeypatch):
    """An empty folder in which trainings know the toy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(command.Queue, "command", TRAIN)
    for name in ("docs", "benchmarks/results"):
        (tmp_path / name).mkdir(parents=True)
    for name, text in (("results", "a\n" + place("one") + "b\n"), ("offline", "offline\n"), ("planning", "")):
        (tmp_path / f"docs/{name}.md").write_text(text)
    return tmp_path


def place(section):
    return "old\n".join(markdown.marks(section, "results.py"))


def write(folder, *rows, flags=FLAGS):
    lines = "".join(f"    - {row}\n" for row in rows)
    text = f"- section: one\n  threshold: 0.1\n  flags: {flags}\n  rows:\n{lines}"
    (folder / "benchmarks/results/rows.yml").write_text(text)


def rows(folder):
    return results.read_rows(folder / "benchmarks/results/rows.yml")


def document(folder):
    return (folder / "docs/results.md").read_text()


def kept(folder):
    return sorted(path.name for path in (folder / "benchmarks/results").iterdir() if path.is_dir())


def leave(folder, row, told, needed=results.experiments.NEEDED):
    """Runs of a row as if they had finished: evaluations that tell this, and of all else that is needed 0.5."""
    for seed in row.seeds:
        flags = {name: getattr(row.flags, name) for name in vars(row.flags)} | results.settings_of(row)
        content = {"flags": flags | {"seed": seed}, "agent_flags": vars(row.agent_flags), "device": "a core"}
        run = folder / f"benchmarks/results/{row.name}_s{seed}"
        run.mkdir()
        (run / "config.json").write_text(json.dumps(content))
        table = [dict.fromkeys(needed, 0.5) | each for each in told]
        lines = [",".join(table[0]), *(",".join(map(str, each.values())) for each in table)]
        (run / "metrics.csv").write_text("\n".join(lines) + "\n")
