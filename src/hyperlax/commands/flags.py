"""Flags that commands have in common, and their conversion."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from hyperlax.registry import Registry
from hyperlax.registry.built_in import EXPORTERS, SCHEDULES
from hyperlax.registry.limits import within
from hyperlax.storage.files import experiment_path
from hyperlax.storage.places import PLAN, as_typed, check_writable, resolved


def typed_path(kind: Any, tokens: Sequence[Token]) -> Path:
    """The path of a flag, with `~` expanded; raises `ValueError` for one that no disk can have."""
    return as_typed(tokens[0].value)


Place = Annotated[Path, Parameter(converter=typed_path)]
Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Ranges = Annotated[
    list[str] | None,
    Parameter(
        name="--range",
        negative="",
        help="path=low,high: search a hyperparameter between these ends, on its own scale (log, linear, "
        "integers), even if the recipe fixes it; append ,log or ,linear for another scale. For a choice, "
        "list the values: critic.width=32,128. Repeatable.",
    ),
]


def limited(name: str, **how: Any) -> Parameter:
    """The parameter for a count, or for several, in the range that `LIMITS` states for `name`.

    `how` are further arguments of `Parameter`.
    """

    def convert(kind: Any, tokens: Sequence[Token]) -> Any:
        found = [within(name, token.value, token.keyword) for token in tokens]
        return found if get_origin(kind) is list else found[-1]

    return Parameter(converter=convert, **how)


def _known(registry: Registry[Any], *more: str) -> Callable[[Any, Any], None]:
    """Refuse, as a flag's validator, a name that the registry cannot know; imports nothing."""

    def check(kind: Any, name: Any) -> None:
        if name is not None and name not in more:
            registry.check(name)

    return check


Metric = Literal["final", "auc", "peak", "peak_of_mean"]
"""The names of `statistics.HEADLINES`, which are not imported before they are needed."""
Scheduler = Annotated[str, Parameter(validator=_known(SCHEDULES, "none"))]
Tracker = Annotated[
    str,
    Parameter(
        validator=_known(EXPORTERS),
        help=f"Which tracker: {', '.join(EXPORTERS.built_in)}, or file.py:Name. The built-in ones need "
        'pip install ".[trackers]" in the checkout of hyperlax.',
    ),
]


@Parameter(name="*")
@dataclass
class Running:
    """Flags of every command that trains."""

    run_length_modifier: str | None = None
    "quick: 2,048 environment steps per lane and, unless samples are given, tiny networks, to see that\
 everything works; default: 1 million, or what the recipe says (tuned.* do); long: 5 million;\
 runtime_benchmark: 1 million, never evaluated; or a number of environment steps. [default: default]"
    output_root: Place | None = None
    "Experiments go to <output-root>/<recipe>/<environment>, a benchmark to <output-root>.\
 [default: ./results/<command>; for a benchmark, ./results/run-benchmark/<name>]"
    seed: Annotated[int | None, limited("seed")] = None
    "Seeds the sampler and training: 0 to 2^63 - 1. [default: 42]"
    seeds: Annotated[int | None, limited("seeds")] = None
    "Lanes per sample. [default: from the run length]"
    total_timesteps: Annotated[int | None, limited("total_timesteps")] = None
    "Environment steps per lane. [default: from the run length]"
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None
    "path=value: fixes a hyperparameter or training setting; repeatable."
    protocol: Literal["corrected", "published"] | None = None
    "corrected: without the faults of the published protocol; published: exactly as the published results\
 were made. [default: corrected]"
    metric: Metric | None = None
    "Metric by which samples are scored, ranked, searched and confirmed. [default: final; peak_of_mean with\
 --protocol published]"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    "Where to run."
    eval_at_start: bool = False
    "Also evaluate before training."
    save_policies: Literal["best", "all", "none"] = "best"
    "Which trained policies to keep."
    hparam_batch_size: Annotated[int | None, limited("lanes_at_once")] = None
    "Largest number of lanes in training at once. [default: what suits the machine and its memory]"
    group_by_structural_hparams: bool = False
    "One program for every distinct set of sizes: no padding, more compilation."
    resume: bool = False
    "Continue the experiment in the output folder."
    resume_from: Place | None = None
    "Continue the experiment in this folder."
    retrain_damaged: bool = False
    "With --resume: retrain the lanes whose results were in files that have been damaged."
    any_device: bool = False
    "Also continue on another kind of device or with another jaxlib: equal up to rounding, not bit for bit."
    checkpoint_seconds: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0
    "Seconds between checkpoints, the work that a kill costs; up to 600 where writing one takes long."
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    "What the terminal shows."
    save_logs: bool = True
    "Write hyperlax.log into the experiment's folder."

    def settings(self) -> dict[str, Any]:
        """The arguments that all experiments share, beside recipe, environment and run length."""
        return {
            "seed": self.seed,
            "seeds": self.seeds,
            "total_timesteps": self.total_timesteps,
            "protocol": self.protocol,
            "eval_at_start": self.eval_at_start or None,
        }

    def execution(self, **more: Any) -> Any:
        """How to run it."""
        if self.retrain_damaged and not (self.resume or self.resume_from is not None):
            raise ValueError("--retrain-damaged continues an experiment: add --resume")
        from hyperlax.experiments.execution import Execution

        return Execution(
            lanes_at_once=self.hparam_batch_size,
            group_by_sizes=self.group_by_structural_hparams,
            save_policies=self.save_policies,
            any_device=self.any_device,
            retrain_damaged=self.retrain_damaged,
            metric=self.metric,
            checkpoint_seconds=self.checkpoint_seconds,
            **more,
        )


@Parameter(name="*")
@dataclass
class Common(Running):
    """Flags that every command that trains one experiment has."""

    algo_and_network_config: str = "ppo_mlp"
    "Recipe: tuned.<environment>_<algorithm>_<network> learns well on that environment; <algorithm>_<network>\
 searches wide spaces; or another dotted name under configs/, or file.py:name; with an algorithm or a network\
 of your own <algorithm>+<network>, e.g. ppo+my.py:ResidualMLP."
    env_config: str = "gymnax.pendulum"
    "Environment: <framework>.<name>, or file.py:Name."


def assignments(pairs: list[str], flag: str = "--set", value: str = "value") -> dict[str, str]:
    """The values of a repeated flag `path=value`, by path; raises `ValueError` for another form."""
    assigned = {}
    for pair in pairs:
        path, equals, found = (part.strip() for part in pair.partition("="))
        if not equals or not path:
            raise ValueError(f"{flag} needs path={value}, got {pair!r}")
        if path in assigned:
            raise ValueError(f"{flag} {path} is given twice: {assigned[path]!r} and {found!r}")
        assigned[path] = found
    return assigned


def spaces(pairs: list[str] | None) -> dict[str, str]:
    """The ranges of `--range`, by path; raises `ValueError` for another form."""
    return assignments(pairs or [], "--range", "low,high")


def check_places(running: Running) -> None:
    """Raise `ValueError` if the folder to continue and the folder to write to are not the same."""
    if running.resume_from is None or running.output_root is None:
        return
    if not resolved(running.resume_from).is_relative_to(resolved(running.output_root)):
        raise ValueError(
            f"--resume-from {running.resume_from} continues in that folder, which is not below --output-root "
            f"{running.output_root}; leave one of them out"
        )


def folder_of(command: str, common: Common) -> Path:
    """The folder of the experiment: below --output-root, or what --resume-from names if that holds it."""
    check_places(common)
    root = common.resume_from or common.output_root or Path("results") / command
    holding = ["manifest.json", "checkpoint/manifest-copy.json", *([PLAN] if common.resume_from else [])]
    if any((root / name).exists() for name in holding):
        return root
    if common.resume_from is not None and not root.is_dir():
        raise FileNotFoundError(f"nothing to resume: {root} does not exist")
    return root / experiment_path(common.algo_and_network_config, common.env_config)


def new_file(flag: str, path: Path | None, *suffixes: str) -> None:
    """Raise `ValueError` for a file that exists, or for an unsupported suffix."""
    if path is None:
        return
    check_writable(resolved(path).parent, flag)
    if path.suffix not in suffixes:
        raise ValueError(f"{flag} {path} must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}")
    if os.path.lexists(path):
        raise ValueError(f"{path} exists; remove it or choose another {flag}")
