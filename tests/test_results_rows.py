"""Rows of the results queue: which runs are those of a row, the data that it needs, and what is wrong in the file."""

import json
import os
import sys

import pytest

from goalax.commands import results as command
from goalax.host.resolve import resolve
from goalax.study import curves, markdown, results, results_document
from tests.helpers import ROOT, toy
from tests.helpers.queue import FLAGS, document, folder_of, kept, leave, rows, write

toy.register()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return folder_of(tmp_path, monkeypatch)


def test_a_core_where_programs_cannot_be_held_on_one(folder, monkeypatch, capsys):
    monkeypatch.delattr(os, "sched_setaffinity")
    write(folder, "--agent gcbc")
    assert command.main(["--core", "1"]) == 2
    assert "--core is 1; this system cannot hold programs on a core" in capsys.readouterr().err


@pytest.mark.slow
def test_a_changed_flag_is_a_new_row(folder):
    write(folder, "--agent gcbc")
    assert command.main([]) == 0
    (row,) = rows(folder)
    write(folder, "--agent gcbc --policy_lr 0.01")
    (other,) = rows(folder)
    assert other.name != row.name and not results.kept(other, folder / "benchmarks/results")
    write(folder, "--agent gcbc")
    path = folder / "benchmarks/results" / f"{row.name}_s0" / "config.json"
    content = json.loads(path.read_text())
    assert results.fits(row, content)
    del content["flags"]["commanded_goals"], content["agent_flags"]["depth"]  # a version that did not have them
    assert results.fits(row, content)
    content["agent_flags"]["policy_lr"] = 0.5  # a default that has changed since
    path.write_text(json.dumps(content))
    assert not results.kept(row, folder / "benchmarks/results")


@pytest.mark.slow
def test_a_row_that_learns_offline_makes_its_data_once_and_counts_updates(folder, monkeypatch):
    monkeypatch.setattr(command.Queue, "collect", [sys.executable, "collect.py"])
    (folder / "collect.py").write_text(
        "import sys, numpy as np\n"
        "from tests.helpers.offline import walks\n"
        "assert sys.argv[1:] == ['--out', 'data/walks.npz']\n"
        "open('made', 'a').write('x')\n"
        "np.savez('data/walks.npz', **walks())\n"
    )
    write(folder, "--agent gcbc", flags=f"{FLAGS} --dataset data/walks.npz --offline_steps 40 --num_timesteps 0")
    path = folder / "benchmarks/results/rows.yml"
    path.write_text(path.read_text() + "  data: ['--out data/walks.npz']\n")
    (row,) = rows(folder)
    assert command.main([]) == command.main([]) == 0
    assert (folder / "made").read_text() == "x" and kept(folder) == [f"{row.name}_s0"]
    assert "python scripts/dataset.py --out data/walks.npz\npython training.py" in document(folder)
    assert "| 1 | 40 updates |  |" in document(folder)
    group = results_document.group_of(results.kept(row, folder / "benchmarks/results"))
    figure = curves.compare([group], "steps").figure
    assert {axes.get_xlabel() for axes in figure.axes} == {"updates"}
    (trained,) = results.kept(row, folder / "benchmarks/results")
    trained.rows[-1]["training/gradient_steps"] = 39
    assert not results.finished([trained])


def test_other_data_make_another_row(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder, "--agent gcbc", flags=f"{FLAGS} --dataset data/x.npz --offline_steps 40 --num_timesteps 0")
    path = folder / "benchmarks/results/rows.yml"
    text, names = path.read_text(), set()
    (folder / "data").mkdir()
    for steps, there in ((10, False), (20, True), (20, False)):
        path.write_text(f"{text}  data: ['--steps {steps} --out data/x.npz', '--out data/other.npz']\n")
        (row,) = rows(folder)
        names.add(row.name)
        made, other = row.data
        assert command.missing(row) == [made, other]  # none is there, or made by another line
        if there:
            (folder / "data/x.npz").touch()
            assert command.missing(row) == [other]  # somebody's own
            command.note_of("data/x.npz").write_text("--steps 10 --out data/x.npz")
    path.write_text(f"{text}  data: ['--steps 20 --out data/x.npz']\n")
    (row,) = rows(folder)
    queue = command.Queue(command.ResultsConfig(keep=str(folder / "keep")), "results.py")
    monkeypatch.setattr(queue, "call", lambda *_: 143)  # stopped, with half of it there
    assert queue.collected(row.data[0], sys.stdout) == 143 and (folder / "data/x.npz").exists()
    assert command.missing(row) == [row.data[0]]
    assert names == {rows(folder)[0].name, *names} and len(names) == 2  # the other file is not the row's


def test_a_row_of_another_machine_counts(folder):
    """Presets differ between CPUs and GPUs."""
    flags = FLAGS.replace("--num_envs 4", "").replace("--num_timesteps 120", "--num_timesteps 1000000")
    write(folder, "--agent gcbc", flags=flags)
    (row,) = rows(folder)
    leave(folder, row, [{"training/envsteps": 120, "training/gradient_steps": 12}])
    path = folder / f"benchmarks/results/{row.name}_s0/config.json"
    content = json.loads(path.read_text())
    content["flags"] |= {"num_envs": 512, "utd_ratio": results.settings_of(row, 512, 4)["utd_ratio"]}
    assert results.fits(row, content)
    content["flags"]["utd_ratio"] = 0.5
    assert not results.fits(row, content)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("['--out minari:a/walks-v0']", "the data '--out minari:a/walks-v0' says no file"),
        ("[3]", "`data` must be a list of command lines"),
        ('["--out \'x.npz"]', "are no command lines: No closing quotation"),
        ("['--style x']", "the data '--style x' says no file"),
    ],
)
def test_data_without_a_file_is_one_sentence(folder, data, words, capsys):
    write(folder, "--agent gcbc")
    path = folder / "benchmarks/results/rows.yml"
    path.write_text(path.read_text() + f"  data: {data}\n")
    assert command.main([]) == 2
    assert words in capsys.readouterr().err


def test_a_row_whose_environment_is_not_installed_is_believed(folder, monkeypatch):
    """What is kept has all flags that were given in its name."""
    write(folder, "--agent gcbc")
    (row,) = rows(folder)
    leave(folder, row, [{"training/envsteps": 120, "training/gradient_steps": 12}])

    def missing(*_):
        raise results.FlagError("--env_name is toy; the package is not installed.")

    monkeypatch.setattr(results, "settings_of", missing)
    assert command.Queue(command.ResultsConfig(), "results.py").state(row) == "finished"
    assert command.main(["--tables"]) == 0 and "not run" not in document(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML in line"),
        ("- section: 2020-13-01", "is no YAML."),
        ("[" * 5000, "is no YAML."),
        ("a: 1", "must be a list of sections"),
        ("- rows: []", "part 1 needs a `section`"),
        ("- {section: one, rows: [], colour: red}", "has `colour`"),
        ("- {section: one, rows: --agent crl}", "`rows` must be a list"),
        ("- {section: one, rows: [--agent crll]}", "the row '--agent crll' is no command line: --agent is 'crll'"),
        ("- {section: one, rows: ['--agent \"crl']}", "is no command line: No closing quotation"),
        ("- {section: one, threshold: 2, rows: []}", "`threshold` is 2"),
        ("- {section: one, one_by_one: 2, rows: []}", "`one_by_one` is 2; it must be true or false"),
        ("- {section: one, rows: [--agent crl, --agent crl]}", "is there twice"),
        ("- {section: one, rows: [--agent crl, --agent crl --seed 1]}", "is there with other seeds, too; --num_seeds"),
        ("- {section: two, rows: [--agent crl]}", "No place for two in docs/results.md, docs/offline.md, docs/plan"),
    ],
)
def test_one_sentence_for_a_wrong_file(text, words, folder, capsys):
    (folder / "benchmarks/results/rows.yml").write_text(text)
    assert command.main([]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and error.startswith("results.py: ")


@pytest.mark.parametrize("flags", [{}, [], None, {"agent": ["gcbc"]}, {"agent": "gcbc"}])
def test_a_run_directory_with_flags_that_no_run_writes_is_none_of_the_row(flags, folder, capsys):
    write(folder, "--agent gcbc")
    (row,) = rows(folder)
    run = folder / f"runs/results/{row.name}_s0"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"flags": flags, "agent_flags": {}}))
    assert results.newest_directories(row) == []
    assert command.main(["--list"]) == 0 and capsys.readouterr().out.startswith("not run")


def test_the_rows_of_this_project_are_command_lines_and_have_their_places():
    listed = results.read_rows(ROOT / "benchmarks/results/rows.yml")
    text = "".join((ROOT / name).read_text() for name in command.ResultsConfig().out.split(","))
    for section in {row.section for row in listed}:
        start, end = markdown.marks(section, "results.py")
        assert start in text and end in text
    names = {f"{row.name}_s{seed}" for row in listed for seed in row.seeds}
    assert {path.parent.name for path in (ROOT / "benchmarks/results").glob("*/config.json")} <= names


@pytest.mark.slow
def test_the_rows_of_this_project_could_start():
    """One row of each environment and sizes, presets filled in."""
    pytest.importorskip("ogbench")
    pytest.importorskip("mujoco_playground")
    unlike = {}
    for row in results.read_rows(ROOT / "benchmarks/results/rows.yml"):
        sizes = "env_name", "num_envs", "action_repeat", "unroll_length", "min_replay_size", "max_replay_size"
        unlike.setdefault(tuple(getattr(row.flags, name) for name in sizes), row)
    for row in unlike.values():
        assert resolve(row.flags).config.env_name == row.flags.env_name
