"""The README's tour works as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
TOUR = README.split("## Five-minute tour")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TOUR, re.DOTALL)


def test_every_command_of_the_readme_is_understood():
    """Names of commands, flags and values; what they do is in the long tests."""
    from hyperlax.commands.main import app

    shown = re.findall(r"```(?:bash)?\n(.*?)```", README, re.DOTALL)
    lines = [line for block in shown for line in block.split("\n")]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("hyperlax ")]
    assert len(commands) >= 15
    for tokens in commands:
        app.parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tour_runs(tmp_path):
    """Every command and the Python example, in order, in an empty folder."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["HYPERLAX_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
    environment.pop("HYPERLAX_TYPECHECK", None)
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(commands) >= 6
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for code in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    reports = list(tmp_path.rglob("report.html"))
    assert len(reports) == 8
    assert list(tmp_path.rglob("charts/*.png"))


def test_everything_the_readme_names_exists():
    """Public names, commands and folders."""
    import hyperlax
    from hyperlax.experiments import recipes

    for name in re.findall(r"hyperlax\.([a-z_]+)\(", README):
        assert hasattr(hyperlax, name), name
    for name in set(re.findall(r"--algo-and-network-config (\S+)", README)):
        if not name.startswith("results/") and "my.py:" not in name:
            recipes.resolve(name.strip("`"))
