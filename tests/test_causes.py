"""Lost lanes: for what they were lost, what is advised, and that the others do not notice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import polars as pl
import pytest
from faulty import OBSERVATION, REWARD

import hyperlax
from hyperlax.commands.app import app
from hyperlax.run import causes
from hyperlax.run.advice import SIZES, advice, all_lost
from hyperlax.run.slots import Slots

FILE = Path(__file__).with_name("faulty.py")
SMALL = {"num_envs": 4, "rollout_length": 8}
NETS = {"ppo": ("actor", "critic"), "dqn": ("critic",), "sac": ("actor", "critic")}
PLACES = {"ppo": "Dial", "dqn": "Switch", "sac": "Dial"}
RATES = {"ppo": ("actor_lr", "critic_lr"), "dqn": ("critic_lr",), "sac": ("actor_lr", "q_lr")}
TINY: dict[str, dict[str, Any]] = {
    "ppo": {**SMALL, "num_minibatches": 2, "epochs": 1},
    "dqn": {**SMALL, "buffer_size": 500, "batch_size": 16, "epochs": 2},
    "sac": {**SMALL, "buffer_size": 500, "batch_size": 16, "epochs": 2},
}
RETURN: dict[str, Any] = {"exit_on_error": False, "result_action": "return_value"}


def trained(
    algorithm: str,
    monkeypatch: pytest.MonkeyPatch,
    faults: Mapping[int, int],
    rates: list[float],
    seeds: int,
    steps: int = 128,
    **more: Any,
) -> hyperlax.Results:
    """A sweep over learning rates in which the first episodes of some lanes have `faults`, by lane.

    They are written into the states of the lanes, so that the programs are the same with and without.
    """
    real = Slots._start

    def start(self: Slots) -> None:
        fresh = [(slot, lane) for slot, lane in self.busy() if self.orders.fresh[slot]]
        real(self)
        for slot, lane in fresh:
            state = self.state(slot)
            fault = jnp.full_like(state.envs.state["fault"], faults.get(lane.lane, 0))
            state = eqx.tree_at(lambda s: s.envs.state["fault"], state, fault)
            self.device_state = self.compiled.place(self.device_state, slot, state)

    networks = {f"{net}.width": 8 for net in NETS[algorithm]}
    with monkeypatch.context() as patch:
        patch.setattr(Slots, "_start", start)
        return hyperlax.sweep(
            f"{algorithm}_mlp",
            f"{FILE}:{PLACES[algorithm]}",
            samples=[dict.fromkeys(RATES[algorithm], rate) for rate in rates],
            set={**TINY[algorithm], **networks},
            total_timesteps=steps,
            seeds=seeds,
            evaluations=2,
            eval_episodes=2,
            **more,
        )


def assert_others_unchanged(whole: hyperlax.Results, hurt: hyperlax.Results, lost: list[int]) -> None:
    """Lanes that are not `lost` have bitwise the same curves and episodes in both."""
    assert hurt.lanes.filter(pl.col("status") == "diverged")["lane"].to_list() == lost
    assert (whole.lanes["status"] == "done").all()
    for table, keys in (
        ("curves", ["lane", "env_steps", "metric"]),
        ("episodes", ["lane", "env_steps", "mode", "episode"]),
    ):
        a, b = (
            getattr(r, table).filter(~pl.col("lane").is_in(lost)).sort(keys).drop("seconds", strict=False)
            for r in (whole, hurt)
        )
        assert len(a)
        assert a.equals(b)


def test_a_lane_whose_environment_fails_is_told_apart_and_leaves_the_others_alone(monkeypatch):
    """One lane is given NaN rewards, and one NaN observations."""
    rates = [1e-3, 3e-4]
    whole = trained("ppo", monkeypatch, {}, rates, seeds=2)
    hurt = trained("ppo", monkeypatch, {1: REWARD, 2: OBSERVATION}, rates, seeds=2)
    assert_others_unchanged(whole, hurt, [1, 2])
    assert whole.manifest["timings"]["causes"] == {}
    assert hurt.manifest["timings"]["causes"] == {"1": "environment", "2": "environment"}
    (line,) = advice(hurt)
    assert line.startswith("2 of 4 lanes diverged because ")
    assert "faulty.py:Dial returned rewards or observations that are not finite" in line
    assert "hyperlax.testing.check_env(Dial())" in line
    assert not all_lost(hurt)


def test_when_every_lane_is_lost_each_cause_has_its_advice(monkeypatch):
    """Two lanes are given NaN rewards, and two have a learning rate that no weight survives."""
    lost = trained("ppo", monkeypatch, {0: REWARD, 1: REWARD}, [1e-3, 1e30], seeds=2)
    found = lost.manifest["timings"]["causes"]
    assert found == {"0": "environment", "1": "environment", "2": "learning", "3": "learning"}
    first, second = advice(lost)
    assert first.startswith("2 of 4 lanes diverged because ")
    assert "learning rate" not in first
    assert second.startswith("2 of 4 lanes diverged: try smaller learning rates (--set actor_lr=")
    assert all_lost(lost)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError("one lane needs 10 MB"), "memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"), "memory"),
        (RuntimeError("boom\n  at line 3"), "exception"),
    ],
)
def test_failures_are_told_apart_and_answered(error, cause):
    """Memory by what takes it, exceptions by the first line of their text."""
    assert causes.failure(error) == cause
    lanes = pl.DataFrame({"lane": [0, 1], "status": ["failed", "failed"]})
    timings = {"causes": {"0": cause, "1": cause}, "errors": {"0": str(error), "1": str(error)}}
    results = hyperlax.Results({"timings": timings, "env": "gymnax.pendulum"}, pl.DataFrame(), lanes)
    (line,) = advice(results)
    expected = {
        "memory": f"every lane failed for want of memory: {SIZES}",
        "exception": "every lane failed: boom",
    }
    assert line == expected[cause]


def test_results_without_causes_are_answered_by_status():
    """Folders that were written before causes were recorded."""
    lanes = pl.DataFrame({"lane": [0, 1], "status": ["diverged", "diverged"]})
    manifest = {"timings": {"errors": {}}, "env": "gymnax.pendulum", "defaults": {"actor_lr": 3e-4}}
    (line,) = advice(hyperlax.Results(manifest, pl.DataFrame(), lanes))
    assert line.startswith("every lane diverged: try smaller learning rates (--set actor_lr=3e-05)")
    assert "hyperlax.testing.check_env('gymnax.pendulum')" in line


def test_a_search_is_lost_when_each_of_its_trials_is():
    """The lanes of a trial are stopped with the one that is lost; lanes that a pruner stops have a result."""
    lanes = pl.DataFrame({"lane": [0, 1, 2], "sample": [0, 0, 1], "status": ["diverged", "pruned", "failed"]})
    trials = pl.DataFrame({"trial": [0, 1]})
    assert all_lost(hyperlax.Results({}, pl.DataFrame(), lanes, trials=trials))
    assert not all_lost(hyperlax.Results({}, pl.DataFrame(), lanes))
    other = lanes.with_columns(sample=pl.Series([0, 2, 1]))
    assert not all_lost(hyperlax.Results({}, pl.DataFrame(), other, trials=trials))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "dqn", "sac"])
def test_one_lane_of_64_is_lost_alone(algorithm, monkeypatch):
    """The 63 others learn bitwise what they learn beside a sound lane, and the environment is blamed."""
    rates = [1e-4 * (n + 1) for n in range(16)]
    whole = trained(algorithm, monkeypatch, {}, rates, seeds=4, steps=512)
    assert len(whole.lanes) == 64
    for fault in (REWARD, OBSERVATION):
        hurt = trained(algorithm, monkeypatch, {37: fault}, rates, seeds=4, steps=512)
        assert_others_unchanged(whole, hurt, [37])
        assert hurt.manifest["timings"]["causes"] == {"37": "environment"}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_actions_that_overflow_are_not_blamed_on_the_environment(algorithm, monkeypatch):
    """The environment answers NaN actions with NaN, and returns finite numbers otherwise."""
    wild = trained(algorithm, monkeypatch, {}, [1e30], seeds=2, steps=512)
    assert set(wild.manifest["timings"]["causes"].values()) == {"learning"}


@pytest.mark.slow
def test_commands_end_with_1_when_every_lane_is_lost(tmp_path, monkeypatch, capsys):
    """A sweep and a benchmark name the environment and the check; the cells are failed, with the reason."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    (tmp_path / "mine.py").write_text(FILE.read_text())
    env = f"mine.py:Dial[fault={OBSERVATION}]"
    sizes = {**TINY["ppo"], **{f"{net}.width": 8 for net in NETS["ppo"]}}
    small = [word for k, v in sizes.items() for word in ("--set", f"{k}={v}")]
    small += ["--total-timesteps", "256", "--seeds", "2"]
    sweep = ["sweep-hp-samples", "--algo-and-network-config", "ppo_mlp", "--env-config", env]
    assert app([*sweep, "--num-samples", "2", "--output-root", "s", *small], **RETURN) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"every lane diverged because {env} returned rewards or observations" in said
    assert "hyperlax.testing.check_env(Dial())" in said
    benchmark = ["run-benchmark", "--algos", "ppo_mlp", "--envs", env, "--num-samples-per-run", "2"]
    assert app([*benchmark, "--output-root", "b", *small], **RETURN) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"failed: every lane diverged because {env}" in said
