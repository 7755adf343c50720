"""Units in a container on a real Slurm, as an ordinary user: stopped, queued again, bit for bit as outside.

HYPERLAX_IMAGE names the image, which `make container-test` builds.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import (
    TASKS,
    begun,
    cluster,
    completed,
    empty_queue,
    finished,
    log,
    restarted,
    slurm,
    start,
    states,
    status,
    task_of,
    until,
    warned_before_its_limit,
    whole,
)

__all__ = ["cluster", "empty_queue", "whole"]

IMAGE = os.environ.get("HYPERLAX_IMAGE")
USER = "hyperlax"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(IMAGE is None, reason="HYPERLAX_IMAGE names no image: make container-test"),
]


@pytest.fixture
def home(monkeypatch) -> Iterator[Path]:
    """A folder of an ordinary user, outside of those that only root may enter."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        pytest.skip(f"there is no user {USER}, whom containers/test.sh creates")
    folder = Path(tempfile.mkdtemp(prefix="hyperlax-user-"))
    for path in (folder, folder / "cache"):
        path.mkdir(exist_ok=True)
        os.chown(path, user.pw_uid, user.pw_gid)
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("LOGNAME", USER)  # whose tasks are looked for
    yield folder
    shutil.rmtree(folder)


def sent(home: Path) -> Path:
    """The folder of a sweep whose tasks train in the container, as the ordinary user."""
    assert IMAGE is not None
    own = f"--container {Path(IMAGE).absolute()} --setup".split()
    own += [f"export HOME={home}; cd {home}; echo as $(id -un)", f"--sbatch-arg=--uid={USER}"]
    root = start(home / "r", *TASKS.split(), *own)
    subprocess.run(["chown", "-R", USER, str(home)], check=True)
    return root


def test_preempted_containers_go_on_later(cluster, whole, home):
    """All their processes get a TERM, the one that mounts the image too."""
    root = sent(home)
    running = begun(root)
    slurm(
        "sbatch", "--partition=high", "--ntasks=4", "--mem-per-cpu=100", "--output=/dev/null", "--wrap=true"
    )
    for unit in running:
        restarted(root, unit)
    assert set(states(root).values()) <= {"waiting", "running", "done"}
    finished(root, whole)


def test_a_container_at_its_limit_saves_and_goes_on_as_an_ordinary_user(cluster, whole, home):
    """It leaves with 75, is queued again, and ends COMPLETED 0:0; the log is kept, and the bits are equal."""
    root = sent(home)
    unit, claimed = min(begun(root).items())
    warned_before_its_limit(root, unit, claimed)
    assert {u["unit"]: u["state"] for u in status(root)["units"]}[unit] in ("waiting", "running")
    until(lambda: set(states(root).values()) == {"done"}, "all is trained")
    written = [path for path in (root / ".units").rglob("*") if path.is_file()]
    assert {path.owner() for path in written if path.name != "shape.json"} == {USER}
    finished(root, whole)
    said = log(root, unit)
    assert said.count(f"as {USER}") == 2
    assert "state saved, continue with --resume" in said
    assert "ExitCode=0:0" in completed(task_of(root, unit))
