"""How long and how an experiment trains and is evaluated: everything that is the same for all lanes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyperlax.networks.measurement import Measurement
from hyperlax.registry import convert, nearest


@dataclass(frozen=True)
class Settings:
    """Settings of one experiment.

    - `total_timesteps`: environment steps per lane; a lane stops at the first cycle boundary at or after it.
    - `evaluations`: evaluation points per lane, at the first cycle boundary after multiples of T / n.
    - `eval_episodes`: episodes per evaluation (and as many again with sampled actions).
    - `seeds`: lanes per sample. `seed` seeds the sampler and training.
    - `evaluation`: which action the headline return is for, `deterministic` or `sampled`.
    - `initial_weights`: drawn `per_lane`, or one draw `shared` by all lanes of equal architecture.
    - `eval_at_start`: one more evaluation before training.
    - `eval_shots`, `eval_depolarizing`: how circuits are measured in evaluation (`networks.measurement`);
      exactly, unless set. `eval.shots` is another spelling of `eval_shots`, and so on.
    """

    total_timesteps: int = 1_000_000
    evaluations: int = 5
    eval_episodes: int = 16
    seeds: int = 8
    seed: int = 42
    protocol: str = "corrected"
    evaluation: str = "deterministic"
    initial_weights: str = "per_lane"
    eval_at_start: bool = False
    eval_shots: int = 0
    eval_depolarizing: float = 0.0

    def __post_init__(self):
        for name, least in (("total_timesteps", 1), ("evaluations", 0), ("eval_episodes", 1), ("seeds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        _one_of("protocol", self.protocol, ("corrected", "published"))
        _one_of("evaluation", self.evaluation, ("deterministic", "sampled"))
        _one_of("initial_weights", self.initial_weights, ("per_lane", "shared"))
        try:
            Measurement(self.eval_shots, self.eval_depolarizing)
        except ValueError as error:
            raise ValueError(f"eval.{error}") from None

    def updated(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with `changes`; text is converted to the field's type."""
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

    def milestones(self) -> list[int]:
        """Env steps at (or after) which a lane is evaluated."""
        n, total = self.evaluations, self.total_timesteps
        marks = [i * (total // n) for i in range(1, n)] + [total] if n else []
        return ([0] if self.eval_at_start else []) + sorted({m for m in marks if m > 0})


PUBLISHED = {"evaluation": "sampled", "initial_weights": "shared"}
"""Settings of the published protocol."""

RUN_LENGTHS: dict[str, dict[str, Any]] = {
    "quick": {"total_timesteps": 2_048, "evaluations": 4, "eval_episodes": 4, "seeds": 2},
    "default": {},
    "long": {"total_timesteps": 5_000_000, "evaluations": 40, "eval_episodes": 32, "seeds": 4},
    "runtime_benchmark": {"total_timesteps": 1_000_000, "evaluations": 0},
}
"""What a run-length modifier changes; an integer is that many steps, otherwise as `default`."""


def run_length(modifier: str | int) -> dict[str, Any]:
    """The changes that `--run-length-modifier` stands for.

    Raises `ValueError` listing what is allowed.
    """
    if str(modifier).isdigit():
        return {"total_timesteps": int(modifier)}
    if modifier not in RUN_LENGTHS:
        allowed = ", ".join(RUN_LENGTHS)
        raise ValueError(
            f'unknown run length "{modifier}"{nearest(modifier, RUN_LENGTHS)}; '
            f"allowed: {allowed}, or a number of environment steps"
        )
    return RUN_LENGTHS[str(modifier)]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}; got {value!r}{nearest(value, allowed)}")
