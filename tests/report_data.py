"""A made-up experiment with awkward parts: negative returns, a diverged lane, uneven evaluations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import polars as pl

from hyperlax.hyperparams.samplers import Saltelli, rest
from hyperlax.hyperparams.spaces import Joint, LogUniform
from hyperlax.storage.results import SCHEMAS, Results, empty

SPACE = {
    "lr": {"type": "log_uniform", "low": 1e-5, "high": 1e-2},
    "gamma": {"type": "uniform", "low": 0.9, "high": 0.999},
    "rollout": {"type": "choice", "values": [64, 128, 256]},
    "epochs": {"type": "integers", "low": 1, "high": 10},
    "actor.activation": {"type": "choice", "values": ["tanh", "relu", "silu"]},
    "normalise_observations": {"type": "choice", "values": [True, False]},
    "actor": {"type": "joint", "paths": ["width", "depth"], "choices": [[32, 1], [64, 2], [128, 2]]},
}
HEALTH = ("entropy", "approx_kl", "clip_fraction", "explained_variance", "actor_gradient_norm", "value_loss")


def synthetic(
    samples: int = 16,
    seeds: int = 4,
    evaluations: int = 5,
    diverged: tuple[int, ...] = (6,),
    budget: int = 500_000,
    circuits: int = 0,
) -> Results:
    """Pendulum-like returns of `samples` × `seeds` lanes; lanes in `diverged` stop half-way.

    With `circuits` executed per env step, samples also differ in their entangler.
    """
    rng = np.random.default_rng(0)
    table = _samples(samples, rng)
    if circuits:
        kinds = pl.Series([("none", "cz", "cz_ring")[i % 3] for i in range(samples)])
        table = table.with_columns(kinds.alias("actor.entangler"))
    lanes, curves, episodes = [], [], []
    for sample in range(samples):
        level, speed = rng.uniform(-1100, -160), rng.uniform(1.0, 6.0)
        batch = int(table["rollout"][sample]) * 16
        steps = [round(budget * (i + 1) / evaluations / batch) * batch for i in range(evaluations)]
        for seed in range(seeds):
            lane = sample * seeds + seed
            broken = lane in diverged
            points = steps[: max(1, evaluations // 2)] if broken else steps
            shift = rng.normal(0, 40)
            for step in points:
                place = step / budget
                at = (lane, sample, seed, step, step // 64, step * circuits, 3.0 + 90.0 * place)
                value = level + (-1350 - level) * math.exp(-speed * 2 * place) + shift + rng.normal(0, 25)
                curves += [(*at, name, number) for name, number in _metrics(value, place, rng).items()]
                episodes += [
                    (lane, step, "deterministic", e, value + rng.normal(0, 120), 200) for e in range(3)
                ]
            status = "diverged" if broken else "done"
            stopped = points[-1] if broken else None
            steps_done = points[-1]
            counted = (steps_done, steps_done // 64, steps_done * circuits)
            lanes.append((lane, sample, seed, status, *counted, 93.0, 4610, 0, stopped))
    return Results(
        manifest=manifest(samples, seeds, evaluations, budget),
        samples=table,
        lanes=frame("lanes", lanes),
        curves=frame("curves", curves),
        episodes=frame("episodes", episodes),
        timeline=frame("timeline", _timeline(evaluations)),
    )


def manifest(samples: int, seeds: int, evaluations: int, budget: int) -> dict[str, Any]:
    lanes = samples * seeds
    return {
        "name": "ppo_mlp",
        "algorithm": "ppo",
        "network": "mlp",
        "env": "gymnax.pendulum",
        "protocol": "corrected",
        "seed": 0,
        "created": "2026-02-03T10:11:12+00:00",
        "command": [
            "/home/someone/.venv/bin/hyperlax",
            "sweep-hp-samples",
            "ppo_mlp",
            "--output-root",
            "/home/someone/out",
        ],
        "versions": {"hyperlax": "0.1.0", "jax": "0.10.2", "python": "3.11.9"},
        "machine": {"cpu": "2 cores", "device": "cpu", "memory_gb": 16},
        "git_commit": "24bbcb1",
        "settings": {
            "total_timesteps": budget,
            "evaluations": evaluations,
            "eval_episodes": 16,
            "seeds": seeds,
            "samples": samples,
        },
        "space": SPACE,
        "defaults": {"lr": 3e-4, "gamma": 0.99, "max_grad_norm": 0.5},
        "plan": [
            {
                "program": 0,
                "lanes": lanes // 2,
                "caps": {"rollout": 128, "width": 64},
                "useful_share": 0.71,
                "memory_mb_per_lane": 3.2,
            },
            {
                "program": 1,
                "lanes": lanes - lanes // 2,
                "caps": {"rollout": 256, "width": 128},
                "useful_share": 0.64,
                "memory_mb_per_lane": 7.9,
            },
        ],
        "reference": {"random": -1250.0, "solved": -200.0},
        "timings": {"wall_seconds": 96.4, "compile_seconds": 11.2},
    }


def sobol_design(rows: int = 4, seeds: int = 2, omit_ab: bool = False) -> Results:
    """Matrices A, B and AB in which nothing but the rate matters; sample 2 has no evaluation."""
    space = {"rate": LogUniform(1e-4, 1e-2), "width+depth": Joint(("width", "depth"), (8, 1), (16, 2))}
    drawn = rest(Saltelli(space, 0, rows, omit_ab))
    full = synthetic(samples=len(drawn), seeds=seeds, evaluations=3, diverged=())
    samples = pl.DataFrame([{"sample": i, **row} for i, row in enumerate(drawn)])
    curves = full.curves.join(samples.select("sample", "rate"), on="sample").with_columns(
        value=pl.when(pl.col("metric") == "return").then(pl.col("rate").log()).otherwise(pl.col("value"))
    )
    described = {path: dimension.describe() for path, dimension in space.items()}
    return dataclasses.replace(
        full,
        manifest={**full.manifest, "space": described},
        samples=samples,
        curves=curves.drop("rate").filter(pl.col("sample") != 2),
    )


def nothing_yet() -> Results:
    """An experiment that has only begun: a manifest and samples, no lane."""
    full = synthetic(samples=4, seeds=2, evaluations=1)
    return Results(manifest=full.manifest, samples=full.samples)


def frame(table: str, rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[table], orient="row") if rows else empty(table)


def _samples(samples: int, rng: np.random.Generator) -> pl.DataFrame:
    shapes = SPACE["actor"]["choices"]
    return pl.DataFrame(
        [
            {
                "sample": i,
                "lr": 10 ** rng.uniform(-5, -2),
                "gamma": rng.uniform(0.9, 0.999),
                "rollout": (64, 128, 256)[i % 3],
                "epochs": int(rng.integers(1, 11)),
                "actor.activation": ("tanh", "relu", "silu")[int(rng.integers(3))],
                "normalise_observations": bool(rng.integers(2)),
                "actor.width": shapes[i % 3][0],
                "actor.depth": shapes[i % 3][1],
                "max_grad_norm": 0.5,
            }
            for i in range(samples)
        ]
    )


def _metrics(value: float, place: float, rng: np.random.Generator) -> dict[str, float]:
    noise = rng.normal(0, 0.1)
    health = (
        1.4 - place + noise,
        0.02 * (1 + noise),
        0.1 + noise / 5,
        place * 0.9 + noise,
        0.5 + noise,
        40 - 30 * place,
    )
    return {
        "return": value,
        "return_std": 120.0,
        "return_median": value + 5,
        "length": 200.0,
        **{f"train/{name}": float(number) for name, number in zip(HEALTH, health, strict=True)},
    }


def _timeline(evaluations: int) -> list[tuple]:
    spans = [("trace", 0, 0.0, 2.0), ("compile", 0, 2.0, 8.0), ("compile", 1, 8.0, 13.0)]
    now = 13.0
    for program in (0, 1):
        for _ in range(evaluations):
            spans += [("train", program, now, now + 6), ("evaluate", program, now + 6, now + 7.5)]
            spans.append(("save", program, now + 7.5, now + 8))
            now += 8
    return spans


def confirmed(
    results: Results, samples: tuple[int, ...] = (2, 0), drop: float = 30.0, seed: int = 7
) -> Results:
    """`results` with `samples` trained again: returns are `drop` lower, give or take luck."""
    luck = np.random.default_rng(seed)
    shift = {lane: -drop + luck.normal(0, 10) for lane in results.lanes["lane"].to_list()}
    own = pl.col("sample").is_in(samples)
    moved = pl.col("value") + pl.col("lane").replace_strict(shift, return_dtype=pl.Float64)
    curves = results.curves.filter(own).with_columns(
        value=pl.when(pl.col("metric") == "return").then(moved).otherwise("value")
    )
    again = Results(
        manifest={
            **results.manifest,
            "confirms": {"best": len(samples), "samples": list(samples), "seed": 0},
        },
        samples=results.samples.filter(own),
        lanes=results.lanes.filter(own),
        curves=curves,
    )
    return dataclasses.replace(results, confirmation=again)
