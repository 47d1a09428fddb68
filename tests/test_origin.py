"""Where a run comes from: the commit of this project and of no other one, and the command line as it can be run."""

import subprocess
from pathlib import Path

import pytest

from goalax.host import origin


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Somebody's repository, in which Goalax lies as a file of a virtual environment: (words) -> what git says."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")

    def git(*words):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "mine.py").write_text("a = 1\n")
    file = tmp_path / "venv" / "goalax" / "origin.py"
    file.parent.mkdir(parents=True)
    file.write_text(Path(origin.__file__).read_text())
    git("add", "mine.py")
    git("commit", "-q", "-m", "a")
    monkeypatch.setattr(origin, "__file__", str(file))
    return git


def test_a_commit_of_somebody_elses_repository_is_none_of_this_project(repository):
    assert origin.git_commit() is None
    repository("add", "venv")
    repository("commit", "-q", "-m", "b")
    assert origin.git_commit() == repository("rev-parse", "HEAD")


def test_there_is_no_commit_without_a_repository_or_without_git(tmp_path, monkeypatch, repository):
    repository("add", "venv")
    repository("commit", "-q", "-m", "b")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert origin.git_commit() is None
    monkeypatch.undo()
    monkeypatch.setattr(origin, "__file__", "/nowhere/at/all/origin.py")
    assert origin.git_commit() is None


def test_a_script_is_called_by_python_and_a_program_by_its_name():
    assert origin.command_line(["training.py", "--exp_name", "a b"]) == "python training.py --exp_name 'a b'"
    assert origin.command_line(["goalax", "train", 3]) == "goalax train 3"
    assert origin.command_line([]) == ""
