"""Cards of exported policies: strange names, goals that are not there, resumed runs, checkpoints of their own."""

import json
from types import SimpleNamespace

import pytest

from goalax.whole import part_of

pytest.importorskip("flatbuffers")
from goalax.interop import card, export


def test_a_card_of_strange_names_and_bytes(tmp_path):
    """A byte that is no UTF-8 in the command, a space in the card's own name; and its command runs as it is written."""
    config = SimpleNamespace(agent="crl", env_name="toy", seed=0, dataset_steps=0)
    spec = SimpleNamespace(state_size=2, goal_size=2, action_size=2, goal_reach_thresh=0.5)
    run = SimpleNamespace(config=config, spec=spec, env=SimpleNamespace(backend="none"))
    command = ["training.py", "--exp_name", "a\udcff"]
    content = {"flags": {}, "agent_flags": {}, "command": command}
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "policy.gif").write_bytes(b"a film")
    path = tmp_path / "my (card).md"
    state = SimpleNamespace(env_steps=60, gradient_steps=3)
    assert card.write(run, state, tmp_path, tmp_path / "policy", path) == [path, tmp_path / "my (card).gif"]
    text = path.read_text(encoding="utf-8")
    assert "![crl in toy](my%20%28card%29.gif)\n" in text and "\npython training.py --exp_name 'a\\udcff'\n" in text
    path.unlink()
    part_of(tmp_path / "my (card).md").mkdir()
    with pytest.raises(OSError, match="Is a directory"):  # and no half of a card
        card.write(run, state, tmp_path, tmp_path / "policy", path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("goal_size", "radius", "words"),
    [
        (2, 0.5, "It takes states [5] and goals [2], and is at the goal when nearer than 0.5."),
        (5, 0.0, "It takes states [5] and goals [5], and the environment itself judges when it is at the goal."),
        (0, 0.0, "It takes states [5]; there are no goals here, and those of a call are empty, [0]."),
    ],
)
def test_a_card_says_nothing_of_goals_or_radii_that_are_not_there(goal_size, radius, words, tmp_path):
    config = SimpleNamespace(agent="bc", env_name="toy", seed=0, dataset_steps=0)
    spec = SimpleNamespace(state_size=5, goal_size=goal_size, action_size=1, goal_reach_thresh=radius, action_repeat=1)
    spec.goal_indices = range(goal_size)
    run = SimpleNamespace(config=config, spec=spec, env=SimpleNamespace(backend="none", dt=0.1))
    state = SimpleNamespace(env_steps=0, gradient_steps=60)
    (tmp_path / "config.json").write_text(json.dumps({"flags": {}, "agent_flags": {}}))
    text = card.text(run, state, tmp_path, "policy", None)
    assert f"60 updates on a dataset. {words}\n" in text
    assert text.splitlines()[2].startswith("A goal-conditioned policy" if goal_size else "A policy of Goalax")
    about = export.description(run, state, tmp_path / "policy", b"")
    assert about["goal_reach_thresh"] == (radius or None)


def test_the_card_of_a_run_that_was_resumed_has_the_flags_of_all_its_calls(tmp_path):
    (tmp_path / "metrics.csv").write_text("training/envsteps,training/gradient_steps\n0,62\n0,124\n")
    first = ["training.py", "--dataset", "a.npz", "--offline_steps", "62"]
    resumed = [{"command": ["training.py", "--resume", "--offline_steps", "124"]}]
    resumed += [{"command": ["training.py", "--resume", "--finetune_dataset", "b.npz"]}]
    content = {"flags": {}, "agent_flags": {}, "command": first, "resumed": resumed}
    (tmp_path / "config.json").write_text(json.dumps(content))
    for updates in (62, 124):
        words = "".join(card.training(tmp_path, SimpleNamespace(env_steps=0, gradient_steps=updates), "crl"))
        assert "\npython training.py --dataset a.npz --offline_steps 124 --finetune_dataset b.npz\n" in words
        assert "The run was resumed 2 times: this has the flags of all its calls." in words
        assert ("It goes on after the state" in words) == (updates == 62)


def test_a_card_tells_of_its_own_checkpoint(tmp_path):
    """Before the first environment step, too."""
    lines = ["training/envsteps,training/gradient_steps,eval/x", "0,10,1", "0,20,2", "60,30,3"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines) + "\n")
    for steps, updates, found in ((0, 10, {"eval/x": 1}), (0, 20, {"eval/x": 2}), (60, 30, {"eval/x": 3}), (0, 15, {})):
        assert card.measured(tmp_path, SimpleNamespace(env_steps=steps, gradient_steps=updates)) == found
