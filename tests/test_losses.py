"""Contrastive losses against golden values, loops in float64, extreme inputs and wrong shapes."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.flags import FlagError
from goalax.learning.losses import CONTRASTIVE_LOSSES, contrastive_loss
from goalax.learning.losses.infonce import infonce

GOLDEN = np.load(Path(__file__).parent / "golden" / "contrastive.npz")

each_loss = pytest.mark.parametrize("name", CONTRASTIVE_LOSSES)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LOGITS, PHI, PSI = 2 * normal(13, 6, 6), normal(14, 6, 8), normal(15, 6, 8)


def lse(values):
    return np.log(sum(np.exp(value) for value in values))


@pytest.mark.parametrize(
    "name, alias",
    [
        ("infonce", "fwd_infonce"),
        ("infonce_backward", "bwd_infonce"),
        ("symmetric_infonce", "sym_infonce"),
        ("binary", "binary_nce"),
        ("dpo", "dp"),
    ],
)
def test_alias_is_the_same_entry(name, alias):
    assert CONTRASTIVE_LOSSES[alias] is CONTRASTIVE_LOSSES[name]
    assert name in list(CONTRASTIVE_LOSSES) and alias not in list(CONTRASTIVE_LOSSES)


def loop_infonce(logits, resubs):
    total = 0.0
    for i, row in enumerate(logits):
        total += lse([value for j, value in enumerate(row) if resubs or j != i]) - row[i]
    return total / len(logits)


def loop_entries(entry):
    """Mean over all entries of entry(F_ij, F_ii, i == j)."""

    def loop(logits):
        pairs = [(i, j) for i in range(len(logits)) for j in range(len(logits))]
        return sum(entry(logits[i, j], logits[i, i], i == j) for i, j in pairs) / len(pairs)

    return loop


def loop_fb(logits):
    size, total = len(logits), 0.0
    for i in range(size):
        total += -logits[i, i] + 0.5 * sum(logits[i, j] ** 2 for j in range(size) if j != i) / (size - 1)
    return total / size


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


LOSS_LOOPS = {
    "binary": loop_entries(lambda f, _, positive: -np.log(sigmoid(f) if positive else 1 - sigmoid(f))),
    "fb": loop_fb,
    "dpo": loop_entries(lambda f, positive_logit, _: -np.log(sigmoid(positive_logit - f))),
    "ipo": loop_entries(lambda f, positive_logit, _: (positive_logit - f - 1) ** 2),
    "sppo": loop_entries(lambda f, _, positive: 5 * (f - 1) ** 2 if positive else (f + 1) ** 2),  # B = 5
}
RESUBS_LOSS_LOOPS = {
    "infonce": loop_infonce,
    "infonce_backward": lambda logits, resubs: loop_infonce(logits.T, resubs),
    "symmetric_infonce": lambda logits, resubs: loop_infonce(logits, resubs) + loop_infonce(logits.T, resubs),
    "flatnce": lambda logits, resubs: 1.0,
    "flatnce_backward": lambda logits, resubs: 1.0,
}


# The losses of this release, whose values are known; the tests above and below hold for any loss.
each_known_loss = pytest.mark.parametrize("name", [*LOSS_LOOPS, *RESUBS_LOSS_LOOPS])


@each_known_loss
def test_loss_golden_values(name):
    np.testing.assert_allclose(CONTRASTIVE_LOSSES[name](GOLDEN["logits"]), GOLDEN[name], rtol=1e-5)


@each_known_loss
def test_loss_equals_loops_in_float64(name):
    logits = 2 * normal(10, 5, 5)
    exact = logits.astype(np.float64)
    if name in LOSS_LOOPS:
        np.testing.assert_allclose(CONTRASTIVE_LOSSES[name](logits), LOSS_LOOPS[name](exact), rtol=1e-5)
        return
    for resubs in (True, False):
        expected = RESUBS_LOSS_LOOPS[name](exact, resubs)
        np.testing.assert_allclose(CONTRASTIVE_LOSSES[name](logits, resubs=resubs), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["flatnce", "flatnce_backward"])
def test_flatnce_gradient_golden_values(name):
    grad = jax.jit(jax.grad(CONTRASTIVE_LOSSES[name]))(GOLDEN["logits"])
    np.testing.assert_allclose(grad, GOLDEN[f"{name}_grad"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["flatnce", "flatnce_backward"])
def test_flatnce_gradient_without_resubs_is_a_softmax_over_negatives(name):
    logits = normal(11, 5, 5)
    grad = jax.jit(jax.grad(lambda logits: CONTRASTIVE_LOSSES[name](logits, resubs=False)))(logits)
    rows, grad = (logits.T, grad.T) if name == "flatnce_backward" else (logits, grad)
    for i, row in enumerate(rows.astype(np.float64)):
        total = sum(np.exp(f) for j, f in enumerate(row) if j != i)
        expected = [(-1.0 if j == i else np.exp(f) / total) / 5 for j, f in enumerate(row)]
        np.testing.assert_allclose(grad[i], expected, atol=1e-6)


@each_loss
def test_loss_is_finite_at_extreme_logits(name):
    signs, value_and_grad = np.sign(normal(12, 6, 6)), jax.jit(jax.value_and_grad(CONTRASTIVE_LOSSES[name]))
    for logits in (1e4 * signs, np.full((6, 6), 1e4), np.full((6, 6), -1e4), 2e4 * np.eye(6) - 1e4, np.zeros((6, 6))):
        value, grad = value_and_grad(logits.astype(np.float32))
        assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_infonce_resolves_small_losses_of_large_logits():
    logits = 1000.0 + 8.0 * np.eye(2, dtype=np.float32)
    np.testing.assert_allclose(infonce(logits), np.log1p(np.exp(-8.0)), rtol=1e-3)


@each_loss
@pytest.mark.parametrize("shape", [(6,), (6, 5), (1, 6), (2, 6, 6), ()])
def test_loss_refuses_logits_that_are_not_square(name, shape):
    with pytest.raises(ValueError, match="square logits"):
        contrastive_loss(CONTRASTIVE_LOSSES[name], jnp.zeros(shape), PHI, PSI)
    if name in {**LOSS_LOOPS, **RESUBS_LOSS_LOOPS}:  # those of Goalax, also called by themselves
        with pytest.raises(ValueError, match="square logits"):
            CONTRASTIVE_LOSSES[name](jnp.zeros(shape))


@pytest.mark.parametrize(("result", "found"), [(jnp.zeros(6), "[6]"), (None, "nothing")])
def test_a_loss_that_is_no_number_is_named(result, found):
    def odd(logits):
        return result

    with pytest.raises(FlagError, match=f"^The contrastive loss odd returns {re.escape(found)}; it must return one"):
        contrastive_loss(odd, LOGITS, PHI, PSI)


# ---- contrastive_loss: penalties and metrics ----


@pytest.mark.parametrize("resubs", [True, False])
@pytest.mark.parametrize("name", ["infonce", "flatnce_backward", "binary"])
def test_penalties_add_to_the_loss(name, resubs):
    loss_fn = CONTRASTIVE_LOSSES[name]
    plain, _ = contrastive_loss(loss_fn, LOGITS, PHI, PSI, resubs=resubs)
    assert plain == (loss_fn(LOGITS, resubs=resubs) if name in RESUBS_LOSS_LOOPS else loss_fn(LOGITS))

    row_lse = [lse([f for j, f in enumerate(row) if resubs or j != i]) for i, row in enumerate(LOGITS.astype(float))]
    loss, metrics = contrastive_loss(loss_fn, LOGITS, PHI, PSI, logsumexp_penalty=0.3, resubs=resubs)
    np.testing.assert_allclose(loss - plain, 0.3 * np.mean(np.square(row_lse)), rtol=1e-4)
    np.testing.assert_allclose(metrics["logsumexp"], np.mean(row_lse), rtol=1e-5)

    loss, _ = contrastive_loss(loss_fn, LOGITS, PHI, PSI, l2_penalty=0.2, resubs=resubs)
    np.testing.assert_allclose(loss - plain, 0.2 * (np.mean(PHI**2) + np.mean(PSI**2)), rtol=1e-4)


def test_logsumexp_penalty_golden_value():
    logits = GOLDEN["logits"]
    plain, _ = contrastive_loss(infonce, logits, PHI, PSI)
    loss, _ = contrastive_loss(infonce, logits, PHI, PSI, logsumexp_penalty=1.0)
    np.testing.assert_allclose(loss - plain, GOLDEN["logsumexp_penalty"], rtol=1e-5)


def test_any_function_of_the_logits_is_a_loss():
    loss, _ = contrastive_loss(lambda logits: jnp.sum(logits), LOGITS, PHI, PSI, resubs=False)
    np.testing.assert_allclose(loss, np.sum(LOGITS), rtol=1e-5)


def test_metrics():
    _, metrics = contrastive_loss(infonce, LOGITS, PHI, PSI)
    right_rows = right_signs = 0
    for i in range(6):
        right_rows += max(range(6), key=lambda j, i=i: LOGITS[i, j]) == i
        right_signs += sum((LOGITS[i, j] > 0) == (i == j) for j in range(6))
    expected = {
        "categorical_accuracy": right_rows / 6,
        "binary_accuracy": right_signs / 36,
        "logits_pos": np.mean([LOGITS[i, i] for i in range(6)]),
        "logits_neg": np.mean([LOGITS[i, j] for i in range(6) for j in range(6) if i != j]),
        "logsumexp": np.mean([lse(row) for row in LOGITS]),
        "phi_norm": np.mean([np.sqrt(sum(row**2)) for row in PHI]),
        "psi_norm": np.mean([np.sqrt(sum(row**2)) for row in PSI]),
    }
    assert set(metrics) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(metrics[key], value, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("resubs", [True, False])
@each_loss
def test_a_batch_of_one_has_no_nan(name, resubs):
    def loss(logits, phi, psi):
        options = {"logsumexp_penalty": 0.1, "l2_penalty": 0.1, "resubs": resubs}
        return contrastive_loss(CONTRASTIVE_LOSSES[name], logits, phi, psi, **options)

    (value, metrics), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(LOGITS[:1, :1], PHI[:1], PSI[:1])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, metrics, grads)))
    assert metrics["logits_neg"] == 0 and metrics["logits_pos"] == LOGITS[0, 0]


def test_contrastive_loss_refuses_representations_that_do_not_fit():
    for phi, psi in [(PHI[:5], PSI), (PHI, PSI[:5]), (PHI[0], PSI), (PHI[None], PSI[None])]:
        with pytest.raises(ValueError, match="phi and psi"):
            contrastive_loss(infonce, LOGITS, phi, psi)
    with pytest.raises(ValueError, match="square logits"):
        contrastive_loss(jnp.mean, LOGITS[:, :5], PHI, PSI[:5])


def test_contrastive_loss_compiles_over_seeds():
    seeds = [jnp.stack([z, 2 * z]) for z in (LOGITS, PHI, PSI)]
    loss, metrics = jax.jit(jax.vmap(lambda *z: contrastive_loss(infonce, *z, logsumexp_penalty=0.1)))(*seeds)
    expected, expected_metrics = contrastive_loss(infonce, 2 * LOGITS, 2 * PHI, 2 * PSI, logsumexp_penalty=0.1)
    np.testing.assert_allclose(loss[1], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["phi_norm"][1], expected_metrics["phi_norm"], rtol=1e-5)
