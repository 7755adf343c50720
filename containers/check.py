"""What `%test` of the images runs: trains one lane, and reads what was written of it.

It needs no home folder, no network and no right to write anywhere but to the folder of temporary files.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hyperlax

HERE = Path(sys.prefix)
COMMAND = (
    "run-single-hp",
    "--env-config",
    "gymnax.cartpole",
    "--run-length-modifier",
    "quick",
    "--seeds",
    "1",
)


def main() -> None:
    """Raise `SystemExit` with what is wrong; print the commit and the device that was trained on."""
    with tempfile.TemporaryDirectory() as root:
        subprocess.run([str(HERE / "bin" / "hyperlax"), *COMMAND, "--output-root", root], check=True)
        (folder,) = Path(root).glob("*/gymnax.cartpole")
        results = hyperlax.read(folder)
        report = (folder / "report.html").read_text("utf-8")
    commit, returns = results.manifest["git_commit"], results.curves.filter(metric="return")["value"]
    problems = [
        *([] if results.lanes["status"].to_list() == ["done"] else ["the lane is not done"]),
        *([] if len(returns) and returns.is_finite().all() else ["its returns are not finite"]),
        *([] if re.fullmatch("[0-9a-f]{40}", commit or "") else [f"its manifest names the commit {commit}"]),
        *([] if f"{commit}" in report else ["its report does not name the commit"]),
        *other_versions(),
    ]
    if problems:
        raise SystemExit("; ".join(problems))
    print(f"passed: one lane of commit {commit} on {results.manifest['machine']['device']}")


def other_versions() -> list[str]:
    """The packages that are not installed as constraints.txt pins them."""
    found = []
    for line in (HERE / "constraints.txt").read_text("utf-8").splitlines():
        package, _, pinned = line.partition("==")
        try:
            installed = version(package)
        except PackageNotFoundError:
            continue
        if installed != pinned:
            found.append(f"{package} is {installed} instead of {pinned}")
    return found


if __name__ == "__main__":
    main()
