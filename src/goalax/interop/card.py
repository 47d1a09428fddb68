"""The card of a policy in Markdown: what it is, what it reached, how it was trained, how to call it."""

import os
from pathlib import Path
from urllib.parse import quote

import jax

from goalax.core.types import RunState, Spec
from goalax.host import behind, runs
from goalax.host.make import Run
from goalax.interop import export
from goalax.study import markdown, whole_command
from goalax.whole import aside, copy

REMEMBERED = ", by the agent with what it remembers of an episode (its plan, say), which the file does not"
FILMS = ("policy.gif", "policy.mp4")  # of a run directory, the first one that is there


def is_of(row: dict[str, float], state: RunState) -> bool:
    """Whether a row of metrics.csv tells of a state; before the first step updates on a dataset count."""
    steps, updates = int(state.env_steps), int(state.gradient_steps)
    return row.get(runs.STEPS) == steps and (steps > 0 or row.get("training/gradient_steps") == updates)


def measured(directory: Path, state: RunState) -> dict[str, float]:
    """Evaluation metrics of a run at a state; none where it was not evaluated there."""
    rows = [row for row in runs.read_metrics(directory / "metrics.csv") if is_of(row, state)]
    times = {"eval/sps", "eval/epoch_eval_time"}
    return {
        name: value for row in rows for name, value in row.items() if name.startswith("eval/") and name not in times
    }


def usage(run: Run, policy: str) -> str:
    spec = run.spec
    if export.is_onnx(Path(policy)):
        return (
            "```python\n"
            "import numpy as np\n"
            "import onnxruntime\n\n"
            f"policy = onnxruntime.InferenceSession({policy!r})\n"
            f"state, goal = np.zeros((1, {spec.state_size}), np.float32), np.zeros((1, {spec.goal_size}), np.float32)\n"
            'action = policy.run(None, {"state": state, "goal": goal})[0]'
            f"  # [1, {spec.action_size}], each entry in [-1, 1]\n"
            "```\n"
        )
    return (
        "```python\n"
        "from pathlib import Path\n"
        "import jax.export  # with the package flatbuffers\n"
        "import numpy as np\n\n"
        f"policy = jax.export.deserialize(bytearray(Path({policy!r}).read_bytes()))\n"
        f"state, goal = np.zeros((1, {spec.state_size}), np.float32), np.zeros((1, {spec.goal_size}), np.float32)\n"
        f"action = policy.call(state, goal)  # [1, {spec.action_size}], each entry in [-1, 1]\n"
        "```\n"
    )


def takes(spec: Spec) -> str:
    """What the policy takes, and when it is at the goal."""
    if spec.goal_size == 0:
        return f"It takes states [{spec.state_size}]; there are no goals here, and those of a call are empty, [0]."
    judged = "the environment itself judges when it is at the goal"
    if spec.goal_reach_thresh > 0:
        judged = f"is at the goal when nearer than {spec.goal_reach_thresh:g}"
    return f"It takes states [{spec.state_size}] and goals [{spec.goal_size}], and {judged}."


def training(directory: Path, state: RunState, agent: str) -> list[str]:
    """How to train the same; nothing where that is not known."""
    content = runs.read_content(directory)
    if not (commands := whole_command.lines(content, agent)):
        return []
    words, rows = list[str](), runs.read_metrics(directory / "metrics.csv")
    if times := len(whole_command.calls(content)) - 1:
        often = "once" if times == 1 else f"{times} times"
        what = "this has the flags of all its calls" if len(commands) == 1 else "these are its calls, one after another"
        words.append(f"The run was resumed {often}: {what}.")
    if rows and not is_of(rows[-1], state):
        words.append("It goes on after the state that is told of here.")
    return [
        "## How it was trained\n",
        "```\n" + "\n".join(commands) + "\n```\n",
        *(f"{' '.join(words)}\n",) * bool(words),
    ]


def text(run: Run, state: RunState, directory: Path, policy: str, film: str | None) -> str:
    """The card of a run's policy at a state.

    Args:
      directory: of the run.
      policy: the name of the exported file.
      film: the name of a film beside the card; None for none.
    """
    config, spec = run.config, run.spec
    trained = behind.in_words(config, state, "environment steps", " on a dataset")
    versions = runs.read_content(directory).get("versions")
    parts = [
        f"# {config.agent} in {config.env_name}\n",
        f"A {'goal-conditioned ' if spec.goal_size else ''}policy of Goalax: `{config.env_name}` ({run.env.backend}),"
        f" `--agent {config.agent}`, seed {config.seed}, {trained}. {takes(spec)}\n",
    ]
    if film is not None:
        words = f"![{config.agent} in {config.env_name}]" if film.endswith("gif") else "[Film]"
        parts.append(f"{words}({quote(os.fsencode(film))})\n")  # with a space in it, it would be no address
    metrics = measured(directory, state)
    if metrics:
        rows = [[f"`{name}`", f"{value:.4g}"] for name, value in sorted(metrics.items())]
        length = f"{config.num_eval_envs} episodes of {config.episode_length} steps in `{config.eval_env}`"
        words = f"Means over {length}{REMEMBERED if jax.tree.leaves(state.env.memory) else ''}.\n"
        parts += ["## What it reached\n", words, markdown.table(("metric", "mean"), rows)]
    parts += training(directory, state, config.agent)
    if isinstance(versions, dict):
        parts.append("With " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".\n")
    return "\n".join([*parts, "## How to call it\n", usage(run, policy)])


def write(run: Run, state: RunState, directory: Path, policy: Path, path: Path) -> list[Path]:
    """Writes the card, all of it or nothing, and a copy of the run's film beside it where there is one; returns their
    paths. OSError."""
    film = next((directory / name for name in FILMS if (directory / name).is_file()), None)
    newest = runs.read_metrics(directory / "metrics.csv")
    if film is not None and newest and not is_of(newest[-1], state):
        film = None  # it shows the end of the run, not this checkpoint
    copied = None if film is None else path.with_name(f"{path.stem}{film.suffix}")
    content = text(run, state, directory, policy.name, None if copied is None else copied.name)
    with aside(path) as page:  # bytes of a command that are no UTF-8 stand as they are written in Python
        page.write_text(content, encoding="utf-8", errors="backslashreplace")
        if film is not None and copied is not None and film.resolve() != copied.resolve():
            copy(film, copied)
    return [path] if copied is None else [path, copied]
