"""The command that writes a template for a class of your own, and its test."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated, Literal

from cyclopts import Parameter

from hyperlax import leaving
from hyperlax.storage import calling

Kind = Literal["agent", "network", "env", "sampler", "schedule", "recipe"]

NEXT: dict[str, str] = {
    "agent": "run-single-hp --algo-and-network-config {file}:{name}+mlp --env-config gymnax.cartpole",
    "network": "run-single-hp --algo-and-network-config ppo+{file}:{name} --env-config gymnax.cartpole",
    "env": "run-single-hp --algo-and-network-config ppo_mlp --env-config {file}:{name}",
    "sampler": "sweep-hp-samples --sampling-method {file}:{name} --num-samples 8",
    "schedule": "sweep-hp-samples --scheduler {file}:{name} --num-samples 8",
    "recipe": "sweep-hp-samples --algo-and-network-config {file}:{module} --num-samples 4",
}
"""Kind of template → the arguments of a command that tries it out."""


def new(
    kind: Annotated[Kind, Parameter(help="What to write.")],
    name: Annotated[str, Parameter(help="Its name: A2C, DoubleIntegrator, my_network.")],
    /,
) -> int:
    """Write a small working file of your own and its test into the current folder.

    `hyperlax new agent A2C` writes a2c.py, with the class A2C, and test_a2c.py. Nothing is overwritten.
    """
    module, title = module_name(name), class_name(name)
    files = {Path(f"{module}.py"): f"{kind}.py.txt", Path(f"test_{module}.py"): f"test_{kind}.py.txt"}
    if existing := [str(path) for path in files if path.exists()]:
        raise ValueError(f"{existing[0]} exists; remove it or choose another name")
    if module in sys.stdlib_module_names or find_spec(module) is not None:
        raise ValueError(f"{module} is the name of an installed module, which {module}.py would hide")
    templates = resources.files("hyperlax.commands") / "templates"
    with leaving.unfinished(*files):
        for path, template in files.items():
            text = Template((templates / template).read_text("utf-8")).substitute(module=module, Name=title)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    leaving.from_now_on(None)
    for path in files:
        print(f"written {path}")
    command = NEXT[kind].format(file=f"{module}.py", name=title, module=module).split()
    print(f"test it:  python -m pytest test_{module}.py")
    print(f"train it: {calling.line(*command, '--run-length-modifier', 'quick')}")
    return 0


def module_name(name: str) -> str:
    """The file of a class of that name: `DoubleIntegrator` is in double_integrator.py, `A2C` in a2c.py.

    Raises `ValueError` for a name that cannot be a Python module's.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z][a-z])", "_", name)
    module = re.sub(r"[-\s_]+", "_", spaced).lower()
    if not module.isidentifier() or keyword.iskeyword(module) or not module.isascii():
        raise ValueError(f'"{name}" cannot be the name of a Python module: letters, digits and _, as in A2C')
    if module.startswith("test_"):
        raise ValueError(f'"{name}" would be taken for a test; choose a name that does not start with test')
    return module


def class_name(name: str) -> str:
    """The class of that name: `double_integrator` and `DoubleIntegrator` are the class DoubleIntegrator."""
    parts = re.split(r"[-\s_]+", name)
    return "".join(part[:1].upper() + part[1:] for part in parts)
