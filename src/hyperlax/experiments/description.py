"""Descriptions of recipes, algorithms, networks and environments, with all of their hyperparameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import polars as pl

from hyperlax import envs
from hyperlax.agents import AGENTS
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv, Box, Discrete
from hyperlax.experiments import recipes
from hyperlax.experiments.recipes import Recipe, network_fields
from hyperlax.experiments.settings import RUN_LENGTHS, Settings, run_length
from hyperlax.experiments.tabular import as_html, as_markdown, as_text
from hyperlax.hyperparams import AbstractHyperparams, Space, fields, literature, undeclared, words
from hyperlax.hyperparams.spaces import Joint
from hyperlax.networks import NETWORKS
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.pqc import LARGEST_CIRCUIT, PQCHyperparams
from hyperlax.registry import location, modules
from hyperlax.registry.spellings import alike

NO_MEANING = "its class says nothing about it (the doc of its hp() is empty)"
NO_SOURCE = "no source named"
UNDECLARED = "not declared with hp(): its value is used, but can neither be set nor searched"

PAGE = (
    "This page is written by `hyperlax describe --format markdown`; the same for a recipe or an environment "
    "is `hyperlax describe ppo_mlp` or `hyperlax describe gymnax.acrobot`. A recipe has the hyperparameters "
    "of its algorithm, and those of its network once for each network that the algorithm has: `actor.width`, "
    "`critic.width`. *Accepted* is what may be set, *searched* the space that is drawn from if the recipe "
    "names no other."
)
"""The introduction of the page of documentation."""


@dataclass(frozen=True)
class Row:
    """One hyperparameter, or one option of an environment.

    - `default`: the value where nothing else is said, as a Python value.
    - `range`: the values that are accepted, in words; `space`: those that are searched, None if it is fixed.
    - `scale`: how the search is spread over them: linear, log, integers or choice.
    - `source`: where it comes from.
    """

    name: str
    meaning: str
    default: Any
    range: str
    searched: bool = False
    space: str | None = None
    scale: str | None = None
    source: str = NO_SOURCE


@dataclass(frozen=True)
class Description:
    """What `hyperlax.describe` returns: printed it is a table, and in a notebook one of HTML.

    `kind` is recipe, algorithm, network or environment, `facts` what is true of the whole, by name.
    """

    kind: str
    name: str
    facts: dict[str, str] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The description as JSON holds it; lists and numbers stay what they are."""
        return asdict(self)

    def frame(self) -> pl.DataFrame:
        """The hyperparameters as a table, one row each; values are text, as they can be typed."""
        rows = [{**asdict(row), "default": words.shown(row.default)} for row in self.rows]
        return pl.DataFrame(
            rows, schema=dict.fromkeys(Row.__dataclass_fields__, pl.String) | {"searched": bool}
        )

    def __str__(self) -> str:
        return as_text(self.kind, self.name, self.facts, self.frame())

    def _repr_html_(self) -> str:
        return as_html(self.kind, self.name, self.facts, self.frame())


class _Kind(NamedTuple):
    """One kind that can be described: functions that recognise a name, resolve it, and list its facts."""

    has: Callable[[str], bool]
    resolve: Callable[[str], Any]
    describe: Callable[[str, Any, str | int], Description]


def describe(thing: str | Recipe, run_length_modifier: str | int = "default") -> Description:
    """Describe a recipe, an algorithm, a network or an environment, by any name that it has, or a `Recipe`.

    A recipe is described as this run length trains it: `quick` searches smaller spaces. Raises `ValueError`
    with the nearest name for one that there is not.
    """
    if isinstance(thing, Recipe):
        return of_recipe(thing.name, thing, run_length_modifier)
    for kind in KINDS.values():
        if kind.has(thing):
            return kind.describe(thing, kind.resolve(thing), run_length_modifier)
    place = location(thing)
    if place is None:
        raise ValueError(_unknown(thing))
    modules.load(place[0])
    for kind in KINDS.values():
        try:
            found = kind.resolve(thing)
        except ValueError:
            continue
        return kind.describe(thing, found, run_length_modifier)
    raise ValueError(f"{thing} is no {', no '.join(KINDS)}")


def of_algorithm(name: str, kind: type[AbstractAgentHyperparams], length: str | int = "") -> Description:
    """Describe an algorithm by its own hyperparameters, those of its networks left out."""
    build: Any = kind
    nets = network_fields(kind)
    facts = {"what it is": _summary(kind), "networks": ", ".join(nets) or "none", "actions": _actions(kind)}
    if changed := _own_defaults(build()):
        facts["defaults of its networks"] = changed
    own = [row for row in _rows(build()) if row.name.partition(".")[0] not in nets]
    return Description("algorithm", name, facts, tuple(own))


def of_network(name: str, kind: type[AbstractNetworkHyperparams], length: str | int = "") -> Description:
    """Describe a network; a recipe puts the name of the network, such as `actor`, before each."""
    build: Any = kind
    facts = {"what it is": _summary(kind)}
    if issubclass(kind, PQCHyperparams):
        facts["qubits"] = (
            f"⌈features / 3⌉ × stacks, at most {LARGEST_CIRCUIT}, or fewer where memory is short"
        )
    return Description("network", name, facts, tuple(_rows(build())))


def of_environment(name: str, env: AbstractEnv, length: str | int = "") -> Description:
    """Describe an environment by its observations, actions, episode ends and options."""
    scores = envs.REFERENCE_SCORES.get(name.partition("[")[0])
    able = [a for a in AGENTS if AGENTS[a].supports(env.action_space) is None]
    facts = {
        "observation": f"{env.obs_size} numbers",
        "actions": envs.describe(env.action_space),
        "episode": f"at most {env.max_episode_steps:,} steps",
        "return of a random policy": f"{scores[0]:g}" if scores else "not known",
        "counts as solved from": f"{scores[1]:g}" if scores else "not known",
        "algorithms": ", ".join(able) or "none",
    }
    rows = [
        Row(
            f"env.{option}",
            f"option of the environment: --set env.{option}=…",
            default,
            "what its class accepts",
            source=f"{type(env).__name__}",
        )
        for option, default in envs.options(name).items()
    ]
    return Description("environment", name, facts, tuple(rows))


def of_recipe(name: str, recipe: Recipe, length: str | int = "default") -> Description:
    """Describe a recipe as it is trained with the run length `length`."""
    chosen = run_length(length)
    used = recipe.quick_recipe() if length == "quick" else recipe
    space = used.search_space()
    rows = _rows(used.hyperparams(), space)
    searched = sum(row.searched for row in rows)
    facts = {
        "algorithm": recipe.algorithm,
        "network": recipe.network,
        "searched": f"{searched} of {len(rows)} hyperparameters",
        f"run length {length}": _budget(recipe, chosen),
    }
    others = [other for other in RUN_LENGTHS if other != length]
    facts |= {f"run length {n}": _budget(recipe, RUN_LENGTHS[n]) for n in others}
    return Description("recipe", name, facts, tuple(rows))


def page(described: Sequence[Description]) -> str:
    """Descriptions as one page of documentation in Markdown, with the references that they name."""
    rows = [row for one in described for row in one.rows]
    named = {literature.cited(part.strip()) for row in rows for part in row.source.split(";")}
    listed = [
        f"* {short}: {literature.REFERENCES[short]}" for short in literature.REFERENCES if short in named
    ]
    head = ["# Hyperparameters", "", PAGE, ""]
    parts = [as_markdown(one.kind, one.name, one.facts, one.frame()) for one in described]
    return "\n".join([*head, *parts, *(["## References", "", *listed, ""] if listed else [])])


KINDS: dict[str, _Kind] = {
    "algorithm": _Kind(AGENTS.__contains__, AGENTS.resolve, of_algorithm),
    "network": _Kind(NETWORKS.__contains__, NETWORKS.resolve, of_network),
    "environment": _Kind(envs.named, envs.load, of_environment),
    "recipe": _Kind(lambda name: "+" in name or name in recipes.names(), recipes.resolve, of_recipe),
}
"""The kinds that can be described; a name that several kinds use stands for the first."""


def _rows(tree: AbstractHyperparams, space: Mapping[str, Space] | None = None) -> list[Row]:
    """The hyperparameters of `tree`, searched as `space` says, by default in the spaces they declare."""
    declared = list(fields(tree))
    chosen = {f.path: f.space for f in declared if f.space is not None} if space is None else dict(space)
    for entry in [s for s in chosen.values() if isinstance(s, Joint)]:
        chosen |= dict.fromkeys(entry.paths, entry)
    rows = []
    for f in declared:
        searched = chosen.get(f.path)
        rows.append(
            Row(
                f.path,
                f.doc or NO_MEANING,
                f.default,
                f.range,
                searched is not None and words.varies(searched),
                None if searched is None else words.extent(searched),
                None if searched is None else words.scale(searched),
                f.source or NO_SOURCE,
            )
        )
    unknown = [Row(path, UNDECLARED, _short(value), "not known") for path, value in undeclared(tree)]
    return rows + unknown


def _own_defaults(hp: AbstractAgentHyperparams) -> str:
    """The defaults that an algorithm gives to its networks, where they are not those of the network."""
    found = []
    for name in network_fields(type(hp)):
        network = getattr(hp, name)
        usual = {f.path: f.default for f in fields(type(network)())}
        found += [
            f"{name}.{f.path} = {words.shown(f.default)}"
            for f in fields(network)
            if f.default != usual[f.path]
        ]
    return ", ".join(found)


def _budget(recipe: Recipe, length: Mapping[str, Any]) -> str:
    """How long a recipe trains with the settings of a run length, in words."""
    s = Settings().updated({**recipe.settings, **length})
    evaluated = (
        f"{s.evaluations} evaluations of {s.eval_episodes} episodes" if s.evaluations else "no evaluation"
    )
    return f"{s.total_timesteps:,} env steps, {s.seeds} seed{'s' * (s.seeds != 1)} per sample, {evaluated}"


def _summary(kind: type) -> str:
    """The first line of what the module of a class says, which for an algorithm names its papers."""
    text = (inspect.getdoc(inspect.getmodule(kind)) or inspect.getdoc(kind) or "").strip()
    return text.partition("\n")[0].rstrip(".") or kind.__name__


def _actions(kind: type[AbstractAgentHyperparams]) -> str:
    """Which actions an algorithm can choose."""
    spaces = {"discrete": Discrete(2), "continuous": Box((-1.0,), (1.0,))}
    return " and ".join(word for word, space in spaces.items() if kind.supports(space) is None)


def _short(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 40 else f"{text[:37]}..."


def _unknown(name: str) -> str:
    """The message for a name that stands for nothing."""
    kinds = f"{', '.join(list(KINDS)[:-1])} or {list(KINDS)[-1]}"
    said = f'no {kinds} is called "{name}"'
    owners: dict[str, list[str]] = {}
    for owner in [*AGENTS, *NETWORKS]:
        for row in describe(owner).rows:
            owners.setdefault(row.name, []).append(owner)
    found = alike(name, [*AGENTS, *NETWORKS, *envs.names(), *recipes.names(), *owners])
    if not found:
        return f"{said}; hyperlax list shows all names"
    meant = [
        f"{n}, a hyperparameter of {' and '.join(owners[n])}" if n in owners else f'"{n}"' for n in found
    ]
    first = owners.get(found[0], found)[0]
    return f"{said}; did you mean {' or '.join(meant)}? hyperlax describe {first} says more"
