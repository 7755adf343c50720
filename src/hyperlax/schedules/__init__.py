"""Schedules: what becomes of lanes while an experiment runs."""

from hyperlax.schedules.base import Schedule, Verdict

__all__ = ["Schedule", "Verdict"]
