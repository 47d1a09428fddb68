"""Exported policies: the file runs without Goalax and equals the policy, its description and its card are true."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import goalax
from goalax import __version__
from goalax.agents import AGENTS
from goalax.commands import export as command
from goalax.host import loading
from tests.helpers import toy
from tests.helpers.agents import relatives_wait

pytest.importorskip("flatbuffers")
from goalax.interop import card, export

toy.register()


# Stands for another machine: nothing of this project or its libraries can be imported.
ALONE = """
import sys
for name in ("goalax", "brax", "flax", "mujoco", "optax", "orbax"):
    sys.modules[name] = None
import jax.export
import numpy as np
policy = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
given = np.load(sys.argv[2])
np.save(sys.argv[3], policy.call(given["state"], given["goal"]))
"""


def inputs(num=7):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(num, 2)).astype(np.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def files(toy_runs, tmp_path_factory):
    """A folder with a run's policy.stablehlo, policy.stablehlo.json and card.md; the run has a film."""
    folder = tmp_path_factory.mktemp("exported")
    run = shutil.copytree(toy_runs / "l2_s0", folder / "run")
    (run / "policy.gif").write_bytes(b"a film")
    argv = [str(run), "--out", str(folder / "policy.stablehlo"), "--card", str(folder / "card.md")]
    assert command.main(argv) == 0
    return folder


@pytest.mark.slow
def test_it_runs_without_goalax_and_equals_the_policy(files, toy_runs, tmp_path):
    state, goal = inputs()
    np.savez(tmp_path / "given.npz", state=state, goal=goal)
    paths = [files / "policy.stablehlo", tmp_path / "given.npz", tmp_path / "action.npy"]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, paths)], check=True, cwd=tmp_path)
    action = np.load(paths[-1])
    policy = goalax.load(toy_runs / "l2_s0")
    np.testing.assert_allclose(action, policy(state, goal), atol=1e-5)
    assert action.shape == (7, 2) and action.dtype == np.float32 and np.ptp(action) > 1e-3


@pytest.mark.slow
def test_normalisation_is_inside(files, toy_runs):
    """The run has statistics of its prefill, which the raw network would not know."""
    run, state = goalax.host.loading.load(toy_runs / "l2_s0")
    assert not np.allclose(state.agent.state_map.spread, 1)
    agent = AGENTS["crl"].make(run.agent_config, run.spec)
    raw = agent.mode(state.agent.agent, *inputs())
    function = jax.export.deserialize(bytearray((files / "policy.stablehlo").read_bytes()))
    assert np.abs(function.call(*inputs()) - raw).max() > 1e-4


@pytest.mark.slow
def test_its_description(files):
    about = json.loads((files / "policy.stablehlo.json").read_text())
    assert about["sha256"] == hashlib.sha256((files / "policy.stablehlo").read_bytes()).hexdigest()
    assert about["inputs"] == {name: {"shape": ["batch", 2], "dtype": "float32"} for name in ("state", "goal")}
    assert about["outputs"]["action"]["shape"] == ["batch", 2]
    assert (about["env_name"], about["agent"], about["env_steps"]) == ("toy", "crl", 120)
    assert about["goal_indices"] == [0, 1] and about["seconds_per_action"] == 0.1
    assert about["versions"] == {"goalax": __version__, "jax": jax.__version__}


@pytest.mark.slow
def test_the_card_of_an_agent_with_a_memory_says_whose_numbers_it_has(files, toy_runs):
    run, state = loading.load(toy_runs / "l2_s0")
    plan = state._replace(env=state.env._replace(memory=(np.zeros((4, 2)),)))
    for each, words in ((state, "in `toy`.\n"), (plan, "in `toy`, by the agent with what it remembers of an episode")):
        assert words in card.text(run, each, toy_runs / "l2_s0", "policy.stablehlo", None)


def test_its_card(files, toy_runs):
    text = (files / "card.md").read_text()
    last = (toy_runs / "l2_s0" / "metrics.csv").read_text().splitlines()
    row = dict(zip(last[0].split(","), last[-1].split(","), strict=True))
    assert f"| `eval/final_dist` | {float(row['eval/final_dist']):.4g} |" in text and "eval/sps" not in text
    assert text.startswith("# crl in toy\n") and "120 environment steps" in text
    assert "![crl in toy](card.gif)" in text and (files / "card.gif").read_bytes() == b"a film"
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    subprocess.run([sys.executable, "-c", f"{code}\nassert action.shape == (1, 2)"], check=True, cwd=files)


@pytest.mark.slow
def test_an_older_checkpoint_has_no_film_and_its_own_metrics(files, tmp_path, toy_runs):
    argv = [str(files / "run"), "--step", "100", "--out", str(tmp_path / "old"), "--card", str(tmp_path / "old.md")]
    assert command.main(argv) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"old", "old.json", "old.md"}
    assert "100 environment steps" in (tmp_path / "old.md").read_text()
    function = jax.export.deserialize(bytearray((tmp_path / "old").read_bytes()))
    np.testing.assert_allclose(function.call(*inputs()), goalax.load(toy_runs / "l2_s0", 100)(*inputs()), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", relatives_wait(AGENTS))
def test_every_agent_can_be_exported(name):
    small = {"h_dim": 8, "n_hidden": 1, "repr_dim": 16, "num_minibatches": 2}  # of which every agent has some
    given = {size: value for size, value in small.items() if size in AGENTS[name].config.__dataclass_fields__}
    run = goalax.make("toy", agent=name, num_envs=4, unroll_length=5, num_timesteps=10_000, **given)
    state = run.train.init(run.keys(0))
    function = jax.export.deserialize(bytearray(export.serialize(export.exported(run, state))))
    for num in (1, 5):
        np.testing.assert_allclose(function.call(*inputs(num)), run.policy(state)(*inputs(num)), atol=1e-5)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "It takes one run directory, but 0 are given."),
        (["none"], "There is no run in none: its config.json cannot be read."),
        (["none", "--out", "no/policy"], "--out is 'no/policy'; it must name a file, in a directory that exists."),
        (["none", "--out", "."], "--out is '.'; it must name a file, in a directory that exists."),
        (["-o", "policy", "none"], "Unexpected argument '-o'; flags are written --name value."),
        (["none", "--card", "card.txt"], "--card is 'card.txt'; it must name a file that ends in .md, in a directory"),
        (["none", "--format", "onnx"], "Unknown flag --format"),
        (["none", "--out", "x.md", "--card", "./x.md"], "--card is './x.md', which would overwrite the policy that"),
        (["none", "--out", "x.gif", "--card", "x.md"], "--card is 'x.md', which would overwrite the policy that --out"),
    ],
)
def test_one_sentence_for_what_is_wrong(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"export.py: {words}") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_sentence_where_it_cannot_be_written(toy_runs, tmp_path, capsys):
    (tmp_path / "policy.json").mkdir()
    assert command.main([str(toy_runs / "l2_s0"), "--out", str(tmp_path / "policy")]) == 2
    words = f"export.py: --out is '{tmp_path}/policy.json'; it must name a file, in a directory that exists.\n"
    assert capsys.readouterr().err == words
    assert command.main([str(toy_runs / "l2_s0"), "--out", str(tmp_path / ("a" * 300))]) == 2
    assert "cannot be written: File name too long." in capsys.readouterr().err


def test_what_cannot_be_finished_leaves_what_was_there(toy_runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "policy"
    out.write_text("of before")
    (tmp_path / "policy.json").write_text("of before")
    monkeypatch.setattr(export, "description", lambda *_: 1 / 0)  # stands for whatever ends it between the two files
    with pytest.raises(ZeroDivisionError):
        command.main([str(toy_runs / "l2_s0"), "--out", str(out)])
    for path in tmp_path.iterdir():
        assert path.read_text() == "of before"
    (tmp_path / "policy.json").unlink()
    late = lambda *_: (tmp_path / "policy.json").mkdir() or {}  # noqa: E731
    monkeypatch.setattr(export, "description", late)
    assert command.main([str(toy_runs / "l2_s0"), "--out", str(out)]) == 2
    assert "policy.json cannot be written: Is a directory." in capsys.readouterr().err
    assert out.read_text() == "of before" and len(list(tmp_path.iterdir())) == 2


def test_one_sentence_without_flatbuffers(toy_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax._src.export.serialization", None)
    assert command.main([str(toy_runs / "l2_s0"), "--out", str(tmp_path / "policy")]) == 2
    assert capsys.readouterr().err == "export.py: Exporting needs the package flatbuffers: pip install flatbuffers.\n"


def test_onnx_runs_without_jax_and_equals_the_policy(toy_runs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    out = tmp_path / "policy.onnx"
    assert command.main([str(toy_runs / "l2_s0"), "--out", str(out), "--card", str(tmp_path / "card.md")]) == 0
    about = json.loads((tmp_path / "policy.onnx.json").read_text())
    assert about["format"] == "onnx" and about["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    session = onnxruntime.InferenceSession(str(out))
    assert [each.name for each in session.get_inputs()] == ["state", "goal"]
    policy = goalax.load(toy_runs / "l2_s0")
    for num in (1, 7):
        state, goal = inputs(num)
        (action,) = session.run(None, {"state": state, "goal": goal})
        np.testing.assert_allclose(action, policy(state, goal), atol=1e-5)
    (code,) = re.findall("```python\n(.*?)```", (tmp_path / "card.md").read_text(), re.DOTALL)
    subprocess.run([sys.executable, "-c", f"{code}\nassert action.shape == (1, 2)"], check=True, cwd=tmp_path)


def test_onnx_without_its_package_is_one_sentence(toy_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    assert command.main([str(toy_runs / "l2_s0"), "--out", str(tmp_path / "policy.onnx")]) == 2
    error = capsys.readouterr().err
    assert error == (
        "export.py: Exporting to ONNX needs jax2onnx: pip install -e .[onnx], then pip install --no-deps jax2onnx.\n"
    )
    assert not list(tmp_path.iterdir())


def test_an_onnx_file_that_differs_is_not_written(toy_runs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("goalax.interop.onnx.TOLERANCE", -1.0)
    assert command.main([str(toy_runs / "l2_s0"), "--out", str(tmp_path / "policy.onnx")]) == 2
    assert "The ONNX file would differ from the policy by" in capsys.readouterr().err and not list(tmp_path.iterdir())
