"""Where the golden values come from: the programs beside them make what is stored, and notice what is not."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.helpers import ROOT

GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="module")
def make_golden():
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_is_made_by_one_of_the_two_programs(make_golden):
    assert {path.stem for path in GOLDEN.glob("*.npz")} == {*make_golden.FILES, "frontier"}


@pytest.mark.parametrize("name", sorted({path.stem for path in GOLDEN.glob("*.npz")} - {"frontier"}))
def test_golden_values_are_what_the_formulas_make_of_the_inputs(make_golden, name):
    assert make_golden.differences(name) == []


@pytest.fixture
def copies(tmp_path):
    for path in GOLDEN.iterdir():
        if path.is_file():
            shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def test_check_names_every_array_that_differs_and_writing_mends_it(make_golden, copies, capsys):
    changed = []
    for name, (inputs, _) in make_golden.FILES.items():
        arrays = make_golden.stored(name, copies)
        for key in arrays.keys() - set(inputs):
            arrays[key] = np.array(arrays[key])
            arrays[key].flat[-1] *= 1 + 2 * make_golden.TOLERANCE  # of one number alone
            changed.append(f"{name}.npz: {key} differs by 2.0e-09, relative")
        np.savez(copies / f"{name}.npz", **arrays)
    assert make_golden.main(["--check"], copies) == 1
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(changed)

    assert make_golden.main([], copies) == 0
    assert make_golden.main(["--check"], copies) == 0
    for name, (inputs, _) in make_golden.FILES.items():
        before, after = (make_golden.stored(name, folder) for folder in (GOLDEN, copies))
        assert list(before) == list(after)
        for key in inputs:
            assert before[key].dtype == after[key].dtype
            np.testing.assert_array_equal(before[key], after[key])


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"dual_loss": np.float64("nan")}, ["qrl.npz: dual_loss differs by nan, relative"]),
        ({"dual_loss": None}, ["qrl.npz: dual_loss is computed only"]),
        ({"more": np.float64(1)}, ["qrl.npz: more is stored only"]),
        ({"positive": np.zeros(2)}, ["qrl.npz: positive is stored as float64[2], computed as float64[]"]),
    ],
)
def test_check_tells_what_is_no_number_too_much_too_little_or_of_another_shape(make_golden, copies, changes, lines):
    arrays = make_golden.stored("qrl", copies) | changes
    np.savez(copies / "qrl.npz", **{key: value for key, value in arrays.items() if value is not None})
    assert make_golden.differences("qrl", copies) == lines


def test_frontier_values_are_what_their_program_makes(copies):
    (copies / "frontier.npz").unlink()
    subprocess.run([sys.executable, copies / "make_frontier_golden.py"], check=True, capture_output=True)
    with np.load(GOLDEN / "frontier.npz") as stored, np.load(copies / "frontier.npz") as made:
        assert stored.files == made.files
        for name in stored.files:
            assert stored[name].dtype == made[name].dtype, name
            np.testing.assert_allclose(made[name], stored[name], rtol=1e-9, atol=1e-12, err_msg=name, strict=True)
