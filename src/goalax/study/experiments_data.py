"""Which runs learned from the same files: by what is in these, whatever their paths."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

DATA = ("dataset", "finetune_dataset")  # flags of files, whose SHA-256 config.json has


def by_content(runs: Sequence[tuple[dict[str, Any], Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The settings of runs, in which equal files have one name, the first path of them, and different ones two.

    Versions that kept no SHA-256 of a file go by its path.

    Args:
      runs: (settings, origin) of each, as of `experiments.Trained`.
    """
    content_of: dict[str, set[str]] = defaultdict(set)  # of paths
    path_of: dict[str, str] = {}
    for settings, origin in runs:
        for flag in DATA:
            if flag in settings and (sha := origin[f"{flag}_sha256"]) is not None:
                content_of[settings[flag]].add(sha)
                path_of.setdefault(sha, settings[flag])
    contents = Counter(path_of.values())

    def named(path: str, sha: str | None) -> str:
        if sha is None and len(content_of[path]) == 1:
            (sha,) = content_of[path]
        if sha is None:
            return path
        return f"{path_of[sha]} (SHA-256 {sha[:8]})" if contents[path_of[sha]] > 1 else path_of[sha]

    return [
        settings | {flag: named(settings[flag], origin[f"{flag}_sha256"]) for flag in DATA if flag in settings}
        for settings, origin in runs
    ]
