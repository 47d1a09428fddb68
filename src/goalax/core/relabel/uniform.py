"""The law of hindsight experience replay: any later step of the episode."""

from goalax.core.relabel.base import RELABEL, Law
from goalax.core.relabel.geometric import truncated_geometric


@RELABEL.register("uniform")
def uniform(discounting: float) -> Law:
    """All k from 1 to the end of the episode alike: "future" of arXiv 1707.01495, section 4.5."""
    return lambda uniform, left: truncated_geometric(uniform, left, 1.0)
