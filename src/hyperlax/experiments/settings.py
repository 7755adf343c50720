"""The settings of training and evaluation that all lanes of an experiment share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyperlax.networks.measurement import Measurement
from hyperlax.programs.budget import steps_of
from hyperlax.registry import convert, integer, nearest
from hyperlax.registry.limits import LIMITS, within

FRESH_EPISODES = 100
"""Intended number of episodes in which the final weights of a lane are evaluated apart from its curve."""
FRESH_SHARE = 0.02
"""Largest share of the env steps of a lane that these episodes may take, if one evaluation takes less."""


@dataclass(frozen=True)
class Settings:
    """Settings of one experiment.

    - `total_timesteps`: environment steps T per lane. A lane trains whole cycles.
    - `last_cycle`: `bounded` ends a lane with the first cycle that reaches T if it is at most 1 % above it,
      and otherwise with the one before; `reaching` ends it with the first that reaches T, however far above.
    - `evaluations`: evaluation points n per lane, at the first cycle boundary after multiples of T / n, or at
      the end of the lane if that comes first.
    - `eval_episodes`: episodes per evaluation with the best actions, and the same number with sampled ones.
    - `seeds`: lanes per sample.
    - `seed`: the seed of the sampler and of training, from 0 to 2⁶³ - 1.
    - `protocol`: `corrected`, or `published` to reproduce the published experiments.
    - `evaluation`: the actions that the headline return is measured with, `deterministic` or `sampled`.
    - `evaluation_keys`: `fresh` draws new initial states and actions for every evaluation of a lane, `fixed`
      the same ones, so that a curve shows less noise and a constant bias.
    - `initial_weights`: drawn `per_lane`, or one draw `shared` by all lanes of equal architecture.
    - `eval_at_start`: whether there is one more evaluation before training.
    - `eval_shots`, `eval_depolarizing`: how circuits are measured in evaluation (`networks.measurement`), by
      default exactly. `eval.shots` is another spelling of `eval_shots`, and so on.
    """

    total_timesteps: int = 1_000_000
    evaluations: int = 5
    eval_episodes: int = 16
    seeds: int = 8
    seed: int = 42
    protocol: str = "corrected"
    evaluation: str = "deterministic"
    evaluation_keys: str = "fresh"
    last_cycle: str = "bounded"
    initial_weights: str = "per_lane"
    eval_at_start: bool = False
    eval_shots: int = 0
    eval_depolarizing: float = 0.0

    def __post_init__(self):
        for name in sorted(LIMITS.keys() & self.__dataclass_fields__.keys()):
            shown = name.replace("eval_shots", "eval.shots")
            object.__setattr__(self, name, within(name, getattr(self, name), shown))
        _one_of("protocol", self.protocol, ("corrected", "published"))
        _one_of("evaluation", self.evaluation, ("deterministic", "sampled"))
        _one_of("evaluation_keys", self.evaluation_keys, ("fresh", "fixed"))
        _one_of("last_cycle", self.last_cycle, ("bounded", "reaching"))
        _one_of("initial_weights", self.initial_weights, ("per_lane", "shared"))
        try:
            Measurement(self.eval_shots, self.eval_depolarizing)
        except ValueError as error:
            raise ValueError(f"eval.{error}") from None

    def updated(self, changes: Mapping[str, Any]) -> Settings:
        """A copy with `changes`, in which text is converted to the type of the setting.

        Raises `ValueError` for an unknown setting and for a value that is not allowed.
        """
        current = dataclasses.asdict(self)
        for name, value in changes.items():
            if name not in current:
                raise ValueError(f'unknown setting "{name}"{nearest(name, current)}')
            current[name] = convert(name, value, type(current[name]))
        return Settings(**current)

    @property
    def measurement(self) -> Measurement:
        """How evaluation measures circuits."""
        return Measurement(self.eval_shots, self.eval_depolarizing)

    def last_step(self, cycle: int, start: int = 0) -> int:
        """The env steps after which a lane ends that has trained `start` in cycles of `cycle` steps."""
        return steps_of(self.total_timesteps, cycle, start, self.last_cycle == "reaching")

    def milestones(self) -> list[int]:
        """The env steps, ascending, at which (or at the next cycle boundary) a lane is evaluated.

        A lane that ends before one of them is evaluated at its end.
        """
        n, total = self.evaluations, self.total_timesteps
        marks = [i * (total // n) for i in range(1, n)] + [total] if n else []
        return ([0] if self.eval_at_start else []) + sorted({m for m in marks if m > 0})

    def fresh_repeats(self, episode_steps: int) -> int:
        """How often the final weights of a lane are evaluated apart, each time in `eval_episodes` episodes.

        `episode_steps` is the length of an episode at most. Every evaluation runs the episodes in two modes.
        """
        most = int(FRESH_SHARE * self.total_timesteps / (2 * self.eval_episodes * episode_steps))
        return max(1, min(-(-FRESH_EPISODES // self.eval_episodes), most))


PUBLISHED = {
    "evaluation": "sampled",
    "evaluation_keys": "fixed",
    "last_cycle": "reaching",
    "initial_weights": "shared",
}
"""Settings of the published protocol."""

RUN_LENGTHS: dict[str, dict[str, Any]] = {
    "quick": {"total_timesteps": 2_048, "evaluations": 4, "eval_episodes": 4, "seeds": 2},
    "default": {},
    "long": {"total_timesteps": 5_000_000, "evaluations": 40, "eval_episodes": 32, "seeds": 4},
    "runtime_benchmark": {"total_timesteps": 1_000_000, "evaluations": 0},
}
"""Run-length modifier → the settings that it changes. An integer changes `total_timesteps` alone."""


def run_length(modifier: str | int) -> dict[str, Any]:
    """The settings that the run-length modifier changes.

    Raises `ValueError` with the known modifiers for an unknown one.
    """
    if str(modifier)[:1].isdigit():
        with contextlib.suppress(ValueError):
            return {"total_timesteps": integer("the run length", modifier)}
    if modifier not in RUN_LENGTHS:
        allowed = f"allowed: {', '.join(RUN_LENGTHS)}, or a number of environment steps"
        raise ValueError(f'unknown run length "{modifier}"{nearest(modifier, RUN_LENGTHS, allowed)}')
    return RUN_LENGTHS[str(modifier)]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `ValueError` if the value of the setting `name` is not among those `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}; got {value!r}{nearest(value, allowed)}")
