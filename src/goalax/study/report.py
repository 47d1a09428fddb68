"""The report on groups of runs: one HTML page with curves, tables and films inside, which needs no network."""

import base64
import hashlib
import html
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from goalax.host.display import duration, track
from goalax.host.goal_cells import GoalCells
from goalax.study import curves, heat_maps, measures, profiles
from goalax.study.experiments import NAMES, Group, differing, short
from goalax.study.hover import Drawing, described, mark
from goalax.study.profiles import MEASURES, by_label
from goalax.study.results_document import unit_of
from goalax.study.statistics import Estimate, interquartile_mean, probability_of_improvement
from goalax.study.svg import svg
from goalax.whole import aside

PAGE = Path(__file__).with_name("report.html")
SCRIPT = Path(__file__).with_name("report.js")
ALL = "all environments"
CURVES = "Point at a drawing for the values there; a click on a name in its legend hides the line, or shows it again."
TASKS = "Episodes of OGBench's environments end at the goal: in place of time at it stands success over their tasks."
FEW = "With few seeds, less than ten or so, intervals are narrower than they should be."


def save(groups: Sequence[Group], notes: Sequence[str], path: Path, threshold: float = 0.5) -> None:
    """Writes the page.

    Args:
      notes: one sentence each on runs that are not in the report, or not as they were given.
      threshold: share of time at the goal; the report tells when it is reached.
    """
    maps, damaged = heat_maps.of_groups(groups)
    policies, unread = films(groups)
    tasks = f" {TASKS}" if any(map(measures.has_tasks, groups)) else ""
    sections = [
        section("Learning curves", CURVES, *drawings(groups)),
        section(
            "Final evaluation",
            "Interquartile mean over seeds with its 95% interval, at the last evaluation that all seeds have. All"
            " environments: over the seeds of all of them, each environment counting alike, resampled within each"
            " (stratified bootstrap). The wall clock is that of a program, which may have trained several of the seeds"
            f" at once. {FEW}{tasks}",
            table(
                ("environment", "agent", "seeds", "steps", *MEASURES, "distance at the end", "wall clock"),
                final(groups),
            ),
        ),
        on_the_way(groups, threshold),
        profile(groups),
        improvement(groups),
        goal_maps(maps),
        settings(groups),
        policies,
        section("Where they were trained", "", origins(groups)),
        section("About these runs", "", listing(groups, [*notes, *damaged, *unread])),
    ]
    number = sum(len(group.runs) for group in groups)
    title = f"{number} run{'s' * (number > 1)} of {', '.join(dict.fromkeys(g.settings['agent'] for g in groups))}"
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = PAGE.read_text(encoding="utf-8").replace("{{title}}", html.escape(title))
    text = text.replace("{{script}}", script).replace("{{script_hash}}", f"sha256-{digest}")
    text = text.replace("{{body}}", "\n".join(filter(None, sections)))
    with aside(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def section(title: str, words: str, *parts: str) -> str:
    intro = f"<p>{html.escape(words)}</p>" if words else ""
    return "\n".join([f"<section>\n<h2>{html.escape(title)}</h2>{intro}", *parts, "</section>"])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns are text, cells HTML."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def cell(estimate: Estimate, unknown: str = "one seed") -> str:
    """unknown: why there may be no interval."""
    interval = unknown if np.isnan(estimate.low) else f"{estimate.low:.3f} to {estimate.high:.3f}"
    return f'{estimate.value:.3f}<span class="interval">{interval}</span>'


# ---- curves ----------------------------------------------------------------------------------------------------------


def drawings(groups: Sequence[Group]) -> list[str]:
    wall_clock = f"<details><summary>Over wall clock</summary>{drawing(groups, 'wall_clock')}</details>"
    return [drawing(groups, "steps"), wall_clock]


def drawing(groups: Sequence[Group], x: str) -> str:
    label = f"Learning curves over {curves.along(x, *curves.starts(groups))}"
    return chart(partial(curves.compare, groups, x), label, f"over-{x}")


def chart(draw: Callable[[], Drawing], label: str, name: str) -> str:
    """A drawing that tells the values under the pointer; name: for its ids."""
    drawn: list[Drawing] = []

    def figure() -> Figure:
        drawn.append(draw())
        mark(drawn[0], name)
        return drawn[0].figure

    picture = svg(figure, label)
    return f'<div class="chart" data-curves="{html.escape(described(drawn[0], name))}">{picture}</div>'


# ---- numbers ---------------------------------------------------------------------------------------------------------


def final(groups: Sequence[Group]) -> list[list[str]]:
    """A row per group, and one per agent that was trained in all of several environments."""
    envs = list(dict.fromkeys(group.env for group in groups))
    rows = []
    for group in sorted(groups, key=lambda group: envs.index(group.env)):
        measures = [cell(interquartile_mean([of(group)])) for of in MEASURES.values()]
        distance = cell(interquartile_mean([group.metric("eval/final_dist")[:, -1]]))
        seconds = duration(group.metric("training/walltime")[:, -1].mean())
        steps = f"{group.at[-1]:,}{unit_of(group)}"
        words = [html.escape(group.env), html.escape(group.label), str(len(group.runs)), steps]
        rows.append([*words, *measures, distance, seconds])
    for label, members in by_label(groups).items():
        if len(envs) > 1 and members.keys() == set(envs):
            scores = [[of(group) for group in members.values()] for of in MEASURES.values()]
            measures = [cell(interquartile_mean(each), "one seed in an environment") for each in scores]
            seeds = sum(len(group.runs) for group in members.values())
            rows.append([ALL, html.escape(label), str(seeds), "", *measures, "", ""])
    return rows


def on_the_way(groups: Sequence[Group], threshold: float) -> str:
    """A row per group: the mean over training, when a threshold was reached, falls and, of mazes, coverage."""
    columns = ["environment", "agent", f"{curves.NEAR}, mean over training", f"steps to {threshold:g} of the time"]
    told = {"episodes that end early": measures.FALLS, "cells visited": measures.COVERAGE}
    told |= {"success over OGBench's tasks, mean of the last 3 evaluations": measures.TASKS}
    told = {words: name for words, name in told.items() if any(group.has(name) for group in groups)}
    law = {measures.TASKS: measures.last_three}
    rows = []
    for group in groups:
        first, seeds = measures.speed(group, threshold)
        steps = (f"{first:,.0f}" if np.isfinite(first) else f"&gt; {group.at[-1]:,}") + unit_of(group)
        of_seeds = f'<span class="interval">{seeds} of {len(group.runs)} seeds</span>'
        more = [law.get(name, measures.last)(group, name) for name in told.values()]
        cells = [cell(measures.area(group)), steps + of_seeds, *("" if each is None else cell(each) for each in more)]
        rows.append([html.escape(group.env), html.escape(group.label), *cells])
    words = (
        "The mean over training is the area under the learning curve, from the first evaluation (the last one on a"
        " dataset, where steps follow) to the last. Steps are"
        " those of the first evaluation with this share of time at the goal: the median over seeds, where a seed"
        " without one takes longer than all others. Episodes end early where a body falls or breaks; cells are those of"
        " the maze that the stored states visit."
    )
    return section("On the way, and how safely", words, table((*columns, *told), rows))


def profile(groups: Sequence[Group]) -> str:
    """Performance profiles of the agents that were trained in all environments; nothing of single runs."""
    if not profiles.drawable(groups):
        return ""
    left = [label for label in profiles.by_label(groups) if label not in profiles.complete(groups)]
    words = (
        "The share of runs that end above a score, mean over environments; the higher line is better, and where two"
        " cross neither agent is better throughout (Agarwal et al. 2021)."
    )
    words += f" Not trained in all environments, and left out: {', '.join(left)}." if left else ""
    return section(
        "Performance profiles", words, chart(partial(profiles.compare, groups), "Performance profiles", "profiles")
    )


def goal_maps(maps: Sequence[tuple[Group, GoalCells]]) -> str:
    """The heat maps of mazes; nothing where there are none."""
    drawn = []
    for group, cells in track(maps, "drawing mazes"):
        title = f"{group.label} in {group.env}"
        drawn.append(svg(partial(heat_maps.figure, cells, title), f"Goals reached by {title}"))
    words = (
        "By the cell in which the goal lies, at the last evaluation of each seed: the share, and how many episodes of"
        " all seeds it is of. Walls are grey; cells without a number had no goal."
    )
    return section("Goals of the maze", words, *drawn) if drawn else ""


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
    (end, unit), (other, other_unit) = ((f"{group.at[-1]:,}", unit_of(group) or " steps") for group in (first, second))
    if unit == other_unit:
        return "" if end == other else f" (after {end} and {other}{unit})"
    return f" (after {end}{unit} and {other}{other_unit})"


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


def films(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """The GIF of each group's most typical seed: the one that ends nearest to the median of its time at the goal.

    And a sentence on each that cannot be read: a training that goes on moves those of its earlier end away.
    """
    figures, notes = [], []
    for group in groups:
        scores = measures.shares(group)[:, -1]
        for index in np.argsort(np.abs(scores - np.median(scores)), kind="stable"):
            file = group.runs[index].directory / "policy.gif"
            try:
                if not file.is_file():
                    continue
                data = base64.b64encode(file.read_bytes()).decode()
            except OSError as error:
                notes.append(f"{file} cannot be read ({error.strerror}). It is left out.")
            else:
                words = html.escape(f"{group.label} in {group.env}, seed {group.runs[index].seed}")
                figures.append(
                    f'<figure><img src="data:image/gif;base64,{data}" alt="{words}">'
                    f"<figcaption>{words}</figcaption></figure>"
                )
                break
    words = "First episodes of the last evaluation, of the seed that ends nearest to the median time at the goal."
    text = section("Policies", words, f'<div class="films">{"".join(figures)}</div>') if figures else ""
    return text, notes


def listing(groups: Sequence[Group], notes: Sequence[str]) -> str:
    items = [f"{group.label} in {group.env}: {', '.join(str(run.directory) for run in group.runs)}" for group in groups]
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in [*items, *notes]) + "</ul>"
