"""Early ends of the runs of a sweep: the successive halving that a sweep file asks for as `early_terminate`."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from goalax.study.sweep_file import SweepError, shown

KEYS = ("min_iter", "max_iter", "s", "eta")
DEFAULTS = {"eta": 3}


class Halving(NamedTuple):
    """At each bracket, a number of evaluations, one run of `eta` goes on.

    Asynchronous, so that no run waits for others: whoever comes to a bracket is compared with all that have been there,
    by its best value so far, and goes on as long as fewer than `eta` have. Sources: arXiv 1603.06560 (Hyperband), of
    which this is the most aggressive bracket, and arXiv 1810.05934, algorithm 2.
    """

    first: int  # evaluations at the first bracket
    eta: int  # the next one has so many times as many
    last: int  # no bracket beyond this one

    def brackets(self, evaluations: int) -> list[int]:
        """Those that a run of so many evaluations has come to, ascending."""
        last, bracket, found = min(evaluations, max(self.first, self.last)), self.first, []
        while bracket <= last:
            found.append(bracket)
            bracket *= self.eta
        return found

    def hopeless(self, curve: Sequence[float], others: Sequence[Sequence[float]], bracket: int) -> bool:
        """Whether a run should end at a bracket that it has come to; larger values are better.

        Args:
          curve: a value per evaluation.
          others: the curves of all other runs, whether they go on or not.
        """
        own = max(curve[:bracket])
        rivals = [max(other[:bracket]) for other in others if len(other) >= bracket]
        here = len(rivals) + 1
        better = sum(rival > own for rival in rivals)
        return here >= self.eta and better >= math.ceil(here / self.eta)


def of_sweep(sweep: dict[str, Any]) -> Halving | None:
    """What `early_terminate` of a sweep file says, if anything; SweepError if it cannot be meant.

    As wandb has it: brackets at `min_iter` times 1, `eta`, `eta`^2, ...; or `s` of them, the last at `max_iter` /
    `eta`.
    """
    settings = sweep.get("early_terminate")
    if settings is None:
        return None
    if not isinstance(settings, dict) or settings.get("type") != "hyperband":
        raise SweepError(f"`early_terminate` is {shown(settings)}; it must be a table with `type: hyperband`.")
    given = {name: settings[name] for name in KEYS if name in settings}
    for name, value in given.items():
        low = 2 if name == "eta" else 1
        if type(value) is not int or not low <= value <= 10**6:
            has = f"`early_terminate` has the `{name}` {shown(value)}"
            raise SweepError(f"{has}; it must be a whole number of at least {low}.")
    eta = given.get("eta", DEFAULTS["eta"])
    if "min_iter" in given:
        return Halving(given["min_iter"], eta, given.get("max_iter", 10**9))
    if "max_iter" not in given or "s" not in given:
        raise SweepError("`early_terminate` needs a `min_iter`, or a `max_iter` and an `s`.")
    first = given["max_iter"] // eta ** min(given["s"], 64)
    return Halving(max(1, first), eta, given["max_iter"] // eta)
