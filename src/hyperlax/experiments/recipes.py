"""Recipes: what to train and what to search, as small typed objects; found by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jax

from hyperlax.agents import AGENTS
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.hyperparams import assign, fields, words
from hyperlax.hyperparams.spaces import Choice, Joint, Space
from hyperlax.networks import NETWORKS
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.registry import Registry, built_in, load_file, location, nearest, short_name
from hyperlax.registry.foreign import explained
from hyperlax.typecheck import check_fields

NOT_DOTTED = ("variants.py", "suites.py")
"""Files of `configs/` whose recipes go by their own names, or that hold none."""

_PART = re.compile(r"\w[\w-]*")
"""A part of a dotted name, which is a folder, a file or a recipe."""

RECIPES: Registry[Recipe] = built_in.RECIPES
"""Recipes that installed packages bring."""


@dataclass(frozen=True)
class Recipe:
    """An algorithm with its networks, the space to search, and training defaults.

    `algorithm` and `network` are registered names, or those of one's own: `file.py:Name` (from the current
    folder), `package.module:Name`.

    `space` overrides the spaces declared on the hyperparameters: a `Space` searches, a plain value fixes,
    and a `Joint` (its paths in full; placed under any name) sets several together. `quick` are further
    overrides for the `quick` run length, beside those of the algorithm and its networks. `only` searches
    nothing but what `space` names. Raises `TypeError` for a class in place of its name, and the like.
    """

    algorithm: str
    network: str
    space: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    only: bool = False

    def __post_init__(self):
        check_fields(self)

    @property
    def name(self) -> str:
        """`<algorithm>_<network>`, usable as a file name: without the files that they are in."""
        return f"{short_name(self.algorithm)}_{short_name(self.network)}"

    @property
    def classes(self) -> tuple[type[AbstractAgentHyperparams], type[AbstractNetworkHyperparams]]:
        """The hyperparameters of the algorithm and of the network."""
        return AGENTS.resolve(self.algorithm), NETWORKS.resolve(self.network)

    def __str__(self) -> str:
        """What is searched and what is fixed, a line for each that the recipe or a default space names."""
        space = self.search_space()
        changed = {p: v for p, v in self.space.items() if not isinstance(v, Space)}
        lines = [f"{self.name}: {len(space)} searched, {len(changed)} fixed"]
        lines += [f"  {path}: {words.extent(s)} ({words.scale(s)})" for path, s in space.items()]
        lines += [f"  {path} = {words.shown(value)}" for path, value in {**changed, **self.settings}.items()]
        return "\n".join(lines)

    def hyperparams(self) -> AbstractAgentHyperparams:
        """The defaults, with the recipe's fixed values."""
        return assign(
            defaults(*self.classes), {k: v for k, v in self.space.items() if not isinstance(v, Space)}
        )

    def search_space(self) -> dict[str, Space]:
        """Dotted path → space, in the order of the hyperparameter tree (which fixes the Sobol dimensions).

        A joint choice stands where the first of its hyperparameters would.
        """
        joints = {path: j for j in self.space.values() if isinstance(j, Joint) for path in j.paths}
        declared = list(fields(self.hyperparams()))
        known = {f.path for f in declared}
        plain = [p for p, s in self.space.items() if not isinstance(s, Joint)]
        for path in [*plain, *joints]:
            if path not in known:
                raise ValueError(f'recipe names unknown hyperparameter "{path}"{nearest(path, known)}')
        ordered: dict[str, Space] = {}
        for f in declared:
            if f.path in joints:
                joint = joints[f.path]
                ordered.setdefault("+".join(joint.paths), joint)
            elif f.path in self.space:
                if isinstance(self.space[f.path], Space):
                    ordered[f.path] = self.space[f.path]
            elif f.space is not None and not self.only:
                ordered[f.path] = f.space
        return ordered

    def searching(self, paths: Sequence[str]) -> Recipe:
        """This recipe with only the hyperparameters at `paths` searched, all others as they are by default.

        Raises `ValueError` for a hyperparameter that there is not, or for which no space is known.
        """
        space = self.search_space()
        owners = {path: name for name, s in space.items() for path in getattr(s, "paths", (name,))}
        for path in paths:
            if path not in owners:
                known = {f.path for f in fields(self.hyperparams())}
                if path not in known:
                    raise ValueError(
                        f'cannot search the unknown hyperparameter "{path}"{nearest(path, known)}'
                    )
                if path in Recipe(self.algorithm, self.network).search_space():
                    raise ValueError(
                        f"this recipe fixes {path}; give it a range (--range {path}=LOW,HIGH), or use "
                        f"{self.name}, which searches it"
                    )
                raise ValueError(
                    f"{path} is not searched by {self.name}; give it a range (--range {path}=LOW,HIGH)"
                )
        fixed = {path: value for path, value in self.space.items() if not isinstance(value, Space)}
        chosen = {owners[path]: space[owners[path]] for path in paths}
        return dataclasses.replace(self, space={**fixed, **chosen}, only=True)

    def quick_recipe(self) -> Recipe:
        """This recipe with everything small, for the `quick` run length.

        A recipe that searches `only` what it names gets no further spaces: sizes that others would search
        have the first of their small values.
        """
        algorithm, network = self.classes
        nets = {f"{name}.{k}": v for name in network_fields(algorithm) for k, v in network.quick().items()}
        small = {**algorithm.quick(), **nets}
        if self.only:
            searched = {p for name, s in self.search_space().items() for p in getattr(s, "paths", (name,))}
            sizes = {p: v for p, v in small.items() if isinstance(v, Space) and p not in searched}
            small |= {path: space.ppf(0.0) for path, space in sizes.items()}
        return self.with_space({**small, **self.quick})

    def published(self, env_name: str) -> dict[str, Any]:
        """What the published protocol settles on `env_name`, by dotted path."""
        algorithm, network = self.classes
        nets = {
            f"{name}.{k}": v for name in network_fields(algorithm) for k, v in network.published().items()
        }
        return {**algorithm.published(env_name), **nets}

    def published_recipe(self, env_name: str) -> Recipe:
        """This recipe under the published protocol, which settles what else only defaults would draw.

        Spaces that the recipe names itself stay.
        """
        joint = {path for j in self.space.values() if isinstance(j, Joint) for path in j.paths}
        prescribed = self.published(env_name)
        return self.with_space({k: v for k, v in prescribed.items() if k not in {*self.space, *joint}})

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


@cache
def defaults(
    algorithm: type[AbstractAgentHyperparams], network: type[AbstractNetworkHyperparams]
) -> AbstractAgentHyperparams:
    """The default hyperparameters of an algorithm whose networks are all of one kind.

    An algorithm that declares a network of this kind with values of its own (DQN's MLP has LayerNorm) gets
    that one.
    """
    own = _own(algorithm).nested_networks()
    return _built(
        algorithm,
        **{name: net if type(net) is network else _built(network) for name, net in own.items()},
    )


def network_fields(algorithm: type[AbstractAgentHyperparams]) -> list[str]:
    """Names of the networks an algorithm has (`actor`, `critic`)."""
    return list(_own(algorithm).nested_networks())


@cache
def _own(algorithm: type[AbstractAgentHyperparams]) -> AbstractAgentHyperparams:
    """The hyperparameters of an algorithm as it declares them."""
    return _built(algorithm)


def _built(kind: type[Any], **networks: Any) -> Any:
    """Hyperparameters of a class; raises `ValueError` with what is wrong for one that cannot be built."""
    try:
        with jax.ensure_compile_time_eval():  # arrays, also where a program is being traced
            return kind(**networks)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} cannot be built: {explained(error)}") from error


def configs_folder() -> Path:
    """Where the shipped recipes are: inside an installed package, or beside `src/` in a checkout."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"


def resolve(name: str) -> Recipe:
    """The recipe called `name`.

    - `<algorithm>_<network>` for any registered pair, or a name in `configs/variants.py` or of a package.
    - a dotted name for a file under `configs/` (`benchmarked.01_static_qmc_sampling_S64.ppo_mlp`).
    - `<algorithm>+<network>`, where each is any name that `Recipe` takes: `ppo+my.py:ResidualMLP`.
    - `path/to/file.py:name` or `package.module:name` for one of your own: in the dict `RECIPES` there, or an
      object of its own.

    Raises `ValueError` naming the nearest known one.
    """
    if (pair := _pair(name)) is not None:
        recipe = Recipe(*pair)
        _ = recipe.classes
        return recipe
    if name in RECIPES or location(name) is not None:
        return RECIPES.resolve(name)
    parts = name.split(".")
    if len(parts) > 1 and all(_PART.fullmatch(part) for part in parts):  # never a folder elsewhere
        file = configs_folder().joinpath(*parts[:-2], f"{parts[-2]}.py")
        if file.is_file():
            return _pick(_load(file), parts[-1], name)
    plain = {**_pairs(), **_load(configs_folder() / "variants.py")}
    return _pick(plain, name, name, lambda: [*RECIPES, *_dotted()])


def names() -> list[str]:
    """Every recipe that can be named, dotted ones included."""
    return sorted({*_pairs(), *_load(configs_folder() / "variants.py"), *RECIPES, *_dotted()})


def taken(name: str) -> str | None:
    """Say what else goes by the name of a recipe that a package brings; None if nothing does."""
    if name in _pairs():
        return "a pair of an algorithm and a network"
    return "configs/variants.py of hyperlax" if name in _load(configs_folder() / "variants.py") else None


def _pair(name: str) -> tuple[str, str] | None:
    """The algorithm and the network of `<algorithm>+<network>`; None for another name, or a file's."""
    algorithm, plus, network = name.partition("+")
    place = location(name)
    if not plus or (place is not None and "+" not in place[1] and Path(place[0]).expanduser().is_file()):
        return None  # the plus is in the path of a file of recipes
    return algorithm.strip(), network.strip()


def _pairs() -> dict[str, Recipe]:
    return {f"{a}_{n}": Recipe(a, n) for a in AGENTS for n in NETWORKS}


def _dotted() -> list[str]:
    folder = configs_folder()
    found = []
    for file in sorted(folder.rglob("*.py")):
        if file.name not in NOT_DOTTED:
            prefix = ".".join(file.relative_to(folder).with_suffix("").parts)
            found += [f"{prefix}.{key}" for key in _load(file)]
    return found


def _pick(recipes: Mapping[str, Recipe], key: str, name: str, more: Callable[[], list[str]] = list) -> Recipe:
    """The recipe at `key`; raises `ValueError` naming the nearest of these and `more`, read only then."""
    if key not in recipes:
        known = [*recipes, *more()]
        raise ValueError(
            f'unknown recipe "{name}"{nearest(key, known)}\n'
            "recipes are named <algorithm>_<network>, and your own file.py:Name or package.module:Name; "
            "`hyperlax list` shows them"
        )
    return recipes[key]


def _load(file: Path) -> dict[str, Recipe]:
    """The recipes of one of the files in `configs/`."""
    return load_file(file).RECIPES
