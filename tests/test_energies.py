"""Energies against golden values, loops in float64, extreme inputs and wrong shapes."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.flags import FlagError
from goalax.learning.energies import ENERGIES, base
from goalax.learning.pairwise import unit
from goalax.registry import Registry

GOLDEN, GOLDEN_QUASIMETRICS = (
    np.load(Path(__file__).parent / "golden" / f"{name}.npz") for name in ("energies", "quasimetrics")
)
OWN = {"cosine": 1.0, "iqe": 0.3}  # what the golden values were computed with
PARAMS = {name: OWN.get(name, energy.init) for name, energy in ENERGIES.items()}

each_energy = pytest.mark.parametrize("name", ENERGIES)
STORED = ["l2", "l2_squared", "l1", "dot", "cosine"]
each_own_energy = pytest.mark.parametrize("name", [*STORED, "scaled_dot"])  # not in quasimetrics.py
each_form = pytest.mark.parametrize("pairwise", [False, True], ids=["elementwise", "pairwise"])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


ENERGY_LOOPS = {
    "l2": lambda x, y: -np.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) + 1e-6),
    "l2_squared": lambda x, y: -sum((a - b) ** 2 for a, b in zip(x, y, strict=True)),
    "l1": lambda x, y: -sum(abs(a - b) for a, b in zip(x, y, strict=True)),
    "dot": lambda x, y: sum(a * b for a, b in zip(x, y, strict=True)),
    "scaled_dot": lambda x, y: sum(a * b for a, b in zip(x, y, strict=True)) / np.sqrt(len(x)),
    "cosine": lambda x, y: sum(x * y) / np.sqrt(sum(x**2) * sum(y**2)),
}


def test_energies_are_the_documented_ones():
    assert set(ENERGIES) >= {*ENERGY_LOOPS, "mrn", "mrn_max", "iqe"}


@pytest.mark.parametrize("name", STORED)
def test_energy_golden_values(name):
    x, y, param = GOLDEN["x"], GOLDEN["y"], PARAMS.get(name)
    np.testing.assert_allclose(ENERGIES[name](x, y, param), GOLDEN[name], rtol=1e-5)
    pairwise = ENERGIES[name].pairwise(x, y, param)
    np.testing.assert_allclose(pairwise, GOLDEN[f"pairwise_{name}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mrn", "mrn_max", "iqe"])
def test_quasimetric_energies_are_minus_the_golden_distances(name):
    x, y, param = GOLDEN_QUASIMETRICS["x"], GOLDEN_QUASIMETRICS["y"], PARAMS.get(name)
    np.testing.assert_allclose(ENERGIES[name](x, y, param), -GOLDEN_QUASIMETRICS[name], rtol=1e-5)
    np.testing.assert_allclose(np.diagonal(ENERGIES[name].pairwise(x, y, param)), -GOLDEN_QUASIMETRICS[name], rtol=1e-5)


@each_own_energy
def test_energy_equals_loops_in_float64(name):
    x, y = normal(0, 5, 7), normal(1, 4, 7)
    expected = [[ENERGY_LOOPS[name](a, b) for b in y.astype(np.float64)] for a in x.astype(np.float64)]
    np.testing.assert_allclose(ENERGIES[name].pairwise(x, y, PARAMS.get(name)), expected, rtol=1e-5, atol=1e-6)


@each_energy
def test_pairwise_equals_elementwise_in_value_and_gradient(name):
    energy, param = ENERGIES[name], PARAMS.get(name)
    x, y, weights = normal(2, 6, 32), normal(3, 5, 32), normal(4, 6, 5)

    def elementwise(x, y):
        return energy(jnp.repeat(x, 5, axis=0), jnp.tile(y, (6, 1)), param).reshape(6, 5)

    def pairwise(x, y):
        return energy.pairwise(x, y, param)

    np.testing.assert_allclose(pairwise(x, y), elementwise(x, y), rtol=1e-5, atol=1e-5)
    forms = (pairwise, elementwise)
    grads, expected = (jax.jit(jax.grad(lambda x, y, f=f: jnp.sum(weights * f(x, y)), (0, 1)))(x, y) for f in forms)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, atol=1e-4), grads, expected)
    assert np.abs(expected[0]).max() > 1e-2


@each_energy
@each_form
def test_energy_is_finite_at_equal_points_and_at_extremes(name, pairwise):
    energy, param = ENERGIES[name], PARAMS.get(name)
    apply = energy.pairwise if pairwise else energy
    value_and_grads = jax.jit(jax.value_and_grad(lambda x, y: jnp.sum(apply(x, y, param)), (0, 1)))
    for scale in (0.0, 1.0, 1e4):
        x = scale * normal(5, 6, 32)
        for y in (x, -x, np.zeros_like(x)):
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(value_and_grads(x, y)))


@each_energy
def test_energy_does_not_broadcast(name):
    energy, param = ENERGIES[name], PARAMS.get(name)
    for shapes in [((4, 32), (32,)), ((4, 32), (1, 32)), ((4, 1, 32), (1, 4, 32)), ((4, 32), (4, 16))]:
        with pytest.raises(ValueError, match="one shape"):
            energy(*map(jnp.zeros, shapes), param)
    for shapes in [((32,), (32,)), ((4, 32), (32,)), ((2, 4, 32), (2, 4, 32)), ((4, 32), (4, 16))]:
        with pytest.raises(ValueError, match=r"x \[B, D\] and y \[C, D\]"):
            energy.pairwise(*map(jnp.zeros, shapes), param)


@each_energy
def test_energy_takes_a_scalar_parameter_if_and_only_if_it_has_one(name):
    energy, x = ENERGIES[name], jnp.ones((3, 32))
    for apply in (energy, energy.pairwise):
        if energy.init is None:
            with pytest.raises(ValueError, match=f"{name} has no learned parameter"):
                apply(x, x, 1.0)
        else:
            for param in (None, jnp.ones(3)):
                with pytest.raises(ValueError, match=f"{name} needs its learned parameter"):
                    apply(x, x, param)


@pytest.mark.parametrize(("function", "found"), [(jnp.sum, "[]"), (lambda x: x, "[5, 8]"), (lambda x: None, "nothing")])
def test_an_energy_of_another_shape_is_named(function, found):
    made = base.Energy("odd", lambda x, y: function(x - y), lambda x, y: function(x - y))
    x = jnp.zeros((5, 8))
    with pytest.raises(FlagError, match=rf"^The energy odd of two repr.* returns {re.escape(found)}; .* \[5\].$"):
        made(x, x)
    with pytest.raises(FlagError, match=rf"^The energy odd of all pairs .* returns {re.escape(found)}; .* \[5, 5\].$"):
        made.pairwise(x, x)


def test_an_energy_must_have_a_name():
    with pytest.raises(TypeError, match=r"^The energy odd has no name; it must be registered as @energy\(\"name\"\)"):

        @base.energy
        def odd(x, y):
            return x


def test_energies_with_a_learned_parameter():
    inits = {name: energy.init for name, energy in ENERGIES.items() if energy.init is not None}
    assert inits.items() >= {"cosine": 1 / 0.07, "iqe": 0.0}.items()


def test_cosine_scale_multiplies_and_norms_are_per_pair():
    x, y = jnp.array([[3.0, 0.0], [0.0, 100.0]]), jnp.array([[0.1, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(ENERGIES["cosine"](x, y, 2.0), [2.0, np.sqrt(2.0)], rtol=1e-6)
    np.testing.assert_allclose(ENERGIES["cosine"](jnp.zeros((2, 2)), y, 2.0), [0.0, 0.0])


def test_adding_an_energy_takes_a_decorator(monkeypatch):
    monkeypatch.setattr(base, "ENERGIES", Registry("energy"))

    @base.energy("l4", "quartic")
    def l4(x, y):
        return -jnp.sum((x - y) ** 4, axis=-1)

    @base.energy("scaled", pairwise=lambda x, y, scale: jnp.full((len(x), len(y)), scale), init=3.0)
    def scaled(x, y, scale):
        return scale * jnp.sum(x * y, axis=-1)

    x, y = normal(8, 4, 3), normal(9, 2, 3)
    assert base.ENERGIES["quartic"].between is l4 and base.ENERGIES["l4"].init is None
    expected = [[-np.sum((a - b) ** 4) for b in y] for a in x]
    np.testing.assert_allclose(base.ENERGIES["l4"].pairwise(x, y), expected, rtol=1e-4)
    np.testing.assert_allclose(base.ENERGIES["scaled"].pairwise(x, y, 2.0), np.full((4, 2), 2.0))
    assert base.ENERGIES["scaled"].between is scaled


@pytest.mark.parametrize("name, alias", [("l2", "norm"), ("l2_squared", "l2_no_sqrt"), ("cosine", "cos")])
def test_alias_is_the_same_entry(name, alias):
    assert ENERGIES[alias] is ENERGIES[name]
    assert name in list(ENERGIES) and alias not in list(ENERGIES)


def test_unit_vectors():
    np.testing.assert_allclose(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda x: jnp.sum(unit(x)))(jnp.zeros(3)))))
