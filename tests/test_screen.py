"""What a command prints never decides how it ends: be there no reader, room, terminal, or columns."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import cast

import pytest

import hyperlax
from hyperlax.commands.launch import LogFile
from hyperlax.run.terminal import plain_lines

ROOT = Path(__file__).parents[1]
PRINTS = """
import sys
from hyperlax.commands import screen
screen.keep_open()
for i in range(20_000):
    print(f"line {i} × …")
print("said × so", file=sys.stderr)
open("opened", "w").write("mine")
"""
LISTS = "import sys; sys.argv[1:] = ['list']; from hyperlax.commands.main import main; main()"


def _run(code: str, shell: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`code` as a program, where `$run` in a line of `shell` stands."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HYPERLAX_TYPECHECK", "COLUMNS")}
    environment |= {"PYTHONPATH": str(Path(hyperlax.__file__).parents[1]), **more}
    (folder / "code.py").write_text(code)
    line = shell.replace("$run", f"'{sys.executable}' code.py")
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("$run | head -1", "said × so\n"),
        ("$run > /dev/full", "standard output is lost: no space left on device\nsaid × so\n"),
        ("$run >&-", "said × so\n"),
        ("$run > /dev/null 2>&-", ""),
        ("$run > /dev/full 2>&1", ""),
        ("$run <&- >&- 2>&-", ""),
    ],
)
def test_a_program_goes_on_without_its_output(tmp_path, shell, said):
    done = _run(PRINTS, shell, tmp_path, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (0, said)
    assert (tmp_path / "opened").read_text() == "mine", "nothing printed goes to a file opened later"


def test_characters_that_the_encoding_lacks_are_replaced(tmp_path):
    done = _run(PRINTS, "$run", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("line 0 ? ?\n")
    assert done.stderr == "said \\xd7 so\n"


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["$run | head -1", "$run > /dev/full", "$run >&-"])
def test_a_list_ends_quietly_when_nobody_reads_it(tmp_path, shell):
    done = _run(LISTS, shell, tmp_path)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1


def test_a_log_that_cannot_be_written_is_left_out(tmp_path, capsys, monkeypatch):
    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

        flush = write

    monkeypatch.setattr(sys, "stdout", Full())
    file, full = LogFile(tmp_path / "log"), cast(TextIOWrapper, Full())
    file.close()
    file.stream = full
    for handler in (plain_lines(), file):
        handler.handle(logging.makeLogRecord({"msg": "a line"}))
    assert capsys.readouterr().err == ""


SWEEP = (
    "-m hyperlax sweep-hp-samples --algo-and-network-config ppo_mlp_no_network_search "
    "--env-config gymnax.pendulum --run-length-modifier quick --total-timesteps 1000 --seeds 1 "
    "--num-samples 2"
)
SURROUNDINGS = {
    "full": ("> /dev/full", {}),
    "closed": (">&- 2>&-", {}),
    "head": ("| head -1", {}),
    "20 columns": ("", {"COLUMNS": "20"}),
    "40 columns on a terminal": ("", {"COLUMNS": "40", "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"}),
    "no columns": ("", {"COLUMNS": "0"}),
    "dumb": ("", {"TERM": "dumb", "FORCE_COLOR": "1"}),
    "no color": ("", {"NO_COLOR": "1", "TTY_COMPATIBLE": "1"}),
    "ascii": ("", {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
    "no locale": ("", {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_sweep_ends_as_it_went_whatever_becomes_of_its_output(tmp_path, name):
    shell, more = SURROUNDINGS[name]
    line = f"'{sys.executable}' {SWEEP} --output-root out {shell}"
    done = _run("", line, tmp_path, HYPERLAX_CACHE_DIR=str(ROOT / ".jax_cache"), **more)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stdout + done.stderr
    assert "Logging error" not in done.stderr
    folder = tmp_path / "out" / "ppo_mlp_no_network_search" / "gymnax.pendulum"
    assert set(hyperlax.read(folder).lanes["status"]) == {"done"}
    assert (folder / "report.html").exists()
