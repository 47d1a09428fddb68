"""Training a matrix of logits: the registry of contrastive losses, penalties and metrics around one, and its parts."""

import inspect
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp

from goalax.flags import FlagError
from goalax.registry import Registry
from goalax.words import shape_of

CONTRASTIVE_LOSSES: Registry[Callable[..., Array]] = Registry("contrastive loss")


def contrastive_loss(
    loss_fn: Callable[..., Array],
    logits: Array,
    phi: Array,
    psi: Array,
    *,
    logsumexp_penalty: float = 0.0,
    l2_penalty: float = 0.0,
    resubs: bool = True,
) -> tuple[Array, dict[str, Array]]:
    """A contrastive loss plus penalties on the size of the logits and of the representations, and metrics.

    loss_fn(logits) + logsumexp_penalty * mean_i (lse_j F_ij)^2 + l2_penalty * (mean phi^2 + mean psi^2)

    Args:
      loss_fn: an entry of `CONTRASTIVE_LOSSES`, or any function `logits [B, B] -> []`; gets `resubs` if it takes it.
      logits: [B, B] energies F of all pairs, positives on the diagonal.
      phi: [B, D] representations of the rows.
      psi: [B, D] representations of the columns.
      logsumexp_penalty: weight of the squared logsumexp of the rows.
      l2_penalty: weight of the mean squared features.
      resubs: False leaves the positives out of the logsumexp of loss, penalty and metric.

    Returns:
      The loss [] and a dict of scalars: `categorical_accuracy` (share of rows whose largest entry is the positive),
      `binary_accuracy` (share of entries whose sign tells positive from negative), `logits_pos` and `logits_neg`
      (means; that of the negatives is 0 if B = 1), `logsumexp` (mean over rows), `phi_norm`, `psi_norm` (mean L2 norm).

    Raises:
      ValueError: if the logits are not square or the representations do not fit them.
    """
    positive = is_positive(logits)
    if not (jnp.ndim(phi) == jnp.ndim(psi) == 2 and logits.shape == (len(phi), len(psi))):
        raise ValueError(f"Expected phi and psi [B, D] for logits {logits.shape}, got {phi.shape} and {psi.shape}.")

    options = {"resubs": resubs} if "resubs" in inspect.signature(loss_fn).parameters else {}
    row_logsumexp = logsumexp(logsumexp_terms(logits, resubs), axis=1)
    loss = loss_fn(logits, **options)
    if getattr(loss, "shape", None) != ():
        name, found = getattr(loss_fn, "__name__", loss_fn), shape_of(loss)
        raise FlagError(f"The contrastive loss {name} returns {found}; it must return one number [].")
    loss += logsumexp_penalty * jnp.mean(row_logsumexp**2)
    loss += l2_penalty * (jnp.mean(phi**2) + jnp.mean(psi**2))
    metrics = {
        "categorical_accuracy": jnp.mean(positives(logits) >= jnp.max(logits, axis=1)),  # argmax is slow on CPUs
        "binary_accuracy": jnp.mean((logits > 0) == positive),
        "logits_pos": jnp.mean(positives(logits)),
        "logits_neg": mean_negative(logits),
        "logsumexp": jnp.mean(row_logsumexp),
        "phi_norm": jnp.mean(jnp.linalg.norm(phi, axis=-1)),
        "psi_norm": jnp.mean(jnp.linalg.norm(psi, axis=-1)),
    }
    return loss, metrics


def positives(logits: Array) -> Array:
    """The diagonal of the logits, [B, B] -> [B]; ValueError unless they are square."""
    if jnp.ndim(logits) != 2 or logits.shape[0] != logits.shape[1]:
        raise ValueError(f"Expected square logits [B, B], got {jnp.shape(logits)}.")
    return jnp.diagonal(logits)


def is_positive(logits: Array) -> Array:
    """[B, B] bool, true on the diagonal."""
    return jnp.eye(len(positives(logits)), dtype=bool)


def mean_negative(logits: Array) -> Array:
    """Mean off the diagonal; 0 if B = 1, where there are no negatives."""
    negatives = jnp.where(is_positive(logits), 0.0, logits)
    return jnp.sum(negatives) / max(logits.size - len(logits), 1)


def margins(logits: Array) -> Array:
    """F_ii - F_ij, [B, B] -> [B, B]."""
    return positives(logits)[:, None] - logits


def logsumexp_terms(logits: Array, resubs: bool) -> Array:
    """What the logsumexp runs over: the logits; without resubs all but the positives, if there are others."""
    return logits if resubs or len(logits) == 1 else jnp.where(is_positive(logits), -jnp.inf, logits)


def log_odds_against(logits: Array, axis: int, resubs: bool) -> Array:
    """lse_j (F_ij - F_ii) for each row i (axis=1) or lse_i (F_ij - F_jj) for each column j (axis=0), [B, B] -> [B]."""
    # The positive is subtracted inside: after the logsumexp the difference of two large numbers would be rounded.
    return logsumexp(logsumexp_terms(logits, resubs) - jnp.expand_dims(positives(logits), axis), axis=axis)
