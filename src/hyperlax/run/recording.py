"""What is measured of a run: rows of tables, in memory or in the experiment's store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hyperlax.experiments.samples import Lane
from hyperlax.storage.results import SCHEMAS
from hyperlax.storage.store import Store

EVALUATION_MODES = ("deterministic", "stochastic")


@dataclass
class Recorder:
    """Everything measured, in memory and (with a store) on disk."""

    store: Store | None
    rows: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {k: [] for k in SCHEMAS if k != "lanes"}
    )

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        if self.store is None:
            self.rows[table].extend(rows)
        else:
            self.store.append(table, rows)

    def point(self, lane: Lane, seconds: float, measured: dict[str, float]) -> None:
        """One point of the lane's curves."""
        at = {
            "lane": lane.lane,
            "sample": lane.sample,
            "seed": lane.seed,
            "env_steps": lane.env_steps,
            "gradient_steps": lane.gradient_steps,
            "circuit_executions": lane.circuit_executions,
            "seconds": seconds,
        }
        self.add("curves", [{**at, "metric": k, "value": v} for k, v in measured.items()])

    def episodes(self, lane: Lane, returns: np.ndarray, lengths: np.ndarray) -> None:
        """Raw returns and lengths, evaluation mode × episode."""
        rows = [
            {
                "lane": lane.lane,
                "env_steps": lane.env_steps,
                "mode": mode,
                "episode": e,
                "return": r,
                "length": n,
            }
            for mode, rs, ns in zip(EVALUATION_MODES, returns, lengths, strict=True)
            for e, (r, n) in enumerate(zip(rs.tolist(), ns.tolist(), strict=True))
        ]
        self.add("episodes", rows)


def summary(returns: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """The headline metrics of one evaluation, from its episodes."""
    q25, median, q75 = np.quantile(returns, (0.25, 0.5, 0.75))
    return {
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_q25": float(q25),
        "return_median": float(median),
        "return_q75": float(q75),
        "length": float(lengths.mean()),
        "episodes": float(returns.size),
    }
