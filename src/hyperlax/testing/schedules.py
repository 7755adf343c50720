"""`check_schedule`: the properties that a run relies on, for any schedule."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hyperlax.experiments.execution import Execution
from hyperlax.experiments.recipes import Recipe
from hyperlax.schedules import Schedule
from hyperlax.storage.results import Results
from hyperlax.sweeps import sweep

SIZES = {"num_envs": 4, "rollout_length": 8, "epochs": 1, "num_minibatches": 2}
SIZES |= {"actor.width": 8, "actor.depth": 1, "critic.width": 8, "critic.depth": 1}
EVALUATIONS = 4
OVER = ("done", "pruned", "diverged")


def check_schedule(schedule: Callable[[], Schedule], samples: Sequence[dict[str, Any]] | None = None) -> None:
    """Check a schedule in a small sweep: every lane ends, one is trained to its end, and it survives a stop.

    Four samples (or `samples`, by dotted path) of PPO on CartPole are trained with four evaluations each,
    once to the end and once interrupted halfway and resumed, which must give the same lanes and curves. What
    `describe` and `state` return must be JSON-ready, and `restore` must take back what `state` gave.

    `schedule` makes a fresh one: a class that needs no arguments, or a function. Raises `AssertionError`
    saying what is wrong, and `TypeError` where no schedule is made.
    """
    made = schedule()
    name = type(made).__name__
    if not isinstance(made, Schedule):
        raise TypeError(
            f"check_schedule takes a class or function that makes a Schedule; it has made a {name}"
        )
    _json_ready(f"{name}.describe()", made.describe())
    _json_ready(f"{name}.state()", made.state())
    rows = None if made.grows else list(samples or ({"gamma": g} for g in (0.9, 0.95, 0.98, 0.99)))
    with tempfile.TemporaryDirectory() as folder:
        counted = _Stopping(made, None)
        whole = _swept(made, rows, Path(folder) / "whole")
        statuses = whole.lanes["status"].to_list()
        assert set(statuses) <= set(OVER), f"{name}: lanes end as {sorted(set(statuses) - set(OVER))}"
        assert "done" in statuses, f"{name}: no lane has been trained to its end, they are {statuses}"
        state = _json_ready(f"{name}.state()", made.state())
        other = schedule()
        other.restore(state)
        assert _json_ready(f"{name}.state()", other.state()) == state, (
            f"{name}.restore does not take back what state() gave: {other.state()} instead of {state}"
        )
        interrupted = schedule()
        _Stopping(interrupted, max(1, counted.calls // 2))
        try:
            _swept(interrupted, rows, Path(folder) / "stopped")
        except KeyboardInterrupt:
            resumed = _swept(schedule(), rows, Path(folder) / "stopped", resume=True)
            _same(name, whole, resumed)
        else:
            assert not counted.calls, (
                f"{name}: the run was not interrupted, because a second schedule judges less often than the "
                f"first, which judged {counted.calls} times"
            )


class _Stopping:
    """Counts how often a schedule judges, and interrupts the run at one of these times."""

    def __init__(self, schedule: Schedule, at: int | None):
        self.calls, self.at, self.judge = 0, at, schedule.judge
        object.__setattr__(schedule, "judge", self)

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.judge(*arguments)


def _swept(schedule: Schedule, rows: Any, folder: Path, resume: bool = False) -> Results:
    return sweep(
        Recipe("ppo", "mlp", SIZES, only=True),
        "gymnax.cartpole",
        schedule=schedule,
        samples=rows,
        seeds=1,
        total_timesteps=32 * EVALUATIONS * 2,
        evaluations=EVALUATIONS,
        eval_episodes=2,
        execution=Execution(folder=folder, resume=resume, checkpoint_seconds=0, sequential=True),
    )


def _json_ready(what: str, value: Any) -> Any:
    try:
        read = json.loads(json.dumps(value))
    except TypeError as error:
        raise AssertionError(f"{what} is not JSON-ready: {error}") from error
    assert read == value, f"{what} reads {read!r} when written as JSON, and was {value!r}"
    return read


def _same(name: str, whole: Results, resumed: Results) -> None:
    for table, keys in (("lanes", ["lane"]), ("curves", ["lane", "metric", "env_steps"])):
        one, other = (getattr(r, table).drop("seconds").sort(keys) for r in (whole, resumed))
        assert one.equals(other), (
            f"{name}: interrupted and resumed, the run has other {table} than without interruption: what "
            f"decides must be returned by state() and taken back by restore():\n{one}\n{other}"
        )
