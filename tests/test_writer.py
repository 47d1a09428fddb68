"""One process writes a run directory: locks of the living, of the dead, and of other hosts."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from goalax.commands import evaluate
from goalax.flags import FlagError
from goalax.host import lock
from tests.helpers import toy
from tests.helpers.runs import LONGER, RUN

toy.register()


@pytest.fixture
def run(resumed_toy):
    """(flags) -> exit code."""
    return resumed_toy


def test_one_writer(run, capsys):
    with lock.only_writer([RUN]):
        assert run(*LONGER) == 2
        words = f"A training writes into {RUN} already (process {os.getpid()} on {socket.gethostname()}): wait"
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
        assert evaluate.main([str(RUN), "--episodes", "2"]) == 0  # readers need no lock
    assert not (RUN / "lock").exists()
    assert run(*LONGER) == 0
    assert not (RUN / "lock").exists()


def test_the_lock_is_let_go_on_errors_and_when_its_process_dies(run, capsys):
    with pytest.raises(RuntimeError), lock.only_writer([RUN]):
        raise RuntimeError
    code = "import sys, pathlib; from goalax.host import lock; held = lock.only_writer([pathlib.Path(sys.argv[1])]);"
    code += "held.__enter__(); print('held', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code, str(RUN)], **pipes)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FlagError, match=f"already \\(process {process.pid} on "), lock.only_writer([RUN]):
        pass
    process.kill()
    process.communicate()
    assert (RUN / "lock").exists()
    with lock.only_writer([RUN]):
        assert (RUN / "lock").read_text() == f"{socket.gethostname()} {os.getpid()}\n"


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (f"{socket.gethostname()} {os.getpid()}\n", True),
        (f"{socket.gethostname()} {2**22 + 1}\n", False),  # more than the largest number of a process
        (f"{socket.gethostname()} {'9' * 30}\n", False),
        ("elsewhere 1\n", True),
        ("", False),
        ("words", False),
    ],
    ids=["alive", "dead", "no process", "elsewhere", "empty", "words"],  # the same in every process that collects
)
@pytest.mark.parametrize("flock", [True, False])
def test_locks_of_before(content, refused, flock, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "lock").write_text(content)
    if not flock:
        monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    if refused and not flock:
        with pytest.raises(FlagError, match=r"if it is gone, delete .*lock"), lock.only_writer([tmp_path]):
            pass
    else:
        with lock.only_writer([tmp_path]):
            pass
        assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_locked(tmp_path):
    for folder in (tmp_path / "gone", tmp_path / ("n" * 300)):
        with pytest.raises(FlagError, match="cannot be written"), lock.only_writer([folder]):
            pass
