"""Writes the final evaluations of many runs as a table: Markdown, CSV or JSON, a row per environment and agent."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from goalax.flags import flag
from goalax.study import markdown, measures, whole_command
from goalax.study.experiments import Group
from goalax.study.measures import MeasuresConfig
from goalax.study.results_document import unit_of
from goalax.study.script import script
from goalax.study.statistics import Estimate, interquartile_mean
from goalax.whole import aside


@dataclasses.dataclass(frozen=True)
class TableConfig(MeasuresConfig):
    """What to read, and where to write."""

    out: str = flag("table.md", "file to write; it ends in .md, .csv or .json")


def interval(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """The three numbers by name; ends are None where one seed says nothing of them, all where runs do not tell it."""
    if estimate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{name}{end}": None if value != value else float(value) for end, value in ends.items()}


def row(group: Group, threshold: float) -> dict[str, Any]:
    """Numbers of the last evaluation that all seeds have; shares are interquartile means with 95% intervals."""
    origin = group.runs[0].origin
    first, seeds = measures.speed(group, threshold)
    return {
        "environment": group.env,
        "agent": group.label,
        "seeds": len(group.runs),
        "steps": int(group.at[-1]),
        "unit": "updates on a dataset" if unit_of(group) else "environment steps",  # of all steps here
        **interval("reached", interquartile_mean([group.reached[:, -1]])),
        "share": "success over tasks" if measures.has_tasks(group) else "time at the goal",  # what such shares are of
        **interval("time_at_goal", interquartile_mean([measures.shares(group)[:, -1]])),
        **interval("success", measures.last_three(group, measures.TASKS)),  # of OGBench, over its tasks
        **interval("final_dist", interquartile_mean([group.metric("eval/final_dist")[:, -1]])),
        **interval("mean_time_at_goal", measures.area(group)),  # over training
        "threshold": threshold,
        "steps_to_threshold": int(first) if first < float("inf") else None,  # the median; None: not half of the seeds
        "seeds_at_threshold": seeds,
        **interval("falls", measures.last(group, measures.FALLS)),
        **interval("coverage", measures.last(group, measures.COVERAGE)),
        # Training and evaluation without compilation and prefill; seeds that ran as one program share it.
        "seconds": float(group.metric("training/walltime")[:, -1].mean()),
        "device": origin["device"] or "unknown",
        **{name: str((origin["versions"] or {}).get(name, "unknown")) for name in ("jax", "brax")},
        "command": " && ".join(whole_command.lines(origin, group.settings["agent"])),
    }


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    def share(row: dict[str, Any], name: str, digits: int) -> str:
        value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        if value is None:
            return ""
        return f"{value:.{digits}f}" + ("" if low is None else f" ({low:.{digits}f} to {high:.{digits}f})")

    columns = ("environment", "agent", "seeds", "steps", "episodes that reach the goal", "share of time at the goal")
    lines = []
    for row in rows:
        shares = [share(row, name, 3) for name in ("reached", "time_at_goal", "mean_time_at_goal")]
        first = row["steps_to_threshold"]
        unit = " updates" if row["unit"].startswith("updates") else ""  # as `unit_of` has it
        steps = f"> {row['steps']:,}" if first is None else f"{first:,}"
        speed = f"{steps}{unit} ({row['seeds_at_threshold']} of {row['seeds']} seeds)"
        more = [share(row, name, 3) for name in ("success", "falls", "coverage")] + [share(row, "final_dist", 2)]
        words = row["environment"], row["agent"], str(row["seeds"]), f"{row['steps']:,}{unit}"
        lines.append([*words, *shares, speed, *more, f"{row['seconds']:,.0f}", row["device"]])
    note = (
        "Interquartile means over seeds with 95% intervals; steps to a share of time at the goal are the median over"
        " seeds; seconds are those of training and evaluation together, of all seeds that one program trained. Episodes"
        " of OGBench's environments end at the goal: in place of time at it stands success over their tasks."
    )
    whole = (*columns, "the same, mean over training", f"steps to {rows[0]['threshold']:g} of the time")
    rest = (
        "success over OGBench's tasks, mean of the last 3",
        "episodes that end early",
        "cells visited",
        "distance at the end",
        "seconds",
        "device",
    )
    return f"{note}\n\n" + markdown.table((*whole, *rest), lines)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_json(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(list(rows), indent=2) + "\n"


WRITERS = {".md": as_markdown, ".csv": as_csv, ".json": as_json}


def save(groups: Sequence[Group], notes: Sequence[str], path: Path, config: TableConfig) -> None:
    text = WRITERS[path.suffix]([row(group, config.threshold) for group in groups])
    with aside(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def main(argv: Sequence[str], prog: str = "table.py") -> int:
    """Runs a command line; returns the exit code."""
    description = "Writes the final evaluations of runs as a table, a row per group of seeds."
    return script(argv, TableConfig(), prog, description, tuple(WRITERS), save)
