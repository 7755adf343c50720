"""Measurement of the use of a GPU, by a made-up nvidia-smi for a machine with two."""

from __future__ import annotations

import os

import pytest

from hyperlax.run.monitor import Monitor

FAKE = """#!/bin/sh
for word; do
  case $word in
    --id=0) echo "10, 100"; exit;;
    --id=1|--id=GPU-b) echo "20, 200"; exit;;
    --id=*) echo "No devices were found"; exit 6;;
  esac
done
echo "10, 100"
echo "20, 200"
"""


class Rows:
    """A recorder that keeps what it is given."""

    def __init__(self):
        self.kept: list[dict] = []

    def add(self, table: str, rows: list[dict]) -> None:
        assert table == "system"
        self.kept += rows


@pytest.mark.parametrize(
    ("visible", "measured"),
    [
        (None, (10.0, 100.0)),
        ("0", (10.0, 100.0)),
        ("1", (20.0, 200.0)),
        ("1,0", (20.0, 200.0)),
        ("GPU-b", (20.0, 200.0)),
        ("7", (None, None)),
        ("", (None, None)),
    ],
)
def test_the_gpu_that_a_process_sees_first_is_measured(tmp_path, monkeypatch, visible, measured):
    (tmp_path / "nvidia-smi").write_text(FAKE)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    rows = Rows()
    Monitor().sample(0.0, rows)
    (row,) = rows.kept
    assert (row["gpu_percent"], row["gpu_memory_mb"]) == measured
