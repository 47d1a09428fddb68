"""Energies that are minus a quasimetric; formulas and sources are in `goalax.learning.quasimetrics`."""

from goalax.learning.energies.base import energy, minus
from goalax.learning.quasimetrics import QUASIMETRICS

for _name, _metric in QUASIMETRICS.items():
    energy(_name, pairwise=minus(_metric.pairwise), init=_metric.init)(minus(_metric.between))
