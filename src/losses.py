"""Energies, which score pairs of representations, and contrastive losses, which train the matrix of these scores.

A new one is a function and a decorator (`@CONTRASTIVE_LOSSES.register("name")` for a loss); its name is then a valid
choice wherever one of the registry is:

    @energy("l4")
    def l4(x, y):
        return -jnp.sum((x - y) ** 4, axis=-1)
"""

import dataclasses
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp

from src.pairwise import pairwise_dot, pairwise_squared_distance
from src.quasimetrics import EPS, QUASIMETRICS, require_pairable, require_same_shape, squared_distance
from src.registry import Registry

# ---- Energies: similarity of two representations, larger = closer ----


@dataclasses.dataclass(frozen=True)
class Energy:
    """A similarity of representations: `energy(x, y, param)` per pair, `energy.pairwise(x, y, param)` of all pairs.

    Attributes:
      name: its name in `ENERGIES`.
      between: (x [..., D], y [..., D]) -> [...]; takes the parameter as third argument if there is one.
      matrix: the same for all pairs, (x [B, D], y [C, D]) -> [B, C].
      init: initial value of the one learned scalar parameter; None if there is none.
    """

    name: str
    between: Callable[..., Array]
    matrix: Callable[..., Array]
    init: float | None = None

    def init_param(self) -> Array | None:
        """The learned parameter at the start, None if there is none."""
        return None if self.init is None else jnp.float32(self.init)

    def __call__(self, x: Array, y: Array, param: Array | float | None = None) -> Array:
        """Energies of corresponding x and y, [..., D] x [..., D] -> [...]; ValueError on any other shapes."""
        require_same_shape(x, y)
        return self.between(x, y, *self._arguments(param))

    def pairwise(self, x: Array, y: Array, param: Array | float | None = None) -> Array:
        """Energies of all pairs, [B, D] x [C, D] -> [B, C]; ValueError on any other shapes."""
        require_pairable(x, y)
        return self.matrix(x, y, *self._arguments(param))

    def _arguments(self, param: Array | float | None) -> tuple[Array | float, ...]:
        if self.init is None and param is not None:
            raise ValueError(f"The energy {self.name} has no learned parameter, but got one.")
        if self.init is not None and (param is None or jnp.ndim(param) != 0):
            raise ValueError(f"The energy {self.name} needs its learned parameter, one scalar.")
        return () if param is None else (param,)


ENERGIES: Registry[Energy] = Registry("energy")


def energy(name: str, *aliases: str, pairwise: Callable[..., Array] | None = None, init: float | None = None):
    """Decorator that registers a function of two representations in `ENERGIES` and returns it unchanged.

    Args:
      name: name in the registry.
      *aliases: other names of it.
      pairwise: form for all pairs, [B, D] x [C, D] -> [B, C], if there is one cheaper than calling the function on
        each pair.
      init: initial value of its learned scalar parameter, the third argument of both functions; None if it has none.
    """

    def register(between: Callable[..., Array]) -> Callable[..., Array]:
        ENERGIES.add(name, Energy(name, between, pairwise or _on_all_pairs(between), init), aliases)
        return between

    return register


def _on_all_pairs(between: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, y, *param: jax.vmap(lambda a: jax.vmap(lambda b: between(a, b, *param))(y))(x)


def _minus(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *args: -function(*args)


@energy("l2", "norm", pairwise=lambda x, y: -jnp.sqrt(pairwise_squared_distance(x, y) + EPS))
def l2(x: Array, y: Array) -> Array:
    """Minus the Euclidean distance, -sqrt(|x - y|^2 + EPS); later JaxGCRL releases mean `l2_squared` by "l2"."""
    return -jnp.sqrt(squared_distance(x, y) + EPS)


@energy("l2_squared", "l2_no_sqrt", pairwise=_minus(pairwise_squared_distance))
def l2_squared(x: Array, y: Array) -> Array:
    """Minus the squared Euclidean distance."""
    return -squared_distance(x, y)


@energy("l1")
def l1(x: Array, y: Array) -> Array:
    """Minus the sum of absolute differences."""
    return -jnp.sum(jnp.abs(x - y), axis=-1)


@energy("dot", pairwise=pairwise_dot)
def dot(x: Array, y: Array) -> Array:
    """Inner product."""
    return jnp.sum(x * y, axis=-1)


@energy("cosine", "cos", pairwise=lambda x, y, scale: scale * pairwise_dot(_unit(x), _unit(y)), init=1 / 0.07)
def cosine(x: Array, y: Array, scale: Array | float) -> Array:
    """Cosine of the angle between x and y (0 if one of them is 0) times a learned scale, as in CLIP (2103.00020)."""
    return scale * dot(_unit(x), _unit(y))


def _unit(x: Array) -> Array:
    """x / |x|; the floor under |x| keeps value and gradient finite at 0."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), EPS))


# A distance is small where its energy is large; formulas and sources are in quasimetrics.py.
for _name, _metric in QUASIMETRICS.items():
    energy(_name, pairwise=_minus(_metric.pairwise), init=_metric.init)(_minus(_metric.between))


# ---- Contrastive losses: logits [B, B] -> [], rows are state-action pairs, columns goals, positives on the diagonal.
# ---- Each raises ValueError unless the logits are square. `resubs=False` leaves the positive out of a logsumexp.

CONTRASTIVE_LOSSES: Registry[Callable[..., Array]] = Registry("contrastive loss")


@CONTRASTIVE_LOSSES.register("infonce", "fwd_infonce")
def infonce(logits: Array, resubs: bool = True) -> Array:
    """Cross-entropy of picking, for each row, its goal among all. van den Oord et al., arXiv 1807.03748, Eq. 4."""
    return jnp.mean(_log_odds_against(logits, 1, resubs))


@CONTRASTIVE_LOSSES.register("infonce_backward", "bwd_infonce")
def infonce_backward(logits: Array, resubs: bool = True) -> Array:
    """Cross-entropy of picking, for each goal, its row among all: `infonce` of the transposed logits."""
    return jnp.mean(_log_odds_against(logits, 0, resubs))


@CONTRASTIVE_LOSSES.register("symmetric_infonce", "sym_infonce")
def symmetric_infonce(logits: Array, resubs: bool = True) -> Array:
    """Sum (not mean) of `infonce` and `infonce_backward`."""
    return infonce(logits, resubs) + infonce_backward(logits, resubs)


@CONTRASTIVE_LOSSES.register("binary", "binary_nce")
def binary(logits: Array) -> Array:
    """Cross-entropy of classifying every entry as positive or negative. Eysenbach et al., arXiv 2206.07568."""
    return jnp.mean(jax.nn.softplus(jnp.where(_is_positive(logits), -logits, logits)))


@CONTRASTIVE_LOSSES.register("flatnce")
def flatnce(logits: Array, resubs: bool = True) -> Array:
    """FlatNCE over rows: mean exp(c - stopgrad(c)), c = log sum_j exp(F_ij - F_ii). Chen et al., arXiv 2107.01152.

    The value is always 1; only the gradient matters. The paper sums over the negatives alone (`resubs=False`); with
    the positive in the sum the gradient is the one of `infonce`.
    """
    return _flat(_log_odds_against(logits, 1, resubs))


@CONTRASTIVE_LOSSES.register("flatnce_backward")
def flatnce_backward(logits: Array, resubs: bool = True) -> Array:
    """FlatNCE over columns: `flatnce` of the transposed logits."""
    return _flat(_log_odds_against(logits, 0, resubs))


@CONTRASTIVE_LOSSES.register("fb")
def fb(logits: Array) -> Array:
    """Forward-backward loss: half the mean squared negative minus the mean positive. Touati & Ollivier, 2103.07945."""
    return 0.5 * _mean_negative(logits**2) - jnp.mean(positives(logits))


@CONTRASTIVE_LOSSES.register("dpo", "dp")
def dpo(logits: Array) -> Array:
    """-mean_ij log sigmoid(F_ii - F_ij): the positive is preferred to the entry. Rafailov et al., arXiv 2305.18290."""
    return jnp.mean(jax.nn.softplus(-_margins(logits)))


@CONTRASTIVE_LOSSES.register("ipo")
def ipo(logits: Array) -> Array:
    """mean_ij (F_ii - F_ij - 1)^2: the positive leads every entry by 1. Azar et al., arXiv 2310.12036."""
    return jnp.mean((_margins(logits) - 1) ** 2)


@CONTRASTIVE_LOSSES.register("sppo")
def sppo(logits: Array) -> Array:
    """Squared error to 1 (positives, weighted by B) and -1 (negatives), mean over ij. Wu et al., arXiv 2405.00675."""
    is_positive = _is_positive(logits)
    error = logits - jnp.where(is_positive, 1.0, -1.0)
    return jnp.mean(jnp.where(is_positive, len(logits), 1.0) * error**2)


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
    is_positive = _is_positive(logits)
    if not (jnp.ndim(phi) == jnp.ndim(psi) == 2 and logits.shape == (len(phi), len(psi))):
        raise ValueError(f"Expected phi and psi [B, D] for logits {logits.shape}, got {phi.shape} and {psi.shape}.")

    options = {"resubs": resubs} if "resubs" in inspect.signature(loss_fn).parameters else {}
    row_logsumexp = logsumexp(_logsumexp_terms(logits, resubs), axis=1)
    loss = loss_fn(logits, **options)
    loss += logsumexp_penalty * jnp.mean(row_logsumexp**2)
    loss += l2_penalty * (jnp.mean(phi**2) + jnp.mean(psi**2))
    metrics = {
        "categorical_accuracy": jnp.mean(positives(logits) >= jnp.max(logits, axis=1)),  # argmax is slow on CPUs
        "binary_accuracy": jnp.mean((logits > 0) == is_positive),
        "logits_pos": jnp.mean(positives(logits)),
        "logits_neg": _mean_negative(logits),
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


def _is_positive(logits: Array) -> Array:
    """[B, B] bool, true on the diagonal."""
    return jnp.eye(len(positives(logits)), dtype=bool)


def _mean_negative(logits: Array) -> Array:
    """Mean off the diagonal; 0 if B = 1, where there are no negatives."""
    negatives = jnp.where(_is_positive(logits), 0.0, logits)
    return jnp.sum(negatives) / max(logits.size - len(logits), 1)


def _margins(logits: Array) -> Array:
    """F_ii - F_ij, [B, B] -> [B, B]."""
    return positives(logits)[:, None] - logits


def _logsumexp_terms(logits: Array, resubs: bool) -> Array:
    """What the logsumexp runs over: the logits, without resubs with the positives pushed out of reach."""
    return logits if resubs else logits - 100.0 * _is_positive(logits)


def _log_odds_against(logits: Array, axis: int, resubs: bool) -> Array:
    """lse_j (F_ij - F_ii) for each row i (axis=1) or lse_i (F_ij - F_jj) for each column j (axis=0), [B, B] -> [B]."""
    # The positive is subtracted inside: after the logsumexp the difference of two large numbers would be rounded.
    return logsumexp(_logsumexp_terms(logits, resubs) - jnp.expand_dims(positives(logits), axis), axis=axis)


def _flat(c: Array) -> Array:
    return jnp.mean(jnp.exp(c - jax.lax.stop_gradient(c)))
