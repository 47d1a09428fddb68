"""The law of the final goal: where the episode ended."""

from goalax.core.relabel.base import RELABEL, Law


@RELABEL.register("final")
def final(discounting: float) -> Law:
    """The last state of the episode: "final" of arXiv 1707.01495, section 4.5."""
    return lambda uniform, left: left
