"""The definitions of container images: one content, whatever builds it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "containers"


def section(name: str, title: str) -> list[str]:
    """The lines of a section of a definition for Apptainer, without indentation."""
    found = re.search(rf"^%{title}\n((?:[ \t]+.*\n|\n)*)", (FOLDER / name).read_text("utf-8"), re.MULTILINE)
    assert found is not None, f"{name} has no section %{title}"
    return [line.strip() for line in found.group(1).splitlines() if line.strip()]


@pytest.mark.parametrize("title", ["setup", "files", "labels", "environment", "runscript", "test"])
def test_both_definitions_make_the_same_image(title):
    assert section("hyperlax.def", title) == section("hyperlax-debian.def", title)


def test_every_image_is_made_of_the_same_files_by_the_same_script():
    definition = (FOLDER / "Containerfile").read_text("utf-8")
    copied = [line.removeprefix("COPY ") for line in definition.splitlines() if line.startswith("COPY ")]
    assert copied == section("hyperlax.def", "files")
    post = section("hyperlax.def", "post")
    assert post[-2:] == section("hyperlax-debian.def", "post")
    packages = re.findall(r"install -y .*recommends ([a-z0-9 -]*[a-z0-9])", definition)
    assert packages == [line.partition("recommends ")[2] for line in post if "recommends" in line]
    header = re.search("^Include: (.*)$", (FOLDER / "hyperlax-debian.def").read_text("utf-8"), re.MULTILINE)
    assert header is not None
    assert packages == [header.group(1)]
    assert "containers/install.sh" in definition


def instructions(name: str) -> list[str]:
    """The instructions of the Containerfile called `name`, those over several lines in one."""
    joined = (FOLDER / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line.partition(" ") for line in joined.splitlines()]
    return [" ".join(rest.split()) for word, _, rest in lines if word == name]


def test_the_containerfile_says_the_same_as_the_definitions():
    """Environment, labels, base and device; what it runs is compared above."""
    (environment,) = section("hyperlax.def", "environment")
    assert [f"export {said}" for said in instructions("ENV")] == [environment]
    (labels,) = instructions("LABEL")
    for label in section("hyperlax.def", "labels"):
        name, value = label.split(maxsplit=1)
        kinds = {"Title": "title", "License": "licenses"}
        assert f"org.opencontainers.image.{kinds[name]}={value}" in labels
    assert "org.opencontainers.image.revision" in labels
    assert "org.opencontainers.image.revision" in section("hyperlax.def", "post")[-1]
    text = (FOLDER / "hyperlax.def").read_text("utf-8")
    found = re.search("^From: (.*)$", text, re.MULTILINE)
    assert found is not None
    device = section("hyperlax.def", "arguments")
    assert instructions("ARG") == [f"BASE=docker.io/library/{found.group(1)}", *device, "COMMIT"]
    assert instructions("ENTRYPOINT") == ['["hyperlax"]']
    assert section("hyperlax.def", "runscript") == ['exec hyperlax "$@"']
    assert instructions("USER") == ["1000:1000"]


@pytest.mark.parametrize("title", ["setup", "post", "environment", "runscript", "test"])
@pytest.mark.parametrize("name", ["hyperlax.def", "hyperlax-debian.def"])
def test_sections_are_shell(name, title):
    lines = [line.replace("{{ DEVICE }}", "cpu") for line in section(name, title)]
    subprocess.run(["sh", "-n"], input="\n".join(lines), text=True, check=True)


def test_what_the_containerfile_runs_is_shell():
    found = instructions("RUN")
    assert len(found) == 2
    for command in found:
        subprocess.run(["sh", "-n"], input=command, text=True, check=True)


@pytest.mark.parametrize("script", sorted(p.name for p in FOLDER.glob("*.sh")))
def test_scripts_are_shell(script):
    subprocess.run(["sh", "-n", str(FOLDER / script)], check=True)


@pytest.mark.parametrize(
    ("device", "commit", "said"),
    [
        ("tpu", "0" * 40, "DEVICE is cpu, cuda12 or cuda13"),
        ("cpu", "", "COMMIT is what"),
        ("cpu", "main", "not"),
    ],
)
def test_an_image_that_would_not_know_its_commit_is_not_built(device, commit, said):
    """Nor one for a device that nobody knows."""
    command = ["sh", str(FOLDER / "install.sh"), device, commit]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
