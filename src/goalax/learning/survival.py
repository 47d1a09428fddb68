"""Distributions over the time of a first visit: hazards in bins of steps, their likelihood, and what they are worth.

A goal is reached now with probability p_0, and else in bin k, the steps [e_k, e_(k + 1)), with hazard h_k given that it
has not been reached before; log S(e_k) = log(1 - p_0) + sum_(j < k) log(1 - h_j) is the logarithm of the probability
that it takes e_k steps or more, at e_0 = 0 that it is not there yet. No visit is seen in bin 0 of one step, for what is
there already is told by p_0; and one after exactly e_K steps counts into the last bin.

Source: survival reinforcement learning (SRL), arXiv 2605.31273; time regression, separation and occupancy:
ChronoSRL, arXiv 2609.36238; what comes later as the target of what comes now: "Temporally-Consistent Survival
Analysis", Maystre and Russo, NeurIPS 2022 (of a Markov chain, without goals or actions).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

BLOCK = 40  # bins that are summed by one product
NEVER = -30.0  # logit of the hazard of a bin that holds no time


def time_edges(window: int, num_bins: int) -> tuple[int, ...]:
    """Edges e_0 = 0 < ... < e_K = window of bins whose widths grow geometrically, in whole steps.

    Edges window^(i / num_bins), rounded, without repeats, so K may be less than num_bins: 30 for 1,000 steps and 32.
    With num_bins of 0, or at least window, every step has its own bin.
    """
    if num_bins <= 0 or num_bins >= window:
        return tuple(range(window + 1))
    edges = np.rint(float(window) ** (np.arange(num_bins + 1) / num_bins)).astype(int)
    return tuple(int(edge) for edge in np.unique([0, window, *np.clip(edges, 0, window)]))


def bin_weights(edges: tuple[int, ...], discounting: float) -> np.ndarray:
    """D_k, the sum of discounting^t over the steps e_k <= t < e_(k + 1) of each bin, [K] float64."""
    powers = np.cumsum(float(discounting) ** np.arange(edges[-1]))
    sums = np.concatenate([[0.0], powers])[list(edges)]
    return np.diff(sums)


def sums_before(x: Array) -> Array:
    """Sums of all entries before each one, and of all of them: [B, K] -> [B, K + 1], the first one 0.

    By products with triangles of ones: XLA's cumulative sum takes three times as long on CPUs.
    """
    batch, size = x.shape
    blocks = -(-size // BLOCK)
    within = min(BLOCK, size)
    padded = jnp.pad(x, ((0, 0), (0, blocks * within - size))).reshape(batch * blocks, within)
    product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    inside = product(padded, jnp.asarray(np.triu(np.ones((within, within)), 1), x.dtype)).reshape(batch, blocks, within)
    totals = padded.sum(axis=1).reshape(batch, blocks)
    before = product(totals, jnp.asarray(np.triu(np.ones((blocks, blocks)), 1), x.dtype))
    sums = (inside + before[:, :, None]).reshape(batch, -1)[:, :size]
    return jnp.concatenate([sums, sums[:, -1:] + x[:, -1:]], axis=1)


def log_survival(now: Array, logits: Array) -> Array:
    """log S at every edge, [B, K + 1].

    Args:
      now: [B] logit of p_0.
      logits: [B, K] logits of the hazards.
    """
    return -jax.nn.softplus(now)[:, None] + sums_before(-jax.nn.softplus(logits))


def negative_log_likelihood(
    now: Array, logits: Array, edges: tuple[int, ...], steps: Array, reached: Array, censored_at: Array
) -> Array:
    """Minus the log-likelihood of what was seen of each sample, [B].

    Args:
      now, logits: see `log_survival`.
      edges: e_0 .. e_K.
      steps: [B] int32 steps to the first visit, 0 where it is there already; counts where reached.
      reached: [B] whether a visit was seen.
      censored_at: [B] int32 steps for which the goal is known not to be reached; counts elsewhere. It survives up to
        the first edge at or past them.
    """
    survival = log_survival(now, logits)
    bounds, last = jnp.asarray(edges), len(edges) - 2
    index = jnp.clip(jnp.searchsorted(bounds, steps, side="right") - 1, 0, last)
    edge = jnp.clip(jnp.searchsorted(bounds, censored_at, side="left"), 0, last + 1)
    take = lambda table, at: jnp.take_along_axis(table, at[:, None], axis=1)[:, 0]  # noqa: E731
    event = take(survival, index) - jax.nn.softplus(-take(logits, index))
    event = jnp.where(steps == 0, -jax.nn.softplus(-now), event)
    return -jnp.where(reached > 0, event, take(survival, edge))


def later_by(now: Array, logits: Array, edges: tuple[int, ...], steps: int) -> Array:
    """S at every edge, [B, K + 1], of a time that is `steps` longer than the one told: S(t) = S_told(t - steps), and 1
    up to t = steps.

    Within a bin log S_told is taken to be linear. With a bin for every step nothing is.

    Args:
      now, logits, edges: see `log_survival`; what they say of t > the last edge less `steps` does not count.
      steps: above 0.
    """
    at = np.asarray(edges) - steps
    position = np.interp(np.maximum(at, 0), edges, np.arange(len(edges)))
    low = np.minimum(position.astype(int), len(edges) - 2)
    share = jnp.asarray(position - low, logits.dtype)
    told = log_survival(now, logits)
    between = told[:, low] + share[None] * (told[:, low + 1] - told[:, low])
    return jnp.where(jnp.asarray(at <= 0), 1.0, jnp.exp(between))


def cross_entropy(now: Array, logits: Array, survival: Array) -> Array:
    """-E[log p(bin of the first visit)] over a distribution of times above 0, [B].

    With all of it in one bin, or none of it in any, this is `negative_log_likelihood`.

    Args:
      now, logits: see `log_survival`.
      survival: [B, K + 1] S of that distribution at every edge; 1 at the first.
    """
    told = log_survival(now, logits)
    event = told[:, :-1] - jax.nn.softplus(-logits)
    return -jnp.sum((survival[:, :-1] - survival[:, 1:]) * event, axis=1) - survival[:, -1] * told[:, -1]


def of_median(median: Array, shape: Array | float, edges: tuple[int, ...]) -> tuple[Array, Array]:
    """`now` [B] and `logits` [B, K] of `log_survival` for times that are log-logistic around medians.

    P(T > t) = 1 / (1 + (t / median)^shape), where n whole steps are the times from n - 1/2 to n + 1/2: a goal is there
    now with P(T <= 1/2). The smaller the median, the larger is `value`.

    Args:
      median: [B] steps, above 0.
      shape: [] above 0; the larger, the narrower.
      edges: e_0 .. e_K.
    """
    at = np.log(np.maximum(np.asarray((1, *edges[1:])) - 0.5, 0.5))
    late = shape * (jnp.asarray(at, median.dtype)[None] - jnp.log(median)[:, None])  # logits of T <= t
    width = np.diff(at)  # of the bins; the first one may hold no time
    within = jnp.log(-jnp.expm1(-shape * jnp.asarray(np.where(width > 0, width, 1.0), median.dtype)))
    logits = late[:, 1:] + within[None] - jax.nn.softplus(late[:, :-1])  # of 1 - S(end) / S(start), at any distance
    return late[:, 0], jnp.where(jnp.asarray(width > 0)[None], logits, NEVER)


def value(now: Array, logits: Array, edges: tuple[int, ...], discounting: float) -> Array:
    """Minus the expected discounted steps until the goal is reached, -sum_k D_k S(e_k), [B]: 0 at the goal;
    elsewhere the step of the first visit and the rest of its bin count, too.

    Between 0 and minus the sum of all weights; what comes after the last edge does not count.
    """
    weights = jnp.asarray(bin_weights(edges, discounting), logits.dtype)
    return -jnp.sum(weights[None] * jnp.exp(log_survival(now, logits)[:, :-1]), axis=1)


def masked_mean(values: Array, mask: Array) -> Array:
    """Mean of the values where the mask is 1, 0 where it is nowhere; shapes are equal, [...] -> []."""
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def huber(x: Array) -> Array:
    """x^2 / 2 up to |x| = 1, linear from there; elementwise."""
    size = jnp.abs(x)
    return jnp.where(size <= 1, 0.5 * x**2, size - 0.5)


def time_loss(distance: Array, steps: Array, reached: Array, step_length: float) -> Array:
    """How far distances are from the time that the way took: Huber of d - step_length * steps, where it was seen, [].

    Args:
      distance: [B] from each sample to its goal.
      steps, reached: [B], see `negative_log_likelihood`; what is there already does not count.
      step_length: the distance of one step, log(1 / gamma).
    """
    seen = reached * (steps >= 1)
    return masked_mean(huber(distance - step_length * steps.astype(distance.dtype)), seen)


def separation_loss(distances: Array, apart: Array, unreached: Array, far: float) -> Array:
    """Hinge that keeps goals that are not each other's at least `far` away, [].

    Args:
      distances: [B, B] from each sample to each goal.
      apart: [B, B] whether two goals are more than the radius of a goal apart.
      unreached: [B] whether the sample's own goal was not reached.
      far: the distance of the whole window.
    """
    pairs = apart * (1 - jnp.eye(len(distances), dtype=distances.dtype))
    hinge = jax.nn.relu(far - distances)
    own = jnp.diagonal(hinge)
    return (jnp.sum(pairs * hinge) + jnp.sum(unreached * own)) / jnp.maximum(jnp.sum(pairs) + jnp.sum(unreached), 1.0)


def occupancy_loss(logits: Array, occupancy: Array, observed: Array) -> Array:
    """Cross-entropy of the share of each bin spent at the goal, where it was observed; [B, K] each -> []."""
    return masked_mean(jax.nn.softplus(logits) - logits * occupancy, observed)


def occupancy_value(logits: Array, edges: tuple[int, ...], discounting: float) -> Array:
    """Discounted steps at the goal, sum_k D_k sigmoid(logit_k), without the present one; [B, K] -> [B]."""
    weights = bin_weights(edges, discounting)
    weights[0] = 0.0 if edges[1] == 1 else weights[0] - 1.0  # offset 0 counts nowhere
    return jnp.sum(jnp.asarray(weights, logits.dtype)[None] * jax.nn.sigmoid(logits), axis=1)
