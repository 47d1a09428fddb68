"""What is wrong with what `goalax correct` reads is one sentence: decisions, correctors, runs that make no plans."""

import dataclasses
import json
import zipfile

import jax
import numpy as np
import pytest

from goalax.agents.correctors import Corrector, blank, network_of
from goalax.agents.plans import Planner
from goalax.commands import correct
from goalax.flags import FlagError
from goalax.host import corrector_files, loading
from goalax.host.config import read_flags

LATENT, ACTION, WIDTH = 4, 2, 8


def fails(*_, **__):
    raise AssertionError("this is not to be called")


PLANNER = Planner(2, ACTION, LATENT, encode=fails, plan=fails, predict=fails, prior=fails)

# ---- Decisions -------------------------------------------------------------------------------------------------------

ROWS = 600


def decisions(**changes):
    """A file of decisions in six episodes, with some arrays changed: by a function, or for another; None: gone."""
    rng = np.random.default_rng(0)
    sizes = {"z": LATENT, "expected": LATENT, "action": ACTION, "teacher": ACTION}
    arrays = {name: rng.normal(size=(ROWS, size)).astype(np.float32) / 4 for name, size in sizes.items()}
    arrays |= {"episode": np.arange(ROWS) // 100, "old": np.arange(ROWS) % 3 > 0}
    arrays |= corrector_files.named(corrector_files.Origin("x_s0", 100, 3, 0.1, "mean", 0))
    arrays |= {name: change(arrays[name]) if callable(change) else change for name, change in changes.items()}
    return {name: array for name, array in arrays.items() if array is not None}


def spoilt(value, *place):
    """A function of an array, to one with another value somewhere."""

    def changed(array):
        array = np.array(array)
        array[place] = value
        return array

    return changed


SHAPES = "for the episode, z and action of the file it must be"
BAD_DECISIONS = {
    "one episode": (decisions(episode=np.array(0)), f"has episode of shape []; {SHAPES} [R] = [1]"),
    "text": (decisions(z=lambda z: z.astype(str)), "has z of type <U32; it must hold numbers"),
    "wide": (
        decisions(teacher=lambda teacher: np.hstack([teacher, teacher])),
        f"has teacher of shape [600, 4]; {SHAPES} [R, A] = [600, 2]",
    ),
    "few": (decisions(z=lambda z: z[:10]), f"has z of shape [10, 4]; {SHAPES} [R, Z] = [600, 4]"),
    "flat": (decisions(z=lambda z: z[:, 0]), f"has z of shape [600]; {SHAPES} [R, Z] = [600, 600]"),
    "deep": (decisions(action=np.zeros((ROWS, 2, 3))), f"has action of shape [600, 2, 3]; {SHAPES} [R, A] = [600, 2]"),
    "no columns": (decisions(z=lambda z: z[:, :0]), f"has z of shape [600, 0]; {SHAPES} [R, Z] = [600, 1]"),
    "no rows": (decisions(episode=np.arange(0)), f"has episode of shape [0]; {SHAPES} [R] = [1]"),
    "nan": (
        decisions(teacher=spoilt(np.nan, 17, 1)),
        "has teacher that is not finite in 1 of 1,200 entries, the first at [17, 1]",
    ),
    "too large": (
        decisions(z=lambda z: spoilt(1e300, 3, 0)(z.astype(float))),
        "has z that is not finite in 1 of 2,400",
    ),
    "complex": (decisions(expected=lambda z: z + 1j), "has expected of type complex64; it must hold numbers"),
    "half episodes": (decisions(episode=lambda e: e / 2), "has episode of type float64; it must hold whole numbers"),
    "long": (decisions(old=np.ones(ROWS + 1, bool)), f"has old of shape [601]; {SHAPES} [R] = [600]"),
    "old numbers": (decisions(old=lambda old: old + 0.5), "has old of type float64; it must hold true and false"),
    "runs": (decisions(**{"origin/run": np.array(["a", "b"])}), "has origin/run of shape [2]; it must be one value"),
    "steps": (decisions(**{"origin/steps": np.array("x")}), "has origin/steps of type <U1; it must hold whole numbers"),
}


@pytest.mark.parametrize("name", BAD_DECISIONS)
def test_bad_decisions_are_one_sentence(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arrays, words = BAD_DECISIONS[name]
    np.savez("d.npz", **arrays)
    small = ["--width", "8", "--epochs", "1", "--batch_size", "100"]
    assert correct.main(["train", "--data", "d.npz", "--out", "c.npz", *small]) == 2
    error = capsys.readouterr().err
    assert error.startswith("correct.py: --data is 'd.npz', which has ") and error.count("\n") == 1
    assert words in error, error
    assert not (tmp_path / "c.npz").exists()


def test_numbers_of_any_type_are_decisions(tmp_path):
    """What is whole stays usable where others are not."""
    wide = lambda array: array.astype(np.float64)  # noqa: E731
    np.savez(tmp_path / "d.npz", **decisions(z=wide, teacher=lambda array: np.round(array).astype(np.int64)))
    found, train, test, origin = corrector_files.read_decisions(tmp_path / "d.npz", 2, 0.1)
    assert {leaf.dtype for leaf in found} == {np.dtype(np.float32)}
    assert len(train.row) + len(test.row) == 400
    assert origin == corrector_files.Origin("x_s0", 100, 3, 0.1, "mean", 0)


def test_an_archive_of_what_is_no_array_is_one_sentence(tmp_path):
    np.savez(tmp_path / "d.npz", **decisions(z=None))
    with zipfile.ZipFile(tmp_path / "d.npz", "a") as file:
        file.writestr("z.npy", b"nothing")
    with pytest.raises(FlagError, match="no npz file that can be read"):
        corrector_files.read_decisions(tmp_path / "d.npz", 1, 0.1)


# ---- Correctors ------------------------------------------------------------------------------------------------------

BIAS = "corrector/params/Dense_0/bias"


def corrector(architecture, history, path):
    """A file of a corrector as it begins; returns its arrays."""
    seen = blank(1, history, LATENT, ACTION)
    params = network_of(architecture, WIDTH).init(jax.random.PRNGKey(0), *seen)
    origin = corrector_files.Origin("x_s0", 100, 3, 0.1, "mean", 0)
    corrector_files.write_corrector(path, params, architecture, WIDTH, history, origin)
    return dict(np.load(path))


@pytest.fixture(scope="module")
def correctors(tmp_path_factory):
    """Arrays of a corrector of each architecture."""
    path = tmp_path_factory.mktemp("correctors") / "c.npz"
    return {name: corrector(name, steps, path) for name, steps in (("two_tower", 1), ("temporal", 3))}


BAD_CORRECTORS = [
    ("two_tower", {"width": np.array([8, 8])}, "has width of shape [2]; it must be one value."),
    ("two_tower", {"width": np.array("8")}, "has width of type <U1; it must hold whole numbers."),
    ("two_tower", {"width": np.array(8.0)}, "has width of type float64; it must hold whole numbers."),
    ("two_tower", {"width": np.array(0)}, "has width 0; it must be from 1 to 16,384."),
    ("two_tower", {"width": np.array(-1)}, "has width -1; it must be from 1 to 16,384."),
    ("two_tower", {"width": np.array(10**12)}, "has width 1,000,000,000,000; it must be from 1 to 16,384."),
    ("temporal", {"width": np.array(12)}, "cannot be used: --width is 12; with --architecture temporal it must be a"),
    ("temporal", {"history": np.array([3, 3])}, "has history of shape [2]; it must be one value."),
    ("temporal", {"history": np.array(0)}, "has history 0; it must be from 1 to 1,024."),
    ("temporal", {"history": np.array(4)}, "or with another width: corrector/params/places has the shape [3, 4], and"),
    ("temporal", {"architecture": np.array("two_tower")}, "holds no corrector/params/TwoLayers_3/"),
    ("two_tower", {"architecture": np.array("lstm")}, "has an architecture 'lstm' that is unknown here."),
    ("two_tower", {"architecture": np.array(3)}, "has architecture of type int64; it must hold text."),
    ("two_tower", {"architecture": np.array(["temporal"])}, "has architecture of shape [1]; it must be one value."),
    ("two_tower", {"origin/run": np.array(["a", "b"])}, "has origin/run of shape [2]; it must be one value."),
    ("two_tower", {"origin/mismatch": np.array(np.nan)}, "has origin/mismatch that is not finite in 1 of 1 entries"),
    ("two_tower", {BIAS: np.array([np.nan, 0])}, f"has {BIAS} that is not finite in 1 of 2 entries, the first at [0]."),
    ("two_tower", {BIAS: np.array(["a", "b"])}, f"has {BIAS} of type <U1; it must hold numbers."),
    (
        "two_tower",
        {BIAS: np.zeros(3)},
        f"trained for a run of other sizes, or with another width: {BIAS} has the shape",
    ),
    ("two_tower", {BIAS: None}, f"holds no {BIAS}, which its architecture has."),
    ("two_tower", {f"{BIAS}/x": np.zeros(2)}, f"holds {BIAS}/x, which its architecture lacks."),
]


@pytest.mark.parametrize(("name", "changes", "words"), BAD_CORRECTORS, ids=lambda value: str(value)[:60])
def test_bad_correctors_are_one_sentence(name, changes, words, correctors, tmp_path):
    arrays = {key: value for key, value in (correctors[name] | changes).items() if value is not None}
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(FlagError) as error:
        corrector_files.read_corrector(tmp_path / "c.npz", PLANNER)
    assert str(error.value).startswith(f"--corrector is {str(tmp_path / 'c.npz')!r}, which ")
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["two_tower", "temporal"])
def test_what_is_whole_is_read(name, correctors, tmp_path):
    """Also with numbers of another type, and beside something else."""
    arrays = correctors[name]
    wider = {key: leaf.astype(np.float64) for key, leaf in arrays.items() if key.startswith("corrector/")}
    np.savez(tmp_path / "c.npz", **{**arrays, **wider}, note=np.array("mine"))
    found, origin = corrector_files.read_corrector(tmp_path / "c.npz", PLANNER)
    assert isinstance(found, Corrector) and origin == corrector_files.Origin("x_s0", 100, 3, 0.1, "mean", 0)
    seen = blank(1, found.history, LATENT, ACTION)
    np.testing.assert_array_equal(found.correct(seen._replace(length=seen.length + 1)), np.zeros((1, ACTION)))


def test_what_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(FlagError, match="which is not written: its weights are not finite after training; a lower"):
        corrector_files.write_corrector(tmp_path / "c.npz", {"params": {"a": np.array([np.inf])}}, "two_tower", 8, 1)
    assert not list(tmp_path.iterdir())


# ---- Runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["collect", "evaluate"])
@pytest.mark.parametrize(
    ("env_name", "flags", "words"),
    [
        ("ogbench:pointmaze-medium-v0", ["--agent", "gcivl"], "is a run of gcivl, which makes no plans: tdmpc2 does."),
        ("reacher", ["--agent", "tdmpc2", "--num_seeds", "2"], "is a run of 2 seeds; a corrector is of one."),
    ],
)
def test_runs_are_refused_before_their_environments_are_made(
    action, env_name, flags, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "make_run", fails)
    stored, agent = read_flags([*flags, "--env_name", "reacher"])
    content = {"flags": {**dataclasses.asdict(stored), "env_name": env_name}, "agent_flags": dataclasses.asdict(agent)}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    out = ["--out", "o.npz"] if action == "collect" else []
    assert correct.main([action, "run", *out]) == 2
    assert capsys.readouterr().err == f"correct.py: run {words}\n"
