"""Whole sweeps: the same numbers however they are run, interrupted or not."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import hyperlax
from hyperlax import Execution
from hyperlax.run import runner
from hyperlax.run.display import Display
from hyperlax.run.saving import Pace
from hyperlax.run.slots import Slots
from hyperlax.storage.checkpoint import read_header, with_header

ARGUMENTS = {
    "recipe": "ppo_mlp_no_network_search",
    "env": "gymnax.pendulum",
    "num_samples": 3,
    "run_length_modifier": "quick",
    "total_timesteps": 700,
    "seeds": 2,
    "eval_episodes": 2,
    "evaluations": 3,
}
KEYS = ["lane", "env_steps", "metric"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> hyperlax.Results:
    """The sweep, run in one go."""
    return hyperlax.sweep(**ARGUMENTS, folder=tmp_path_factory.mktemp("whole") / "x")


def assert_same(a: hyperlax.Results, b: hyperlax.Results, tolerance: float | None = None) -> None:
    """All curves and episodes are equal: bitwise, or within a relative tolerance."""
    for left, right, keys in (
        (a.curves, b.curves, KEYS),
        (a.episodes, b.episodes, ["lane", "env_steps", "mode", "episode"]),
    ):
        left, right = left.sort(keys), right.sort(keys)
        assert left.select(keys).equals(right.select(keys))
        value = "value" if "value" in left.columns else "return"
        if tolerance is None:
            assert left[value].equals(right[value])
        else:
            np.testing.assert_allclose(left[value], right[value], rtol=tolerance, atol=tolerance)
    columns = ["lane", "sample", "seed", "status", "env_steps", "gradient_steps", "parameters"]
    assert a.lanes.select(columns).equals(b.lanes.select(columns))


def test_every_lane_is_evaluated_at_its_own_milestones(whole):
    """At the first cycle boundary at or after each multiple of T / n, but at the end of the lane at last."""
    steps = {r["sample"]: r["num_envs"] * r["rollout_length"] for r in whole.samples.iter_rows(named=True)}
    points = whole.curves.filter(pl.col("metric") == "return")
    for lane in whole.lanes.iter_rows(named=True):
        cycle = steps[lane["sample"]]
        end = 707 // cycle * cycle
        expected = [min(-(-m // cycle) * cycle, end) for m in (233, 466, 700)]
        assert points.filter(pl.col("lane") == lane["lane"])["env_steps"].to_list() == expected
        assert lane["status"] == "done"
        assert lane["env_steps"] == expected[-1]


def test_seeds_and_samples_differ(whole):
    """Every lane has its own weights and its own luck."""
    last = whole.curves.filter(pl.col("metric") == "return").group_by("lane").last()
    assert last["value"].n_unique() == len(whole.lanes)


def test_sequential_gives_the_same_numbers(whole):
    """One lane at a time learns bitwise what all at once do."""
    assert_same(whole, hyperlax.sweep(**ARGUMENTS, execution=Execution(sequential=True)))


def test_lanes_mapped_together_give_the_same_numbers(whole):
    """Slots that hold several lanes each, refilled from the queue, change nothing but rounding."""
    together = hyperlax.sweep(**ARGUMENTS, execution=Execution(lanes_per_device=2))
    metrics = pl.col("metric").is_in(["return", "length", "train/entropy", "train/actor_lr"])
    first = pl.col("env_steps") <= 256
    left, right = (r.curves.filter(metrics & first).sort(KEYS) for r in (whole, together))
    assert left.select(KEYS).equals(right.select(KEYS))
    np.testing.assert_allclose(left["value"], right["value"], rtol=2e-3)


class Crash(Display):
    """Dies at the n-th evaluation, as if the process were killed: nothing more is saved."""

    def __init__(self, n: int):
        self.left = n

    def evaluated(self, lane, score) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("evaluations", [1, 5, 9, 16])
def test_resume_after_a_crash_is_bitwise(whole, tmp_path, evaluations):
    """Killed anywhere, continued, nothing is lost, doubled or different."""
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**ARGUMENTS, execution=how, progress=Crash(evaluations))
    partial = hyperlax.read(tmp_path / "x")
    assert len(partial.samples) == 3
    resumed = hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True)
    assert_same(whole, resumed)
    assert sorted(p.name for p in (tmp_path / "x" / "policies").iterdir()) == sorted(
        p.name for p in (whole.folder / "policies").iterdir()
    )


@pytest.mark.parametrize("lacking", ["seating", "schedule"])
def test_a_checkpoint_of_an_older_version_is_continued_and_an_incomplete_one_refused(
    whole, tmp_path, lacking
):
    """Older versions did not say which lanes were in which slots; no checkpoint was ever without the rest."""
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**ARGUMENTS, execution=how, progress=Crash(5))
    for path in (tmp_path / "x" / "checkpoint").glob("state-*.bin"):
        data = path.read_bytes()
        path.write_bytes(with_header(data, {k: v for k, v in read_header(data).items() if k != lacking}))
    if lacking == "seating":
        assert_same(whole, hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True))
        return
    with pytest.raises(ValueError, match="is not a checkpoint of a run: it lacks 'schedule'"):
        hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True)


def again(folder: Path, **more) -> Execution:
    """How to train again what is damaged in a folder."""
    return Execution(folder=folder, resume=True, retrain_damaged=True, **more)


@pytest.mark.parametrize("name", ["policies", "curves.parquet"])
def test_damaged_results_are_trained_again_and_an_interruption_of_that_loses_nothing(whole, tmp_path, name):
    """The lane of a policy, or every lane, has the bits that it had; once begun, it is gone on with."""
    folder = tmp_path / "x"
    shutil.copytree(whole.folder, folder)
    path = max((folder / name).iterdir()) if name == "policies" else folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path.name} is damaged.* --resume --retrain-damaged trains"):
        hyperlax.sweep(**ARGUMENTS, folder=folder, resume=True)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**ARGUMENTS, execution=again(folder, checkpoint_seconds=0), progress=Crash(3))
    assert len(hyperlax.read(folder).curves) < len(whole.curves)
    assert_same(whole, hyperlax.sweep(**ARGUMENTS, folder=folder, resume=True))
    for policy in (whole.folder / "policies").iterdir():
        assert policy.read_bytes() == (folder / "policies" / policy.name).read_bytes()
    assert [entry.problems for entry in hyperlax.check(folder)] == [()]
    assert [p.name for p in (folder / "damaged").iterdir()] == [path.name]


def test_a_killed_run_without_one_of_its_parts_trains_the_lanes_in_it_again(whole, tmp_path):
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**ARGUMENTS, execution=how, progress=Crash(9))
    min((tmp_path / "x" / "parts").glob("curves-*.parquet")).unlink()
    with pytest.raises(ValueError, match="no other checkpoint is left: with --resume --retrain-damaged lane"):
        hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True)
    assert_same(whole, hyperlax.sweep(**ARGUMENTS, execution=again(tmp_path / "x")))


REPLAYING = {
    **ARGUMENTS,
    "recipe": "dqn_mlp",
    "env": "gymnax.cartpole",
    "num_samples": 2,
    "total_timesteps": 200,
    "set": {"buffer_size": 20_000, "update_to_data": 0.5},
}


def test_a_replay_is_resumed_with_its_lane_and_not_kept_with_its_policy(tmp_path):
    """Killed in mid-learning and continued, bitwise; a policy needs no memory of its training."""
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**REPLAYING, execution=how, progress=Crash(2))
    resumed = hyperlax.sweep(**REPLAYING, folder=tmp_path / "x", resume=True)
    assert (resumed.lanes["gradient_steps"] > 10).all()
    assert_same(hyperlax.sweep(**REPLAYING), resumed)
    policies = sorted((tmp_path / "x" / "policies").iterdir())
    assert max(p.stat().st_size for p in policies) < 100_000, "the replay alone is 880 kB"
    assert hyperlax.load(policies[0]).act(np.zeros(4, np.float32)) in (0, 1)


@pytest.mark.parametrize(("seconds", "took", "pause"), [(30.0, 1, 30), (30.0, 10, 90), (30.0, 500, 600)])
def test_the_next_checkpoint_is_put_off_where_writing_one_takes_long(seconds, took, pause):
    """A tenth of the time is for checkpoints, but none is put off for more than ten minutes."""
    pace = Pace(seconds, 1000.0)
    assert [pace.due(1000 + seconds + t) for t in (-1, 1)] == [False, True]
    pace.saved(2000.0, 2000.0 + took)
    assert [pace.due(2000 + took + t) for t in (pause - 1.0, pause + 1.0)] == [False, True]


def test_no_checkpoint_is_due_while_the_last_one_is_being_written():
    """What is written while the run goes on keeps a core and the disk busy as well."""
    pace = Pace(30.0, 0.0)
    pace.saved(100.0, 101.0, written=False)
    assert [pace.due(t, written=False) for t in (102.0, 119.0)] == [False, False]
    assert [pace.due(t) for t in (120.0, 299.0, 301.0)] == [False, False, True], "20 s, and 180 s of pause"


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_a_pause_that_was_asked_for_is_kept_however_long_a_checkpoint_takes(seconds):
    """A checkpoint after every segment, or one an hour."""
    pace = Pace(seconds, 0.0)
    pace.saved(0.0, 50.0)
    assert pace.pause == seconds


@pytest.mark.parametrize("took", [0, 1000])
def test_a_run_with_a_slow_disk_trains_most_of_the_time(tmp_path, monkeypatch, took):
    """Otherwise, every checkpoint takes so long that the next one is due after it at once."""
    clock, written, save = itertools.count(), [], runner.saving.save

    def write(*arguments: Any) -> None:
        save(*arguments)
        written.append([next(clock) for _ in range(took)])

    monkeypatch.setattr(runner, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setattr(runner.saving, "save", write)
    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0.5)
    hyperlax.sweep(**ARGUMENTS, execution=how)
    assert len(written) == 2 if took else len(written) > 2, "the first and the last one, or many"


def test_a_finished_experiment_resumes_to_itself(whole):
    """Nothing is trained again, nothing changes."""
    again = hyperlax.sweep(**ARGUMENTS, folder=whole.folder, resume=True)
    assert_same(whole, again)


def test_a_folder_is_never_overwritten(whole, tmp_path):
    """Without resume the same experiment is refused; with other settings it is refused always, saying why."""
    with pytest.raises(ValueError, match="already holds this experiment; continue it with --resume"):
        hyperlax.sweep(**ARGUMENTS, folder=whole.folder)
    with pytest.raises(
        ValueError, match="already holds another experiment:\n  total_timesteps: 700 in the folder, 800"
    ):
        hyperlax.sweep(**{**ARGUMENTS, "total_timesteps": 800}, folder=whole.folder)
    with pytest.raises(
        ValueError, match=r"(?s)cannot be resumed with other settings:.*seed: 42 in the folder, 1 asked"
    ):
        hyperlax.sweep(**ARGUMENTS, seed=1, folder=whole.folder, resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no experiment"):
        hyperlax.sweep(**ARGUMENTS, folder=tmp_path)
    with pytest.raises(ValueError, match="nothing to resume"):
        hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_diverged_lanes_stop_and_free_their_slot(whole, tmp_path):
    """A lane with infinite weights is recorded with its step, the others go on."""
    second = pl.col("sample") == 1
    samples = whole.samples.with_columns(
        actor_lr=pl.when(second).then(3e38).otherwise("actor_lr"),
        sample=pl.when(second).then(7).otherwise("sample"),
    )
    results = hyperlax.sweep(**{**ARGUMENTS, "num_samples": None}, samples=samples, folder=tmp_path / "x")
    lanes = results.lanes.filter(pl.col("sample") == 7)
    assert lanes["status"].to_list() == ["diverged", "diverged"]
    cycle = whole.samples.row(1, named=True)
    assert min(lanes["diverged_at"]) >= cycle["num_envs"] * cycle["rollout_length"]
    assert set(results.lanes.filter(pl.col("sample") != 7)["status"]) == {"done"}


def test_memory_is_respected(whole):
    """Lanes per device are halved until they fit, which is said once."""
    said = []

    class Listen(Display):
        def halved(self, needed_mb, limit_mb, lanes):
            said.append(lanes)

    per_lane = whole.manifest["plan"][0]["memory_mb_per_lane"] * 2**20
    how = Execution(lanes_per_device=2, memory_limit=int(1.5 * per_lane))
    results = hyperlax.sweep(**ARGUMENTS, execution=how, progress=Listen())
    assert said == [2] * len(whole.manifest["plan"])
    assert_same(whole, results)


@pytest.mark.parametrize("segments", [0, 4])
def test_failed_lanes_are_trained_again_on_resume(whole, tmp_path, monkeypatch, segments):
    """As if they had never been started, whether the program failed before its first segment or later."""
    real, left = Slots.advance, [segments]

    def advance(self, clock):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("injected")
        return real(self, clock)

    with monkeypatch.context() as patch:
        patch.setattr(Slots, "advance", advance)
        broken = hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x")
    failed = broken.lanes.filter(pl.col("status") == "failed")
    assert len(failed)
    assert (failed["env_steps"] > 0).any() == (segments > 0)
    assert set(broken.manifest["timings"]["errors"].values()) == {"injected"}
    resumed = hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True)
    assert_same(whole, resumed)
    assert resumed.manifest["timings"]["errors"] == {}
    before, now = (r.manifest["timings"]["programs"] for r in (broken, resumed))
    assert now[: len(before)] == before
    assert len(now) > len(before) > 0


def test_saved_policies_act(whole):
    """The best lanes' policies load and act; deterministic without a key."""
    files = sorted((whole.folder / "policies").iterdir())
    assert len(files) == 5
    policy = hyperlax.load(files[0])
    obs = np.zeros(3, np.float32)
    assert policy.act(obs).shape == (1,)
    assert np.array_equal(policy.act(obs), policy.act(obs))
    with pytest.raises(ValueError, match="observes 3 numbers"):
        policy.act(np.zeros(4, np.float32))
    fresh = whole.curves.filter(pl.col("metric") == "fresh_return")
    scores = dict(fresh.select("lane", "value").iter_rows())
    for header in (hyperlax.load(file).header for file in files):
        assert header["score"] == scores[header["lane"]], "the episodes that no evaluation was chosen by"
        assert "fresh episodes" in header["definition"]


def test_published_protocol_runs_and_shares_initial_weights():
    """Its settings are all in the resolved samples; all lanes start from one draw.

    A lane that does not learn has the same return in all of its evaluations, because their keys are fixed.
    """
    small = {"num_envs": 8, "rollout_length": 16, "num_minibatches": 4, "actor.width": 16, "critic.width": 16}
    still = {"actor_lr": 0, "decay_learning_rates": False, "normalize_observations": False}
    still["evaluation_normalisation"] = "as_trained"
    results = hyperlax.sweep(**ARGUMENTS, set={**small, **still}, protocol="published", evaluation=None)
    returns = results.curves.filter(pl.col("metric") == "return").group_by("lane").agg("value")["value"]
    assert returns.list.len().to_list() == [3] * 6
    assert returns.list.n_unique().to_list() == [1] * 6
    assert returns.list.first().n_unique() == 6
    assert results.lanes["env_steps"].to_list() == [768] * 6, "the first whole cycle of 128 beyond 700"
    row = results.samples.row(0, named=True)
    assert row["loss_reduction"] == "sum"
    assert row["time_limit"] == "termination"
    assert results.manifest["settings"]["evaluation"] == "sampled"
    assert results.manifest["settings"]["initial_weights"] == "shared"


def _command(folder: Path) -> list[str]:
    """The sweep of `ARGUMENTS`, whose program is in the cache, but long."""
    flags = "--run-length-modifier quick --num-samples 3 --total-timesteps 50000 --checkpoint-seconds 0.3"
    flags += " --set eval_episodes=2 --set evaluations=3"
    recipe = "--algo-and-network-config ppo_mlp_no_network_search --env-config gymnax.pendulum"
    return [
        sys.executable,
        "-m",
        "hyperlax",
        "sweep-hp-samples",
        *f"{recipe} {flags}".split(),
        "--output-root",
        str(folder),
    ]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 75),
        # Every signal, in one process: `test_signals`; every moment of a kill: `test_snapshots`.
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_signals_save_and_leave_with_the_right_code(tmp_path, number, code):
    """SIGINT and SIGTERM save; after kill -9 the folder is readable and continues from its checkpoint."""
    environment = {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}
    environment["HYPERLAX_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
    process = subprocess.Popen(
        _command(tmp_path), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    folder = tmp_path / "ppo_mlp_no_network_search" / "gymnax.pendulum"
    deadline = time.monotonic() + 120
    while not any((folder / "checkpoint").glob("state-*.bin")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    partial = hyperlax.read(folder)
    assert set(partial.lanes["status"]) & {"running", "done"}
    if code > 0:
        assert b"state saved, continue with --resume" in errors
        assert (partial.lanes["env_steps"] > 0).any()


def test_the_number_of_devices_does_not_show():
    """A program is compiled once, for one device, and whatever is trained there or on another is the same."""
    import jax
    import numpy as np

    from hyperlax import sweeps
    from hyperlax.programs.compiled import compile_program
    from hyperlax.programs.orders import blank_orders
    from hyperlax.programs.plan import Machine, plan

    spec = sweeps.prepare(**ARGUMENTS)
    program = plan(spec.trees, spec.env, 700, 2, Machine.planned("cpu"))[0]
    devices = jax.local_devices()[:2]
    compiled = compile_program(program, spec.trees[0], spec.env, 2, 2, devices)
    orders, sample = blank_orders(spec.trees[0], 2), spec.records[0]
    orders.fresh[:], orders.total_steps[:] = True, 700
    orders.key[:], orders.init_key[:] = sample.keys[0], sample.init_keys[0]
    state = compiled.start(compiled.empty_state(), orders)
    state = compiled.train(state, np.full(2, 3, np.int32))
    assert (compiled.read(state, lambda s: s.env_steps) > 0).all()
    assert len(state) == 2
    for a, b in zip(*map(jax.tree.leaves, state), strict=True):
        np.testing.assert_array_equal(a, b)
    every = np.ones(2, bool)
    state, returns, _, metrics = compiled.evaluate(state, every, every)
    for measured in (returns, *metrics.values()):
        np.testing.assert_array_equal(measured[0], measured[1])
    _, returns, *_ = compiled.evaluate(state, every, np.array([False, True]))
    assert not returns[0].any()  # the first device was left alone
    assert returns[1].any()


def test_a_resumed_run_keeps_its_plan(whole, tmp_path, monkeypatch):
    """Also where the machine would plan otherwise: the checkpoint fits the programs it was made by."""
    from hyperlax import sweeps

    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**ARGUMENTS, execution=how, progress=Crash(4))
    monkeypatch.setattr(sweeps, "plan", lambda *_, **__: pytest.fail("planned again"))
    assert_same(whole, hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True))


def test_a_run_is_continued_where_its_bits_are_the_same(whole, tmp_path, monkeypatch):
    """Another kind of device or compiler is refused, unless any will do; the manifest tells all of them."""
    from hyperlax import sweeps

    how = Execution(folder=tmp_path / "x", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        hyperlax.sweep(**ARGUMENTS, execution=how, progress=Crash(4))
    here = sweeps.shape()
    monkeypatch.setattr(sweeps, "shape", lambda: {**here, "device": "Other", "jaxlib": "9.9"})
    with pytest.raises(ValueError, match="bit for bit") as refused:
        hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True)
    for said in (f"began on {here['device']}, this is Other", "this is 9.9", "--any-device"):
        assert said in str(refused.value)
    anywhere = Execution(any_device=True)
    results = hyperlax.sweep(**ARGUMENTS, execution=anywhere, folder=tmp_path / "x", resume=True)
    assert results.manifest["shapes"] == [here, sweeps.shape()]
    assert [entry["lanes_per_device"] for entry in results.manifest["plan"]] == [1] * len(
        results.manifest["plan"]
    )
    assert_same(whole, hyperlax.sweep(**ARGUMENTS, folder=tmp_path / "x", resume=True))
