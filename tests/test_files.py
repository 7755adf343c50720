"""Files are written atomically: neither a reader nor a crash leaves half a file."""

from __future__ import annotations

import os

import pytest

from hyperlax.storage.files import write_atomically


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
