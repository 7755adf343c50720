"""Files are written atomically: neither a reader nor a crash leaves half a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperlax.storage import files
from hyperlax.storage.files import create, write_atomically, write_output


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch, fails):
    path = tmp_path / "folder" / "state.bin"
    write_atomically(path, b"old")

    def crash(*_):
        raise OSError("power cut")

    with monkeypatch.context() as changed:
        changed.setattr(os, fails, crash)
        with pytest.raises(OSError, match="power cut"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["state.bin"]
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["state.bin"]


def test_an_output_clears_what_a_killed_process_was_writing_under_its_name(tmp_path):
    path = tmp_path / "figure [1].pdf"
    dead, others = tmp_path / f".{path.name}.a1b2c3d4.tmp", tmp_path / f".{path.name}.csv.a1b2c3d4.tmp"
    mine = tmp_path / f".{path.name}.backup01.txt"
    for file in (dead, others, mine):
        file.write_text("half")
    write_output(path, "whole")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, others.name, mine.name}
    assert path.read_text() == "whole"


@pytest.mark.parametrize("cleared", [1, 2])
def test_a_new_file_is_created_although_another_process_clears_what_is_unfinished(
    tmp_path, monkeypatch, cleared
):
    path, link, left = tmp_path / "claim.json", os.link, [cleared]

    def linked(temporary, new):
        if left[0]:
            left[0] -= 1
            files.clear_temporary(tmp_path)
        link(temporary, new)

    monkeypatch.setattr(os, "link", linked)
    assert create(path, "mine")
    assert not create(path, "another's")
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("umask", [0o077, 0o002, 0o022])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "written", b"x")
        create(tmp_path / "created", b"x")
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_names_of_temporary_files_are_known_as_such(tmp_path):
    handle, temporary = files._temporary(tmp_path / "a.json")
    os.close(handle)
    assert files.temporary_files(tmp_path) == [Path(temporary)]
