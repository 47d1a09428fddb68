"""Contrastive losses: logits [B, B] -> [], one family a file; all files here are found.

Rows are state-action pairs, columns goals, positives on the diagonal. Each raises ValueError unless the logits are
square. `resubs=False` leaves the positive out of a logsumexp. A new one is a function and
`@CONTRASTIVE_LOSSES.register("name")` in a file of its own; its name is then a choice of --contrastive_loss_fn.
"""

from goalax.learning.losses.base import CONTRASTIVE_LOSSES, contrastive_loss, positives
from goalax.registry import import_all

import_all(__name__, __path__)
