"""Very deep networks: golden values, the plain MLP with the same parameters, one block compiled, runs with --depth."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents.crl import CRLConfig
from goalax.agents.srl import ChronoConfig, SRLConfig, SurvivalCritic
from goalax.commands import train as training
from goalax.core.types import Spec
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.make import make_run
from goalax.learning import networks
from goalax.learning.networks import BLOCK, MLP, Actor, DeepMLP
from tests.helpers import toy
from tests.helpers.runs import LONGER, assert_equal_runs, envsteps

toy.register()
GOLDEN = np.load(Path(__file__).parent / "golden" / "frontier.npz")
SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
# Of --n_hidden and --depth there may be one.
TINY = [word for pair in zip(toy.TINY[::2], toy.TINY[1::2], strict=True) if pair[0] != "--n_hidden" for word in pair]
DEEP = [*TINY, "--depth", "12"]


@pytest.fixture(params=["kept", "computed again"])
def activations(request, monkeypatch):
    """Both ways of the backward pass, whatever the depth."""
    monkeypatch.setattr(networks, "REMAT_DEPTH", BLOCK if request.param == "computed again" else 2048)


def stacked(layers):
    """Parameters of `Block`s from those of their layers in order, (Dense, LayerNorm) each."""
    blocks = [layers[start : start + BLOCK] for start in range(0, len(layers), BLOCK)]
    of_block = [
        {f"{kind}_{i}": leaf for i, layer in enumerate(block) for kind, leaf in layer.items()} for block in blocks
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_block)


def golden(depth, name):
    return jnp.asarray(GOLDEN[f"scaling_crl/depth{depth}/{name}"])


def dense(depth, name):
    return {leaf: golden(depth, f"in/{name}_{leaf}") for leaf in ("kernel", "bias")}


def golden_params(depth, last):
    layers = [
        {
            "Dense": dense(depth, f"layer{i}"),
            "LayerNorm": {leaf: golden(depth, f"in/layer{i}_ln_{leaf}") for leaf in ("scale", "bias")},
        }
        for i in range(depth + 1)
    ]
    first = {f"{kind}_0": leaf for kind, leaf in layers[0].items()}
    return {**first, "blocks": stacked(layers[1:]), "Dense_1": last}


@pytest.mark.parametrize("depth", [4, 8])
def test_representations_equal_golden_values(depth, activations):
    params = {"params": golden_params(depth, dense(depth, "last"))}
    output = DeepMLP(3, depth, 6).apply(params, golden(depth, "in/x"))
    np.testing.assert_allclose(output, golden(depth, "out/representation"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("depth", [4, 8])
def test_the_actor_equals_golden_values(depth):
    heads = [dense(depth, name) for name in ("mean", "log_std")]
    last = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *heads)
    actor = Actor(lambda outputs: DeepMLP(outputs, depth, 6), 2)
    params = {"params": {"DeepMLP_0": golden_params(depth, last)}}
    x = golden(depth, "in/x")
    mean, log_std = actor.apply(params, x[:, :3], x[:, 3:])
    np.testing.assert_allclose(mean, golden(depth, "out/mean"), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(log_std, golden(depth, "out/log_std"), rtol=1e-6, atol=1e-6)


def plain(params, depth):
    """Parameters of the MLP of equal depth from those of a DeepMLP."""
    first, blocks, last = params["Dense_0"], params["blocks"], params["Dense_1"]
    layers = {"Dense_0": first, f"Dense_{depth + 1}": last}
    if "LayerNorm_0" in params:
        layers["LayerNorm_0"] = params["LayerNorm_0"]
    for name, leaves in blocks.items():
        kind, index = name.split("_")
        for block in range(depth // BLOCK):
            number = 1 + block * BLOCK + int(index)
            layers[f"{kind}_{number}"] = jax.tree.map(lambda leaf, block=block: leaf[block], leaves)
    return layers


@pytest.mark.parametrize(("use_ln", "use_relu"), [(True, False), (False, True)])
def test_values_and_gradients_equal_those_of_the_plain_mlp(use_ln, use_relu, activations):
    depth, x = 12, jax.random.normal(jax.random.key(1), (7, 6))
    deep = DeepMLP(3, depth, 16, use_ln, use_relu)
    shallow = MLP(3, 16, depth + 1, use_ln, use_relu, skip_connections=BLOCK)
    params = jax.jit(deep.init)(jax.random.key(0), x)
    rng = np.random.default_rng(0)  # without the zeros and ones of initial biases and scales
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), params)
    same = {"params": plain(params["params"], depth)}
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, jax.eval_shape(shallow.init, jax.random.key(0), x))

    def loss(network, params):
        output = network.apply(params, x)
        return jnp.sum(jnp.sin(output)), output

    results = [
        jax.jit(jax.grad(lambda params, network=network: loss(network, params), has_aux=True))(of)
        for network, of in ((deep, params), (shallow, same))
    ]
    (gradient, output), (expected_gradient, expected) = results
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    got = plain(gradient["params"], depth)
    size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_gradient))
    for a, b in zip(jax.tree.leaves({"params": got}), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * size)


def test_every_layer_of_every_block_is_initialised_anew_as_a_layer_of_the_plain_mlp():
    params = jax.jit(DeepMLP(3, 32, 64).init)(jax.random.key(0), jnp.zeros(5))["params"]["blocks"]
    kernels = np.concatenate([params[f"Dense_{i}"]["kernel"] for i in range(BLOCK)])
    assert kernels.shape == (32, 64, 64)
    limit = 64**-0.5  # uniform with variance 1 / (3 * 64)
    assert (np.abs(kernels).max(axis=(1, 2)) <= limit).all() and (np.abs(kernels).max(axis=(1, 2)) > 0.99 * limit).all()
    np.testing.assert_allclose(kernels.std(axis=(1, 2)), limit / 3**0.5, rtol=0.03)
    between = np.corrcoef(kernels.reshape(32, -1)) - np.eye(32)
    assert np.abs(between).max() < 6 / 64  # six standard errors
    np.testing.assert_array_equal(params["Dense_0"]["bias"], 0)
    np.testing.assert_array_equal(params["LayerNorm_3"]["scale"], 1)


def program(depth):
    """Text of the gradient of a network, before XLA; its length is what there is to compile."""
    deep = DeepMLP(3, depth, 8)
    params = jax.eval_shape(deep.init, jax.random.key(0), jnp.zeros(5))
    return jax.jit(jax.grad(lambda params: deep.apply(params, jnp.ones(5)).sum())).lower(params).as_text()


def test_a_thousand_layers_are_one_program_of_the_size_of_a_few():
    few, deep = len(program(12)), len(program(1024))
    assert abs(deep - few) < 0.02 * few


def test_activations_inside_of_blocks_are_computed_again_from_two_blocks_on():
    dots = [program(depth).count("dot_general") for depth in (4, 8)]
    assert dots[1] == dots[0] + BLOCK


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--depth 6", "--depth is 6; it must be a multiple of 4, for example 4 or 8."),
        ("--depth 3", "--depth is 3; it must be a multiple of 4, for example 4."),
        ("--depth 1028", "--depth is 1028; it must be at least 0 and at most 1024."),
        ("--depth -4", "--depth is -4; it must be at least 0 and at most 1024."),
        ("--depth 8 --n_hidden 9", "--n_hidden is 9; --depth 8 says how many layers there are: leave one of them out."),
        (
            "--depth 8 --skip_connections 2",
            "--skip_connections is 2; --depth 8 says where they are: leave one of them out.",
        ),
    ],
)
def test_what_depth_cannot_be(flags, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main([*TINY, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert error == f"training.py: {sentence}\n"
    assert not list(tmp_path.iterdir())


def test_depth_is_checked_from_python_too():
    with pytest.raises(FlagError, match="multiple of 4"):
        CRLConfig(depth=5).mlp(3)
    with pytest.raises(FlagError, match="--n_hidden is 3; --depth 8"):
        CRLConfig(depth=8).mlp(3, n_hidden=3)  # as an agent would ask for a network of its own


def layers_of(network, *inputs):
    """(plain hidden layers, layers in blocks) of a network by the shapes of its parameters."""
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    params = params.get("module", params)  # of what has LayerNorm behind it
    blocks = params.get("blocks", {})
    in_blocks = sum(leaf["kernel"].shape[0] for name, leaf in blocks.items() if name.startswith("Dense"))
    return sum(name.startswith("Dense") for name in params) - 1, in_blocks


@pytest.mark.parametrize(
    ("config", "depth", "expected"),
    [
        (CRLConfig, 8, (1, 8)),
        (ChronoConfig, 12, (1, 12)),
        (SRLConfig, 4, (2, 0)),  # half a block: two plain layers
        (SRLConfig, 8, (1, 4)),
        (SRLConfig, 12, (1, 4)),  # a block and a half: one
        (SRLConfig, 16, (1, 8)),
        (SRLConfig, 0, (1, 0)),
    ],
)
def test_layers_of_encoders(config, depth, expected):
    flags = config(depth=depth, h_dim=8)
    survival = isinstance(flags, SRLConfig)
    encoder = SurvivalCritic.of(flags, SPEC).encoder if survival else flags.mlp(4)
    assert layers_of(encoder, jnp.zeros(5)) == expected


@pytest.mark.table
def test_two_seeds_of_a_deep_network_are_each_of_them_alone_on_two_devices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert training.main([*DEEP, "--num_seeds", "2"]) == 0
    assert training.main([*DEEP, "--seed", "1", "--num_devices", "2", "--exp_name", "alone"]) == 0
    assert_equal_runs(Path("runs/alone_s1"), Path("runs/toy_crl_s1"))


@pytest.mark.slow
def test_a_deep_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert training.main(DEEP) == 0
    assert training.main([*DEEP, "--depth", "8", *LONGER]) == 2
    assert "it cannot change --depth" in capsys.readouterr().err
    assert training.main([*DEEP, *LONGER]) == 0
    assert envsteps()[-1] >= 160


@pytest.mark.slow
def test_a_restored_deep_state_trains_on_bit_for_bit(tmp_path):
    run = make_run(*read_flags(DEEP))
    state = run.advance(run.start(seed=0))
    run.save(state, tmp_path)
    restored = run.restore(tmp_path)
    for a, b in zip(*(jax.tree.leaves(run.advance(one)) for one in (state, restored)), strict=True):
        np.testing.assert_array_equal(a, b)
