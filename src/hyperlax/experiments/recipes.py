"""Recipes: what to train and what to search, as small typed objects; found by name."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hyperlax.agents import AGENTS
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.hyperparams import assign, fields, nearest
from hyperlax.hyperparams.spaces import Choice, Joint, Space
from hyperlax.networks import NETWORKS

NOT_DOTTED = ("variants.py", "suites.py")
"""Files of `configs/` whose recipes go by their own names, or that hold none."""


@dataclass(frozen=True)
class Recipe:
    """An algorithm with its networks, the space to search, and training defaults.

    `space` overrides the spaces declared on the hyperparameters: a `Space` searches, a plain value fixes,
    and a `Joint` (its paths in full; placed under any name) sets several together. `quick` are further
    overrides for the `quick` run length, beside those of the algorithm and its networks. `only` searches
    nothing but what `space` names.
    """

    algorithm: str
    network: str
    space: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    only: bool = False

    @property
    def name(self) -> str:
        return f"{self.algorithm}_{self.network}"

    def hyperparams(self) -> AbstractAgentHyperparams:
        """The defaults, with the recipe's fixed values."""
        algorithm: Any = AGENTS[self.algorithm]
        network = NETWORKS[self.network]
        tree = algorithm(**{name: network() for name in network_fields(algorithm)})
        return assign(tree, {k: v for k, v in self.space.items() if not isinstance(v, Space)})

    def search_space(self) -> dict[str, Space]:
        """Dotted path → space, in the order of the hyperparameter tree (which fixes the Sobol dimensions).

        A joint choice stands where the first of its hyperparameters would.
        """
        joints = {path: j for j in self.space.values() if isinstance(j, Joint) for path in j.paths}
        known = {f.path for f in fields(self.hyperparams())}
        plain = [p for p, s in self.space.items() if not isinstance(s, Joint)]
        for path in [*plain, *joints]:
            if path not in known:
                raise ValueError(f'recipe names unknown hyperparameter "{path}"{nearest(path, known)}')
        ordered: dict[str, Space] = {}
        for f in fields(self.hyperparams()):
            if f.path in joints:
                joint = joints[f.path]
                ordered.setdefault("+".join(joint.paths), joint)
            elif f.path in self.space:
                if isinstance(self.space[f.path], Space):
                    ordered[f.path] = self.space[f.path]
            elif f.space is not None and not self.only:
                ordered[f.path] = f.space
        return ordered

    def quick_recipe(self) -> Recipe:
        """This recipe with everything small, for the `quick` run length."""
        algorithm, network = AGENTS[self.algorithm], NETWORKS[self.network]
        nets = {f"{name}.{k}": v for name in network_fields(algorithm) for k, v in network.quick().items()}
        return self.with_space({**algorithm.quick(), **nets, **self.quick})

    def published(self, env_name: str) -> dict[str, Any]:
        """What the published protocol settles on `env_name`, by dotted path."""
        algorithm, network = AGENTS[self.algorithm], NETWORKS[self.network]
        nets = {
            f"{name}.{k}": v for name in network_fields(algorithm) for k, v in network.published().items()
        }
        return {**algorithm.published(env_name), **nets}

    def published_recipe(self, env_name: str) -> Recipe:
        """This recipe under the published protocol, which settles what else only defaults would draw.

        Spaces that the recipe names itself stay.
        """
        joint = {path for j in self.space.values() if isinstance(j, Joint) for path in j.paths}
        settled = self.published(env_name)
        return self.with_space({k: v for k, v in settled.items() if k not in {*self.space, *joint}})

    def with_space(self, changes: Mapping[str, Any]) -> Recipe:
        """This recipe with spaces overridden or values fixed; a value inside a joint splits the joint."""
        space = dict(self.space)
        for path, value in changes.items():
            for name, joint in list(space.items()):
                if isinstance(joint, Joint) and path in joint.paths:
                    del space[name]
                    columns = zip(*joint.choices, strict=True)
                    space |= {p: Choice(*dict.fromkeys(c)) for p, c in zip(joint.paths, columns, strict=True)}
            space[path] = value
        return dataclasses.replace(self, space=space)


def network_fields(algorithm: type[AbstractAgentHyperparams]) -> list[str]:
    """Names of the networks an algorithm has (`actor`, `critic`)."""
    from hyperlax.networks.base import AbstractNetworkHyperparams

    build: Any = algorithm
    defaults = build()
    return [
        f.name
        for f in dataclasses.fields(algorithm)
        if isinstance(getattr(defaults, f.name), AbstractNetworkHyperparams)
    ]


def configs_folder() -> Path:
    """Where the shipped recipes are: inside an installed package, or beside `src/` in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"


def resolve(name: str) -> Recipe:
    """The recipe called `name`.

    `<algorithm>_<network>` for any registered pair; a name in `configs/variants.py`; a dotted name for a file
    under `configs/` (`benchmarked.01_static_qmc_sampling_S64.ppo_mlp`); or `path/to/file.py:name` for one of
    your own, whose `RECIPES` is a dict. Raises `ValueError` naming the nearest known one.
    """
    if ".py" in name:
        path, _, key = name.partition(":")
        if not Path(path).is_file():
            raise ValueError(f"recipe file {path} does not exist")
        return _pick(_load(Path(path)), key, name)
    parts = name.split(".")
    if len(parts) > 1:
        file = configs_folder().joinpath(*parts[:-1]).with_suffix("")
        file = file.parent / f"{parts[-2]}.py"
        if file.is_file():
            return _pick(_load(file), parts[-1], name)
    pairs = {f"{a}_{n}": Recipe(a, n) for a in AGENTS for n in NETWORKS}
    return _pick({**pairs, **_load(configs_folder() / "variants.py")}, name, name, _dotted())


def names() -> list[str]:
    """Every recipe that can be named, dotted ones included."""
    pairs = [f"{a}_{n}" for a in AGENTS for n in NETWORKS]
    return sorted({*pairs, *_load(configs_folder() / "variants.py"), *_dotted()})


def _dotted() -> list[str]:
    folder = configs_folder()
    found = []
    for file in sorted(folder.rglob("*.py")):
        if file.name not in NOT_DOTTED:
            prefix = ".".join(file.relative_to(folder).with_suffix("").parts)
            found += [f"{prefix}.{key}" for key in _load(file)]
    return found


def _pick(recipes: Mapping[str, Recipe], key: str, name: str, more: list[str] | None = None) -> Recipe:
    if not key and len(recipes) == 1:
        return next(iter(recipes.values()))
    if key not in recipes:
        known = [*recipes, *(more or [])]
        raise ValueError(f'unknown recipe "{name}"{nearest(key or name, known)}\nknown: {", ".join(known)}')
    return recipes[key]


def _load(file: Path) -> dict[str, Recipe]:
    return load_file(file, "RECIPES", "hyperlax.Recipe")


@cache
def load_file(file: Path, attribute: str, kind: str) -> dict[str, Any]:
    """The dict `attribute` of a Python file, from name to `kind`.

    Raises `ValueError` for a file that is no Python or has no such dict.
    """
    spec = importlib.util.spec_from_file_location(f"hyperlax_configs_{abs(hash(file))}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise ValueError(f"{file} defines no {attribute}: a dict from name to {kind}")
    return getattr(module, attribute)
