"""Temporary files: nobody can plant one, and what killed writers left goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipmsa.cache.files import publish, publish_text


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def leave_behind(path: Path) -> Path:
    """The temporary file of a writer that was killed."""
    with publish(path) as temporary:
        name = temporary
    name.write_text("half")
    return name


@pytest.mark.parametrize("name", ["a.txt", "a[1].txt", "a*.txt", "é b.txt"])
def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path, name):
    path = tmp_path / name
    leave_behind(path)
    leave_behind(path)
    publish_text(path, "new")
    assert names_in(tmp_path) == {name}


def test_what_is_being_written_and_what_is_of_others_stays(tmp_path):
    path = tmp_path / "a.txt"
    leave_behind(tmp_path / "b.txt")
    (tmp_path / "keep.tmp").touch()
    before = names_in(tmp_path)
    with publish(path) as temporary:
        temporary.write_text("slow")
        publish_text(path, "quick")
        assert temporary.read_text() == "slow"
    assert path.read_text() == "slow"
    assert names_in(tmp_path) == before | {"a.txt"}


def test_a_temporary_name_that_is_taken_is_not_written_to(tmp_path, monkeypatch):
    """Be it a link to a file that matters: no name is known before, and none is opened twice."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("clipmsa.cache.files.secrets.token_hex", lambda size: "guessed")
    (tmp_path / ".a.txt.guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        publish_text(tmp_path / "a.txt", "new")
    assert victim.read_text() == "precious"


def test_two_writers_have_two_temporary_files(tmp_path):
    path = tmp_path / "a.txt"
    with publish(path) as one, publish(path) as two:
        assert one != two
        one.touch()
        two.touch()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_folders_and_links_under_such_a_name_are_neither_waited_for_nor_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.mkfifo(tmp_path / ".a.txt.1.tmp")
    (tmp_path / ".a.txt.2.tmp").mkdir()
    (tmp_path / ".a.txt.3.tmp").symlink_to(victim)
    publish_text(tmp_path / "a.txt", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_file_has_the_permissions_that_any_new_file_has(tmp_path):
    (tmp_path / "plain").touch()
    publish_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.slow
def test_writers_at_once_do_not_take_one_another_s_files_for_leftovers(tmp_path):
    """Real processes that begin and end together, one of them by a kill."""
    code = (
        "import sys, pathlib, clipmsa.cache.files as f\n"
        "for i in range(300): f.publish_text(pathlib.Path(sys.argv[1]), 'x' * 1000)"
    )
    path = tmp_path / "a.txt"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    for writer in writers[:1]:
        writer.kill()
    assert [writer.wait() for writer in writers[1:]] == [0, 0]
    writers[0].wait()
    publish_text(path, "last")
    assert names_in(tmp_path) == {"a.txt"}
