"""Which runs are compared: what is found, grouped, named, left out and said."""

import json
import os
import shutil

import numpy as np
import pytest

from goalax.commands import plot
from goalax.flags import FlagError
from goalax.host.config import read_flags
from goalax.host.stored import completed, read_resumed_flags, read_run
from goalax.study import experiments
from tests.helpers.experiments import STEPS, make_run


def test_groups_are_flags_without_the_seed(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"a_s{seed}", seed, (0.5, 1), vis_length=seed)
        make_run(tmp_path / "g" / f"b_s{seed}", seed, (0.4, 0.6), agent_flags={"h_dim": 16})
        make_run(tmp_path / f"c_s{seed}", seed, (0.1, 0.2), env_name="toy_eval", eval_env="toy_eval")
        make_run(tmp_path / f"d_s{seed}", seed, (0.1, 0.2), agent="tmd", agent_flags={"alpha": 1})
    groups, notes = experiments.compare([tmp_path])
    assert notes == []
    named = [(group.label, group.env, [run.seed for run in group.runs]) for group in groups]
    assert named == [
        ("crl, h_dim 8", "toy", [0, 1]),
        ("crl, h_dim 8", "toy_eval", [0, 1]),
        ("tmd", "toy", [0, 1]),
        ("crl, h_dim 16", "toy", [0, 1]),
    ]
    np.testing.assert_array_equal(groups[0].steps, STEPS)
    np.testing.assert_allclose(groups[0].near, [[1 / 6, 1 / 3, 0.5]] * 2)
    np.testing.assert_allclose(groups[3].reached, [[0.2, 0.4, 0.6]] * 2)


def test_names_tell_groups_apart_only_where_a_seed_has_several(tmp_path):
    for seed, name in enumerate(("one", "two", "two")):
        make_run(tmp_path / f"{name}_s{seed}", seed, (0.5, 1), exp_name=name, group_name=name)
    (group,), notes = experiments.compare([tmp_path])
    assert (group.label, [run.seed for run in group.runs], notes) == ("crl", [0, 1, 2], [])
    make_run(tmp_path / "z_s0", 0, (0.5, 1), exp_name="z")
    make_run(tmp_path / "zz_s0", 0, (0.5, 1), exp_name="z", agent_flags={"h_dim": 16})
    groups, notes = experiments.compare([tmp_path])
    assert notes == [] and {group.label: len(group.runs) for group in groups} == {
        "crl, h_dim 8, exp_name one, group_name one": 1,
        "crl, h_dim 8, exp_name two, group_name two": 2,
        "crl, h_dim 8, exp_name z": 1,
        "crl, h_dim 16": 1,
    }


def of_data(directory, seed, path, sha=None, **flags):
    run = make_run(directory, seed, (0.5, 1), dataset=path, **flags)
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(content | ({} if sha is None else {"dataset_sha256": sha * 64})))
    return run


def groups_of(folder):
    groups, notes = experiments.compare([folder])
    assert notes == []
    return {group.label: [run.directory.name for run in group.runs] for group in groups}


def test_equal_data_are_one_group_whatever_their_path(tmp_path):
    of_data(tmp_path / "a_s0", 0, "data.npz", "1")
    of_data(tmp_path / "a_s1", 1, "/elsewhere/data.npz", "1")
    of_data(tmp_path / "a_s2", 2, "/elsewhere/data.npz")  # of an older version, which goes by the path
    assert groups_of(tmp_path) == {"crl": ["a_s0", "a_s1", "a_s2"]}


def test_different_data_are_different_groups_whatever_their_path(tmp_path):
    of_data(tmp_path / "a_s0", 0, "data.npz", "1")
    of_data(tmp_path / "a_s1", 1, "data.npz", "2")
    of_data(tmp_path / "a_s2", 2, "data.npz")  # of one of both, nobody knows which
    of_data(tmp_path / "b_s0", 0, "other.npz")
    of_data(tmp_path / "b_s1", 1, "other.npz")
    assert groups_of(tmp_path) == {
        "crl, dataset data.npz (SHA-256 11111111)": ["a_s0"],
        "crl, dataset data.npz (SHA-256 22222222)": ["a_s1"],
        "crl, dataset data.npz": ["a_s2"],
        "crl, dataset other.npz": ["b_s0", "b_s1"],
    }


def test_data_for_fine_tuning_count_by_what_is_in_them_too(tmp_path):
    for seed, sha in enumerate("112"):
        run = of_data(tmp_path / f"a_s{seed}", seed, "data.npz", "3", finetune_dataset=f"{seed}.npz")
        content = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(content | {"finetune_dataset_sha256": sha * 64}))
    assert groups_of(tmp_path) == {
        "crl, finetune_dataset 0.npz": ["a_s0", "a_s1"],
        "crl, finetune_dataset 2.npz": ["a_s2"],
    }


def test_flags_that_differ_are_those_of_one_agent_or_of_all():
    many = [{"agent": "a", "x": 1, "y": 1}, {"agent": "a", "x": 1, "z": 2}, {"agent": "b", "x": 2, "w": 3}]
    assert experiments.differing(many) == ["agent", "x", "y", "z"]


def test_labels_are_short_unless_that_hides_what_differs():
    def of(*values):
        return experiments.labels([{"agent": "a", "env_name": "e", "x": value} for value in values])

    assert of(0.1 / 3, 1e-4, 1200) == ["a, x 0.03333", "a, x 0.0001", "a, x 1,200"]
    assert of(0.12341, 0.12342) == ["a, x 0.12341", "a, x 0.12342"]


def test_a_version_without_a_flag_did_what_was_done_then(tmp_path):
    """Not always today's default: `tmd_visits` had no original goals. In reports, and where a run is made again."""
    flags, agent_flags = read_flags(["--agent", "tmd_visits"])
    stored = {"flags": vars(flags), "agent_flags": {**vars(agent_flags)}}
    del stored["agent_flags"]["original_goals"], stored["agent_flags"]["head_dim"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    for _, known in (completed(**stored), map(vars, read_run(tmp_path))):
        assert known == {**vars(agent_flags), "original_goals": 0.0, "head_dim": 0}
    given = ["--agent", "tmd_visits", "--original_goals"]
    assert read_resumed_flags([*given, "0"], flags, [tmp_path])[1].original_goals == 0
    with pytest.raises(FlagError, match="cannot change --original_goals"):
        read_resumed_flags([*given, "0.25"], flags, [tmp_path])


def test_a_version_that_called_flags_otherwise_is_made_again(tmp_path):
    flags, agent_flags = read_flags(["--agent", "tmd", "--num_timesteps", "5000", "--tmd_goal", "goal"])
    stored = {"flags": {**vars(flags)}, "agent_flags": {**vars(agent_flags)}}
    stored["flags"]["total_env_steps"] = stored["flags"].pop("num_timesteps")
    stored["agent_flags"]["tmd_goal"] = stored["agent_flags"].pop("critic_goal")
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert read_run(tmp_path) == (flags, agent_flags)


def test_a_repeated_seed_counts_once_and_a_short_run_cuts_its_group(tmp_path):
    make_run(tmp_path / "x_s0", 0, (0.1, 0.1))
    make_run(tmp_path / "x_s0-2", 0, (0.2, 0.2))
    make_run(tmp_path / "x_s0-10", 0, (0.3, 0.3))
    make_run(tmp_path / "x_s1", 1, (0.4, 0.4), steps=STEPS[:2])
    (group,), notes = experiments.compare([tmp_path, tmp_path / "x_s1"])
    assert [run.directory.name for run in group.runs] == ["x_s0-10", "x_s1"]
    np.testing.assert_array_equal(group.steps, STEPS[:2])
    assert notes == [
        f"{tmp_path}/x_s0 is left out: {tmp_path}/x_s0-10 has the same flags and seed.",
        f"{tmp_path}/x_s0-2 is left out: {tmp_path}/x_s0-10 has the same flags and seed.",
        f"{tmp_path}/x_s1 stops at 100 steps: its group is compared up to there only.",
    ]


def test_a_seed_begun_anew_does_not_replace_its_finished_run(tmp_path):
    make_run(tmp_path / "x_s0", 0, (0.1, 0.1))
    make_run(tmp_path / "x_s0-2", 0, (0.2, 0.2), steps=STEPS[:1])
    (group,), notes = experiments.compare([tmp_path])
    assert [run.directory.name for run in group.runs] == ["x_s0"] and list(group.steps) == list(STEPS)
    assert notes == [f"{tmp_path}/x_s0-2 is left out: {tmp_path}/x_s0 has the same flags and seed."]


def test_of_two_folders_the_newer_run_counts_whatever_its_number(tmp_path):
    old = make_run(tmp_path / "a" / "x_s0-2", 0, (0.1, 0.1))
    new = make_run(tmp_path / "b" / "x_s0", 0, (0.2, 0.2))
    os.utime(old / "metrics.csv", (1e9, 1e9))
    os.utime(new / "metrics.csv", (1.1e9, 1.1e9))
    (group,), _ = experiments.compare([tmp_path / "a", tmp_path / "b"])
    assert [run.directory for run in group.runs] == [new]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "config.json").unlink(), "There is no run in {run}: its config.json cannot be read."),
        (
            lambda run: (run / "config.json").write_text("{"),
            "There is no run in {run}: its config.json cannot be read.",
        ),
        (
            lambda run: (run / "config.json").write_text('{"flags": {"seed": 1}, "agent_flags": {}}'),
            "The run {run} was written by a version before goalax 0.2, which has other flags.",
        ),
        (
            lambda run: (run / "config.json").write_text((run / "config.json").read_text().replace('"toy"', "[1]")),
            "The run {run} was written by a version before goalax 0.2, which has other flags.",
        ),
        (
            lambda run: (run / "metrics.csv").write_text((run / "metrics.csv").read_text().replace("120,", "nan,")),
            "The run {run} has numbers that are not finite in its metrics.csv.",
        ),
        (lambda run: (run / "metrics.csv").unlink(), "The run {run} has no evaluation in its metrics.csv."),
        (lambda run: (run / "metrics.csv").write_bytes(b"\xff\x00"), "The run {run} has no evaluation in its metrics"),
        (lambda run: (run / "metrics.csv").write_text("a,b\n1"), "The run {run} has no evaluation in its metrics.csv."),
        (lambda run: [path.unlink() for path in run.iterdir()], "There is no run in {run}: its config.json cannot"),
        (shutil.rmtree, "There is no directory {run}."),
    ],
)
def test_broken_runs_are_skipped_and_named(change, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, bad = make_run(tmp_path / "good_s0", 0, (0.5, 1)), make_run(tmp_path / "bad_s1", 1, (0.5, 1))
    change(bad)
    assert plot.main([str(good), str(bad)]) == 0
    error = capsys.readouterr().err
    assert error.startswith(f"plot.py: {words.format(run=bad)}") and error.endswith(" It is skipped.\n")
    assert error.count("\n") == 1
    assert plot.main([str(bad)]) == 2
    assert capsys.readouterr().err.endswith(" No run is left to show.\n")


def test_a_row_that_a_crash_cut_short_is_left_out(tmp_path):
    run = make_run(tmp_path / "x_s0", 0, (0.5, 1))
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text[: text.rindex(",") - 1])
    ((group,), notes) = experiments.compare([run])
    assert (group.steps.tolist(), notes) == ([60, 100], [])


def test_a_last_row_without_its_end_is_left_out(tmp_path):
    """Cut inside its last value it has as many values as all others: 0.98 may have been 0.9861."""
    run = make_run(tmp_path / "x_s0", 0, (0.5, 1))
    text = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(text[:-4])
    ((group,), notes) = experiments.compare([run])
    assert (group.steps.tolist(), notes) == ([60, 100], [])
    (run / "metrics.csv").write_bytes(text)
    assert experiments.compare([run])[0][0].steps.tolist() == [60, 100, 120]


def test_a_run_on_a_dataset_stops_at_updates(tmp_path):
    for seed, updates in enumerate(((20, 40, 60), (20, 40))):
        make_run(tmp_path / f"x_s{seed}", seed, (0.5, 1), steps=(0,) * len(updates), updates=updates)
    _, notes = experiments.compare([tmp_path])
    assert notes == [f"{tmp_path}/x_s1 stops at 40 updates: its group is compared up to there only."]


def test_steps_behind_a_dataset_are_counted_apart(tmp_path):
    for seed, steps in enumerate(((0, 20, 40), (0, 20))):
        make_run(tmp_path / f"x_s{seed}", seed, (0.5, 1), steps=steps, updates=(60,) * len(steps))
    _, notes = experiments.compare([tmp_path])
    assert notes == [f"{tmp_path}/x_s1 stops at 20 steps: its group is compared up to there only."]


def test_of_equal_runs_in_two_folders_the_later_one_counts(tmp_path):
    for name, when in (("a_new", 2e9), ("z_old", 1e9)):
        make_run(tmp_path / name / "x_s0", 0, (0.5, 1))
        os.utime(tmp_path / name / "x_s0/metrics.csv", (when, when))
    (group,), _ = experiments.compare([tmp_path])
    assert group.runs[0].directory == tmp_path / "a_new/x_s0"


def test_a_flag_that_an_older_version_did_not_have_is_at_its_default(tmp_path):
    make_run(tmp_path / "old_s0", 0, (0.5, 1), agent="tmd", agent_flags={"tmd_goal": "goal", "h_dim": 32})
    make_run(
        tmp_path / "new_s1", 1, (0.5, 1), agent="tmd", agent_flags={"critic_goal": "goal", "h_dim": 32, "depth": 0}
    )
    make_run(tmp_path / "mine_s0", 0, (0.5, 1), agent="not_here", agent_flags={"odd": 3})
    groups, notes = experiments.compare([tmp_path])
    assert sorted((group.label, len(group.runs)) for group in groups) == [("not_here", 1), ("tmd", 2)] and not notes


def test_links_between_folders_are_followed_once(tmp_path):
    """`latest -> .` once turned a run into 41, and a second such link never ended."""
    runs, other = tmp_path / "runs", tmp_path / "elsewhere"
    first, second = make_run(runs / "b_s0", 0, (0.5, 1)), make_run(other / "z_s1", 1, (0.5, 1))
    third = make_run(tmp_path / "third_s2", 2, (0.5, 1))
    links = {"a": ".", "again": "b_s0", "c": "..", "d": other, "third_s2": third, "gone": "nothing"}
    for name, target in links.items():
        (runs / name).symlink_to(target)
    (other / "back").symlink_to(runs)
    assert experiments.directories(runs) == [first, runs / "d" / "z_s1", runs / "third_s2"]
    assert experiments.directories(other) == [second, other / "back" / "b_s0", other / "back" / "third_s2"]
    assert experiments.directories(runs / "again") == [runs / "again"]  # one that is asked for by its own name
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "latest").symlink_to(".")
    assert experiments.directories(tmp_path / "empty") == [tmp_path / "empty"]
