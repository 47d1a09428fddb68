"""Files are written aside and then take their places: links, pipes, permissions, and errors that name the file."""

import errno
import os
from pathlib import Path

import pytest

from goalax.host.places import writable
from goalax.whole import aside, copy, part_of


def test_a_link_stays_one_and_what_it_names_is_replaced(tmp_path):
    (tmp_path / "old").write_text("of before")
    (tmp_path / "link").symlink_to("old")
    with aside(tmp_path / "link") as part:
        part.write_text("new")
        assert (tmp_path / "old").read_text() == "of before"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "old").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


class Unnamed(OSError):
    """As those of PyAV, which have names of their own that cannot be set."""

    filename = property(lambda self: None)


@pytest.mark.parametrize("kind", [OSError, Unnamed])
def test_an_error_names_the_file_and_not_the_place_aside(tmp_path, kind):
    path = tmp_path / "a.mp4"
    path.write_text("of before")
    with pytest.raises(OSError, match="No space left") as full, aside(path) as part:
        part.write_text("half")
        raise kind(errno.ENOSPC, "No space left on device", str(part))
    assert (full.value.filename, full.value.strerror) == (str(path), "No space left on device")
    assert path.read_text() == "of before" and len(list(tmp_path.iterdir())) == 1


def test_who_may_read_a_file_and_what_others_write_beside_it_stay(tmp_path):
    path = tmp_path / ("é" * 125)  # 250 bytes, with no room for more
    path.write_text("of before")
    path.chmod(0o600)
    other = path.with_name("other.part")
    other.write_text("of another process")
    with aside(path) as part:
        part.write_text("new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600
    assert other.read_text() == "of another process" and len(list(tmp_path.iterdir())) == 2


def test_a_pipe_is_written_into():
    reading, writing = os.pipe()
    path = Path(f"/dev/fd/{writing}")
    assert writable("out", str(path)) == path
    with aside(path) as part:
        part.write_text("into it")
    assert os.read(reading, 100) == b"into it"
    os.close(reading)
    os.close(writing)


def test_a_copy_that_has_no_room_names_its_own_file(tmp_path):
    (tmp_path / "source").write_text("content")
    part_of(tmp_path / "copy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        copy(tmp_path / "source", tmp_path / "copy")
    assert full.value.filename == str(tmp_path / "copy")
    copy(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "content"
