"""The report on groups of runs: one HTML page with curves, tables and films inside, which needs no network."""

import base64
import html
import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from goalax.host.display import duration, track
from goalax.study import curves
from goalax.study.experiments import NAMES, Group, differing, short
from goalax.study.statistics import Estimate, interquartile_mean, probability_of_improvement

PAGE = Path(__file__).with_name("report.html")
INK = "#010203"  # stands for the page's text colour, which is another one in the dark
ALL = "all environments"
FEW = "With few seeds, less than ten or so, intervals are narrower than they should be."


def save(groups: Sequence[Group], notes: Sequence[str], path: Path) -> None:
    """Writes the page.

    Args:
      notes: one sentence each on runs that are not in the report, or not as they were given.
    """
    sections = [
        section("Learning curves", "", *drawings(groups)),
        section(
            "Final evaluation",
            "Interquartile mean over seeds with its 95% interval, at the last evaluation that all seeds have. All"
            f" environments: over the seeds of all of them, resampled within each (stratified bootstrap). {FEW}",
            table(
                ("environment", "agent", "seeds", "steps", *MEASURES, "distance at the end", "wall clock"),
                final(groups),
            ),
        ),
        improvement(groups),
        settings(groups),
        films(groups),
        section("Where they were trained", "", origins(groups)),
        section("About these runs", "", listing(groups, notes)),
    ]
    number = sum(len(group.runs) for group in groups)
    title = f"{number} run{'s' * (number > 1)} of {', '.join(dict.fromkeys(g.settings['agent'] for g in groups))}"
    text = PAGE.read_text().replace("{{title}}", html.escape(title))
    path.write_text(text.replace("{{body}}", "\n".join(filter(None, sections))))


def section(title: str, words: str, *parts: str) -> str:
    intro = f"<p>{html.escape(words)}</p>" if words else ""
    return "\n".join([f"<section>\n<h2>{html.escape(title)}</h2>{intro}", *parts, "</section>"])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns are text, cells HTML."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def cell(estimate: Estimate) -> str:
    interval = "one seed" if np.isnan(estimate.low) else f"{estimate.low:.3f} to {estimate.high:.3f}"
    return f'{estimate.value:.3f}<span class="interval">{interval}</span>'


# ---- curves ----------------------------------------------------------------------------------------------------------


def drawings(groups: Sequence[Group]) -> list[str]:
    wall_clock = f"<details><summary>Over wall clock</summary>{drawing(groups, 'wall_clock')}</details>"
    return [drawing(groups, "steps"), wall_clock]


def drawing(groups: Sequence[Group], x: str) -> str:
    """The curves as SVG in the text colour of the page."""
    names = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
    # Any: newer versions of matplotlib list the names that there are.
    style: dict[Any, str] = {**dict.fromkeys(names, INK), "svg.fonttype": "none", "font.family": "sans-serif"}
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        curves.compare(groups, x).savefig(buffer, format="svg", transparent=True, metadata=empty)
    text = buffer.getvalue().replace(INK, "currentColor")
    label = f"Learning curves over {curves.AXES[x]}"
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


# ---- numbers ---------------------------------------------------------------------------------------------------------

MEASURES = {curves.REACHED: lambda group: group.reached[:, -1], curves.NEAR: lambda group: group.near[:, -1]}


def by_label(groups: Sequence[Group]) -> dict[str, dict[str, Group]]:
    """label -> environment -> group."""
    found: dict[str, dict[str, Group]] = {}
    for group in groups:
        found.setdefault(group.label, {})[group.env] = group
    return found


def final(groups: Sequence[Group]) -> list[list[str]]:
    """A row per group, and one per agent that was trained in all of several environments."""
    envs = list(dict.fromkeys(group.env for group in groups))
    rows = []
    for group in sorted(groups, key=lambda group: envs.index(group.env)):
        measures = [cell(interquartile_mean([of(group)])) for of in MEASURES.values()]
        distance = cell(interquartile_mean([group.metric("eval/final_dist")[:, -1]]))
        seconds = duration(group.metric("training/walltime")[:, -1].mean())
        words = [html.escape(group.env), html.escape(group.label), str(len(group.runs)), f"{group.steps[-1]:,}"]
        rows.append([*words, *measures, distance, seconds])
    for label, members in by_label(groups).items():
        if len(envs) > 1 and members.keys() == set(envs):
            measures = [cell(interquartile_mean([of(group) for group in members.values()])) for of in MEASURES.values()]
            seeds = sum(len(group.runs) for group in members.values())
            rows.append([ALL, html.escape(label), str(seeds), "", *measures, "", ""])
    return rows


def improvement(groups: Sequence[Group]) -> str:
    """Every pair of agents in the environments that both were trained in; nothing where no pair has several seeds."""
    pairs = []
    for (ours, first), (theirs, second) in itertools.combinations(by_label(groups).items(), 2):
        envs = [env for env in first if env in second and min(len(first[env].runs), len(second[env].runs)) > 1]
        if envs:
            pairs.append((f"{ours} over {theirs}", envs, first, second))
    rows = []
    for words, envs, first, second in track(pairs, "comparing agents"):
        sides = [[[of(side[env]) for env in envs] for side in (first, second)] for of in MEASURES.values()]
        cells = [cell(probability_of_improvement(*both)) for both in sides]
        where = ", ".join(env + unequal(first[env], second[env]) for env in envs)
        rows.append([html.escape(words), html.escape(where), *cells])
    words = (
        "How probable it is that a random seed of the first agent ends better than a random one of the second (a tie"
        " counts half), mean over environments, with its 95% interval: an interval above 0.5 favours the first."
        f" A single seed is not compared. {FEW}"
    )
    return section("Probability of improvement", words, table(("agents", "in", *MEASURES), rows)) if rows else ""


def unequal(first: Group, second: Group) -> str:
    ends = [group.steps[-1] for group in (first, second)]
    return "" if ends[0] == ends[1] else f" (after {ends[0]:,} and {ends[1]:,} steps)"


def settings(groups: Sequence[Group]) -> str:
    """The flags that differ between groups, beside what their names say; nothing where there are none."""
    known = (*NAMES, "env_name", "eval_env", "agent")
    names = [name for name in differing([group.settings for group in groups]) if name not in known]
    rows = []
    for group in groups:
        values = [short(group.settings.get(name, "")) for name in names]
        rows.append([html.escape(value) for value in (group.env, group.label, *values)])
    return section("Flags that differ", "", table(("environment", "agent", *names), rows)) if names else ""


def origins(groups: Sequence[Group]) -> str:
    """A row for every device, commit and set of versions, and how many runs of which groups come from there."""
    found: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for group in groups:
        for run in group.runs:
            versions = run.origin["versions"] or {}
            text = ", ".join(f"{name} {version}" for name, version in versions.items())
            commit = re.sub(r"([0-9a-f]{10})[0-9a-f]{30}", r"\1", run.origin["git_commit"] or "")
            key = (run.origin["device"], commit, text)
            found[tuple(str(part or "unknown") for part in key)][f"{group.label} in {group.env}"] += 1
    rows = []
    for place, counts in found.items():
        members = "; ".join(f"{count} of {label}" for label, count in counts.items())
        words = members if len(found) > 1 else "all"
        rows.append([html.escape(part) for part in (*place, words)])
    return table(("device", "commit", "versions", "runs"), rows)


# ---- films and directories -------------------------------------------------------------------------------------------


def films(groups: Sequence[Group]) -> str:
    """The GIF of each group's most typical seed: the one that ends nearest to the median of its time at the goal."""
    figures = []
    for group in groups:
        scores = group.near[:, -1]
        for index in np.argsort(np.abs(scores - np.median(scores)), kind="stable"):
            file = group.runs[index].directory / "policy.gif"
            if file.is_file():
                data = base64.b64encode(file.read_bytes()).decode()
                words = html.escape(f"{group.label} in {group.env}, seed {group.runs[index].seed}")
                figures.append(
                    f'<figure><img src="data:image/gif;base64,{data}" alt="{words}">'
                    f"<figcaption>{words}</figcaption></figure>"
                )
                break
    words = "First episodes of the last evaluation, of the seed that ends nearest to the median time at the goal."
    return section("Policies", words, f'<div class="films">{"".join(figures)}</div>') if figures else ""


def listing(groups: Sequence[Group], notes: Sequence[str]) -> str:
    items = [f"{group.label} in {group.env}: {', '.join(str(run.directory) for run in group.runs)}" for group in groups]
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in [*items, *notes]) + "</ul>"
