"""Recording the measurements of a run: rows of tables, in memory or in the store of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hyperlax.experiments.samples import Lane
from hyperlax.storage.results import SCHEMAS
from hyperlax.storage.store import Store

EVALUATION_MODES = ("deterministic", "stochastic")
"""Names of the two modes of an evaluation: the best actions of the policy, and sampled ones."""


@dataclass
class Recorder:
    """Collects the measurements of a run: on disk if there is a `store`, otherwise in `rows` by table."""

    store: Store | None
    rows: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {k: [] for k in SCHEMAS if k != "lanes"}
    )

    def add(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Append rows to a table of `storage.results.SCHEMAS`."""
        if self.store is None:
            self.rows[table].extend(rows)
        else:
            self.store.append(table, rows)

    def settled(self, wait: bool = True) -> bool:
        """Let a checkpoint count that was written while the run went on, as `Store.settle` does."""
        return self.store is None or self.store.settle(wait)

    def point(self, lane: Lane, seconds: float, measured: dict[str, float]) -> None:
        """Add a point to the curves of a lane, `seconds` after the experiment began; `measured` by metric."""
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
        """Add the returns and lengths of single episodes, both of shape [modes, episodes]."""
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
    """Summarise one evaluation from the returns and lengths of its episodes, by metric."""
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
