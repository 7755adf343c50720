"""Sweeps for many processes, as far as the host goes: how they are cut, sent and looked at."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import folders
import jax
import pytest

from hyperlax import sweeps
from hyperlax.cluster import planning, records, slurm, splitting, state, submitting, sweep, trust, work
from hyperlax.cluster.slurm import Options
from hyperlax.cluster.sweep import Sweep
from hyperlax.commands.flags import Running
from hyperlax.commands.main import main
from hyperlax.commands.spread import Spread
from hyperlax.experiments.execution import Execution
from hyperlax.programs.plan import Machine, Program
from hyperlax.run.display import Display
from hyperlax.schedules import ASHA
from hyperlax.storage.claims import Superseded
from hyperlax.storage.integrity import Damaged, write_json
from hyperlax.storage.places import PLAN

GIVEN: dict[str, Any] = {
    "recipe": "ppo_mlp",
    "env": "gymnax.cartpole",
    "run_length_modifier": "quick",
    "seeds": 2,
}
LIMIT = {"time": "1:00:00"}


@pytest.fixture(scope="module")
def spec():
    return sweeps.prepare(**GIVEN, num_samples=7)


def planned(spec, root: Path, **more: Any) -> Sweep:
    more = {"slurm": LIMIT, "wanted": 4, **more}
    given = {**GIVEN, "num_samples": 7}
    found = planning.of_experiment(spec, root, Path("."), given, None, ["hyperlax"], "cpu", {}, **more)
    found.write()
    return found


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with the jobs of a fake Slurm, whose accounts must not be asked for."""
    home, tools = tmp_path / "slurm", tmp_path / "bin"
    home.mkdir()
    tools.mkdir()
    fake = Path(__file__).parent / "fake_slurm" / "slurm.py"
    for name in ("sbatch", "squeue", "scontrol", "scancel", "srun"):
        (tools / name).write_text(f"#!{sys.executable}\n" + fake.read_text().partition("\n")[2])
        (tools / name).chmod(0o755)
    for name in ("sacct", "sacctmgr"):  # many clusters keep no accounts, or show them to nobody
        (tools / name).write_text(f"#!/bin/sh\ntouch {home}/accounts\nexit 1\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(home))
    yield home
    assert not (home / "accounts").exists()


def set_task(cluster: Path, job: str, index: int, what: str | None) -> None:
    """Let a task of the fake Slurm be in another state, or leave the queue (None)."""
    path = cluster / f"{job}.json"
    about = json.loads(path.read_text())
    about["tasks"].pop(str(index))
    if what is not None:
        about["tasks"][str(index)] = what
    path.write_text(json.dumps(about))


def states(found: Sweep) -> list[str]:
    return [u.state for u in state.look(found).units]


# Units


@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 7, 50])
def test_every_sample_is_in_one_unit_and_every_unit_in_one_program(spec, wanted):
    caps = sweeps.plan([spec.trees[0]], spec.env, 1000, 1, Machine.planned("cpu"))[0]
    programs: list[Program] = [replace(caps, samples=(0, 2, 3, 6)), replace(caps, samples=(1, 4, 5))]
    units = splitting.split(3, spec, programs, Machine.of("cpu", 1), wanted=wanted)
    assert len(units) == min(7, max(2, wanted))
    assert sorted(place for unit in units for place in unit.samples or ()) == list(range(7))
    assert all(any(set(unit.samples or ()) <= set(p.samples) for p in programs) for unit in units)
    assert sum(unit.lanes for unit in units) == 7 * 2
    assert len({unit.name for unit in units}) == len(units)
    assert all(unit.samples for unit in units)


def test_lanes_that_are_compared_stay_together(spec):
    """And those that train one at a time to be timed."""
    asha = sweeps.prepare(**GIVEN, num_samples=4, evaluations=4, schedule=ASHA())
    programs = sweeps.plan(spec.trees, spec.env, 1000, 1, Machine.planned("cpu"))
    for experiment, sequential in ((asha, False), (spec, True)):
        (unit,) = splitting.split(0, experiment, programs, Machine.of("cpu", 1), sequential, wanted=4)
        assert unit.samples is None


def test_a_part_has_the_lanes_and_keys_of_the_whole(spec):
    part, whole = spec.part([2, 5]), {lane.lane: lane for lane in spec.lanes()}
    assert [lane.lane for lane in part.lanes()] == [4, 5, 10, 11]
    for lane in part.lanes():
        assert lane == whole[lane.lane]
        assert (part.records[lane.sample].keys == spec.records[lane.sample].keys).all()
    assert len(spec.records) == 7


def test_plans_do_not_depend_on_the_number_of_devices(monkeypatch):
    here = [Machine.planned(platform) for platform in ("cpu", "gpu")]
    for owner, name in ((jax, "device_count"), (jax, "local_device_count"), (os, "cpu_count")):
        monkeypatch.setattr(owner, name, lambda *_: 37)
    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, lambda *_, **__: [None] * 37)
    assert [Machine.planned(platform) for platform in ("cpu", "gpu")] == here
    assert here[1].devices == 1


def test_a_sweep_is_read_as_it_was_written_and_refuses_another(spec, tmp_path):
    found = planned(spec, tmp_path)
    again = sweep.needed(tmp_path)
    assert (again.units, again.slurm) == (found.units, LIMIT)
    assert asdict(again.cells[0]) == json.loads(json.dumps(asdict(found.cells[0]), default=str))
    assert again.cells[0].plan() == found.cells[0].plan()
    assert again.spec(0).identity() == spec.identity()
    with pytest.raises(ValueError, match="has just planned"):
        found.write()
    other = sweeps.prepare(**{**GIVEN, "seeds": 3}, num_samples=7)
    with pytest.raises(ValueError, match="seeds"):
        planning.continued(again, planning.asked_of_experiment(other, False, False))
    changed = replace(again.cells[0], arguments={**again.cells[0].arguments, "seed": 7})
    with pytest.raises(ValueError, match="another experiment here"):
        replace(again, cells=(changed,)).spec(0)


def test_units_train_on_equal_devices_only(spec, tmp_path, monkeypatch):
    found = planned(spec, tmp_path)
    found.check_device()
    found.check_device()
    monkeypatch.setattr(sweep, "shape", lambda: {"platform": "cpu", "device": "Other", "jaxlib": "1"})
    with pytest.raises(ValueError, match="this is Other"):
        found.check_device()
    replace(found, execution={"any_device": True}).check_device()


# What a file may decide


def crafted(root: Path, change: Any) -> Sweep:
    """A sweep whose file somebody else has changed."""
    content = json.loads((root / PLAN).read_text())
    content.pop("sha256", None)
    change(content)
    (root / PLAN).write_text(json.dumps(content))
    return sweep.needed(root)


EVIL = "evil.py:RECIPE"
CODE: list[Any] = [
    lambda c: c["cells"][0]["arguments"].update(recipe=EVIL),
    lambda c: c["cells"][0]["arguments"].update(recipe="ppo+evil.py:Net"),
    lambda c: c["cells"][0]["arguments"].update(env="evil.py:Env[gravity=1]"),
    lambda c: c["cells"][0]["arguments"].update(recipe="./e+vil.py:RECIPE"),
    lambda c: c["cells"][0]["arguments"].update(recipe="ppo+ evil.py "),
    lambda c: c["cells"][0]["arguments"].update(env="a[b/evil.py:Env[x=y:z]"),
    lambda c: c["cells"][0]["arguments"].update(sampling_method="os.path:join"),
    lambda c: c["execution"].update(storage="postgresql://me@elsewhere:5432/trials"),
    lambda c: c["cells"][0].update(scheduler=["evil.py:Schedule", {}]),
    lambda c: c["slurm"].update(setup="touch stolen"),
    lambda c: c["slurm"].update(sbatch_arg=["--wrap=evil"]),
    lambda c: c["slurm"].update(container="evil.sif"),
]


@pytest.mark.parametrize("change", CODE)
@pytest.mark.parametrize("command", ["unit run", "submit"])
def test_a_sweep_of_somebody_else_runs_no_code(spec, tmp_path, monkeypatch, cluster, capsys, change, command):
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('stolen', 'w')")
    found = planned(spec, tmp_path / "r")
    trust.remember(found)
    trust.check(found)
    changed = crafted(found.root, change)
    assert trust.named(changed)
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), str(found.root)])
    assert ended.value.code == 2
    assert "add --trust" in capsys.readouterr().err
    assert not (tmp_path / "stolen").exists()
    assert not list(cluster.iterdir())
    trust.check(changed, trusted=True)
    trust.check(changed)


def test_a_sweep_of_registered_things_needs_no_trust(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", "")
    found = planned(spec, tmp_path)
    assert trust.named(found) == []
    trust.remember(found)
    trust.check(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["units"][0].update(name="../../elsewhere"),
        lambda c: c["units"][0].update(name="/elsewhere"),
        lambda c: c["cells"][0].update(path="../elsewhere"),
    ],
)
def test_a_sweep_has_no_folder_outside_of_its_own(spec, tmp_path, change):
    planned(spec, tmp_path)
    with pytest.raises(Damaged, match="is not a folder in it"):
        crafted(tmp_path, change)


def test_the_headline_metric_is_that_of_all_units():
    how = Spread(tasks=2).plan(Running(metric="auc"))["execution"]
    assert Execution(**how).metric == "auc"


# Slurm


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("30", 1800),
        ("2:30", 150),
        ("8:00:00", 28_800),
        ("1-0", 86_400),
        ("1-2:3", 93_780),
        ("1-2:3:4", 93_784),
    ],
)
def test_time_limits_are_those_of_sbatch(limit, seconds):
    assert slurm.seconds(limit) == seconds


@pytest.mark.parametrize("limit", ["", "8h", "1:2:3:4", "-1", "x-1:0", "0:30"])
def test_other_time_limits_are_refused(limit):
    with pytest.raises(ValueError, match="--time"):
        Options(time=limit)


def test_the_script_asks_for_what_was_asked_for_and_is_a_shell_script(tmp_path):
    options = Options(
        "8:00:00",
        "gpu",
        "physics",
        1,
        8,
        "32G",
        "a100",
        16,
        "hyper lax.sif",
        ("/a:/b",),
        "module load x",
        ("--qos=low",),
    )
    text = slurm.script(Path("/data/my sweep"), options, "hlx-x", Path("/data/my sweep/u.txt"), 5)
    for line in (
        "--array=0-4%16",
        "--time=8:00:00",
        "--partition=gpu",
        "--account=physics",
        "--gres=gpu:1",
        "--cpus-per-task=8",
        "--mem=32G",
        "--constraint=a100",
        "--signal=B:TERM@180",
        "--open-mode=append",
        "--requeue",
        "--qos=low",
    ):
        assert re.search(rf"^#SBATCH .*{re.escape(line)}", text, re.MULTILINE), line
    assert "apptainer exec --nv '--bind=/data/my sweep'" in text
    assert "--bind=/a:/b" in text
    assert "'hyper lax.sif' hyperlax unit run '/data/my sweep' \"$unit\" --trust" in text
    assert "#SBATCH --output='/data/my sweep/logs/%A_%a.out'" in text
    assert "\nmodule load x\n" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    plain = slurm.script(Path("/s"), Options("10"), "n", Path("/u"), 1)
    assert "apptainer" not in plain
    assert "None" not in plain
    assert "--signal=TERM@150" in plain
    assert "srun" in plain
    assert "srun" not in text.replace("SRUN", "")


@pytest.mark.parametrize(
    ("code", "requeued", "status"),
    [(0, False, 0), (75, True, 75), (143, True, 143), (1, False, 1), (76, False, 76)],
)
def test_a_task_is_queued_again_if_it_was_stopped_and_ends_as_its_unit_does(
    spec, tmp_path, cluster, code, requeued, status
):
    found = planned(spec, tmp_path / "r")
    submitting.submit(found)
    script = next((found.root / "submissions").glob("*/job-0.sh"))
    text = script.read_text().replace(f"{sys.executable} -m hyperlax", f"bash -c 'echo $4; exit {code}' -")
    ours = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "1", "SLURM_RESTART_COUNT": "3"}
    done = subprocess.run(
        ["bash", "-c", text.replace("sleep 60", "true")],
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert done.stdout.strip() == found.units[2].name
    assert (cluster / "requeued").exists() == requeued


@pytest.mark.parametrize(
    ("leaves", "requeued", "status"),
    [("exit 75", True, 75), ("exit 0", False, 0), ("kill -BUS $$", True, 135)],
)
def test_the_script_of_a_container_passes_its_warning_on(
    spec, tmp_path, cluster, monkeypatch, leaves, requeued, status
):
    """To the container alone, which takes its time to save; the script ends with its exit code."""
    begun = tmp_path / "begun"
    fake = cluster.parent / "bin" / "apptainer"
    saves = f"trap 'sleep 0.3; {leaves}' TERM; touch {begun}; while true; do sleep 0.1; done"
    fake.write_text(f"#!/bin/bash\n{saves}\n")
    fake.chmod(0o755)
    found = planned(spec, tmp_path / "r", slurm={**LIMIT, "container": "image.sif"})
    submitting.submit(found)
    text = next((found.root / "submissions").glob("*/job-0.sh")).read_text().replace("sleep 60", "true")
    ours = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "1"}
    script = subprocess.Popen(["bash", "-c", text], env={**os.environ, **ours})
    while not begun.exists():
        time.sleep(0.05)
    script.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    script.send_signal(signal.SIGTERM)  # one that is sent to all its processes later
    assert script.wait(30) == status
    assert (cluster / "requeued").exists() == requeued


def test_a_limit_too_short_to_start_in_ends_the_unit_with_a_reason(spec, tmp_path, cluster):
    """Every start is stopped before a process has looked at the unit; the limit can be raised afterwards."""
    found = planned(spec, tmp_path / "r")
    unit = found.units[2]
    submitting.submit(found)
    text = next((found.root / "submissions").glob("*/job-0.sh")).read_text()
    text = text.replace(f"{sys.executable} -m hyperlax", "bash -c 'exit 75' -").replace("sleep 60", "true")
    ours = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "1", "SLURM_JOB_ID": "3"}

    def start() -> int:
        return subprocess.run(
            ["bash", "-c", text], env={**os.environ, **ours}, capture_output=True
        ).returncode

    assert [start() for _ in range(slurm.MOST_TRIES + 1)] == [75] * slurm.MOST_TRIES + [1]
    assert len((cluster / "requeued").read_text().splitlines()) == slurm.MOST_TRIES
    set_task(cluster, "1", 2, None)
    seen = state.look(found)
    assert (seen.units[2].state, seen.exit_code) == ("failed", state.SOME_FAILED)
    assert "time limit is too short" in seen.units[2].why
    assert submitting.submit(found).jobs == {}
    (sent,) = submitting.submit(found, retry_failed=True, changes={"time": "2:00:00"}).jobs.values()
    assert sent == [unit.name]
    assert "--time=2:00:00" in sorted((found.root / "submissions").glob("*/job-0.sh"))[-1].read_text()
    assert start() == 75
    assert not records.stuck(found, unit, "3")
    assert [start() for _ in range(slurm.MOST_TRIES)] == [75] * slurm.MOST_TRIES


@pytest.mark.parametrize(("limit", "sent"), [(7, [7]), (5, [3, 1, 1]), (1, [1]), (0, [])])
def test_a_queue_with_less_room_than_an_array_gets_what_fits(
    spec, tmp_path, cluster, monkeypatch, capsys, limit, sent
):
    monkeypatch.setenv("FAKE_LIMIT", str(limit))
    found = planned(spec, tmp_path / "r", wanted=7)
    with pytest.raises(SystemExit) as ended:
        main(["submit", str(found.root)])
    assert ended.value.code == (3 if sum(sent) < 7 else 0)
    said = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"job \d+: (\d+) units?", said)] == sent
    if sum(sent) < 7:
        assert f"{7 - sum(sent)} units are left, the queue takes no more: sbatch says" in said
        assert "AssocMaxSubmitJobLimit" in said
        assert f"hyperlax submit {found.root}" in said
    seen = state.look(found)
    assert sum(bool(u.by) for u in seen.units) == sum(sent)
    monkeypatch.delenv("FAKE_LIMIT")
    again = submitting.submit(found)
    assert sum(map(len, again.jobs.values())) == 7 - sum(sent)
    assert all(u.by for u in state.look(found).units)


POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, "
    "user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("said", "full"),
    [
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", True),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", True),
        (POLICY, True),
        ("sbatch: error: Batch job submission failed: Invalid job array specification", True),
        ("sbatch: error: Batch job submission failed: Resource temporarily unavailable", True),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}", False),
        (f"sbatch: error: AssocMaxCpuPerJobLimit\n{POLICY}", False),
        ("sbatch: error: invalid partition specified: gpu", False),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid", False),
    ],
)
def test_a_full_queue_is_told_from_a_task_that_asks_for_too_much(said, full):
    assert slurm.Refused(f"sbatch says: {said}").full == full


def test_nothing_is_sent_twice(spec, tmp_path, cluster):
    found = planned(spec, tmp_path / "r")
    (sent,) = submitting.submit(found).jobs.values()
    assert sent == [unit.name for unit in found.units]
    assert submitting.submit(found).jobs == {}
    set_task(cluster, "1", 1, None)  # cancelled
    records.note_done(found, found.units[2], {"env_steps": 5, "lanes": 2, "failed_lanes": 0})
    set_task(cluster, "1", 2, None)
    records.note_failed(found, found.units[3], "ValueError: no")
    set_task(cluster, "1", 3, None)
    assert submitting.submit(found).jobs == {"2": [found.units[1].name]}
    assert submitting.submit(found, retry_failed=True).jobs == {"3": [found.units[3].name]}
    assert set(submitting.live(found, slurm.queue() or [])) == {found.units[i].name for i in (0, 1, 3)}


@pytest.mark.parametrize("merged", [False, True])
def test_a_unit_that_is_gone_has_failed_unless_another_process_has_trained_it(
    spec, tmp_path, monkeypatch, merged
):
    """Whoever merges the units of a sweep removes their folders, in which a second process may be writing."""
    found = planned(spec, tmp_path / "r")
    unit = found.units[0]

    def removed(*_: Any) -> None:
        if merged:
            records.note_done(found, unit, {"env_steps": 5, "lanes": 2, "failed_lanes": 0})
        raise FileNotFoundError("was removed or moved while the experiment ran")

    worker = work.Worker(found, lambda _: Display())
    monkeypatch.setattr(worker, "_train", removed)
    if merged:
        with pytest.raises(Superseded, match=f"another process has trained {unit.name} to its end"):
            worker.run(unit.name)
        assert records.failure(found, unit) is None
    else:
        assert worker.run(unit.name) == work.FAILED
        assert "was removed" in str(records.failure(found, unit))


def test_a_submission_that_was_killed_is_no_obstacle(spec, tmp_path, cluster):
    found = planned(spec, tmp_path / "r")
    dead = subprocess.Popen(["true"])
    dead.wait()
    folder = submitting._begin(found)
    about = json.loads((folder / submitting.BEGUN).read_text())
    about = {k: v for k, v in about.items() if k != "sha256"} | {"pid": dead.pid}
    (folder / submitting.BEGUN).write_text(json.dumps(about))
    assert len(submitting.submit(found).jobs) == 1


def test_many_units_become_several_arrays(spec, tmp_path, cluster, monkeypatch):
    monkeypatch.setenv("FAKE_ARRAY", "4")
    found = planned(spec, tmp_path / "r", wanted=7)
    assert [len(names) for names in submitting.submit(found).jobs.values()] == [3, 3, 1]
    assert states(found) == ["waiting"] * 7


def test_slurm_that_refuses_is_quoted_and_asked_again_later(spec, tmp_path, cluster):
    found = planned(spec, tmp_path / "r")
    (cluster / "refuses").touch()
    with pytest.raises(ValueError, match="invalid partition specified"):
        submitting.submit(found)
    (cluster / "refuses").unlink()
    assert len(submitting.submit(found).jobs) == 1


def test_without_slurm_nothing_is_sent_or_cancelled(spec, tmp_path, monkeypatch, capsys):
    found = planned(spec, tmp_path / "r")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"squeue does not answer .log in to a node of the cluster"):
        submitting.submit(found)
    with pytest.raises(SystemExit) as ended:
        main(["cancel", str(found.root)])
    assert ended.value.code == 2
    assert "squeue does not answer (log in to a node of the cluster" in capsys.readouterr().err.replace(
        "\n", " "
    )
    with pytest.raises(ValueError, match="was not planned for Slurm"):
        submitting.submit(replace(found, slurm=None))


# Status


def test_every_state_is_told_apart(spec, tmp_path, cluster):
    found = planned(spec, tmp_path / "r", wanted=7)
    submitting.submit(found)
    done, failed, running, lost, fresh, waiting, broken = found.units
    records.note_done(found, done, {"env_steps": done.env_steps, "lanes": 2, "failed_lanes": 0})
    records.note_done(found, broken, {"env_steps": 3, "lanes": 2, "failed_lanes": 1})
    records.note_failed(found, failed, "RuntimeError: why")
    for index in (0, 1, 3, 4, 6):
        set_task(cluster, "1", index, None)
    set_task(cluster, "1", 2, "RUNNING")
    keeper = folders.new(found.folder(lost))
    folders.write(keeper, 1)
    claim = keeper.claim
    assert claim is not None
    claim.note(pid=2**22 + 1)
    seen = state.look(found)
    assert {u.unit: u.state for u in seen.units} == {
        done: "done",
        failed: "failed",
        running: "running",
        lost: "lost",
        fresh: "waiting",
        waiting: "waiting",
        broken: "failed",
    }
    assert seen.exit_code == state.SOME_FAILED
    (row,) = seen.rows()
    assert [row[name] for name in state.STATES] == [1, 1, 2, 1, 2]
    assert next(u.env_steps for u in seen.units if u.unit == lost) == 1
    assert f"hyperlax submit {found.root}" in seen.next_command()


def test_a_task_that_slurm_holds_is_named_with_what_releases_it(spec, tmp_path, cluster):
    """A node that was lost and came back could not start it: it would wait for good."""
    found = planned(spec, tmp_path / "r")
    submitting.submit(found)
    set_task(cluster, "1", 2, "HELD")
    seen = state.look(found)
    assert [u.state for u in seen.units] == ["waiting"] * 4
    assert seen.units[2].by == "1_2 held"
    assert seen.next_command() == "scontrol release 1_2"
    assert submitting.submit(found).jobs == {}


def test_a_process_of_this_machine_needs_no_queue(spec, tmp_path, monkeypatch):
    found = planned(spec, tmp_path / "r", slurm=None)
    keeper = folders.new(found.folder(found.units[0]))
    folders.write(keeper, 1)
    assert states(found)[:2] == ["running", "waiting"]
    other = keeper.claim
    assert other is not None
    other.note(host="elsewhere")
    first = state.look(found)
    assert first.units[0].state == "lost"


def test_a_job_of_something_else_is_not_cancelled_whatever_the_folder_says(spec, tmp_path, cluster, capsys):
    """The folder of a sweep may be somebody else's, and holds numbers of jobs."""
    found, other = planned(spec, tmp_path / "r"), planned(spec, tmp_path / "other")
    submitting.submit(found)
    submitting.submit(other)
    (sent,) = (tmp_path / "r").rglob(submitting.SENT)
    write_json(sent, {"jobs": {number: [u.name for u in found.units] for number in ("1", "2", "-u")}})
    with pytest.raises(SystemExit):
        main(["cancel", str(found.root)])
    shown = capsys.readouterr()
    assert "cancelled 1 job" in shown.out
    assert f"job 2 is left alone: it runs {other.root}/" in shown.err.replace("\n", "")
    assert [bool(json.loads((cluster / f"{n}.json").read_text())["tasks"]) for n in (1, 2)] == [False, True]
    (cluster / "1.json").rename(cluster / "1")
    with pytest.raises(SystemExit):
        main(["cancel", str(found.root)])
    assert "nothing is in the queue" in capsys.readouterr().out


def test_the_states_are_shown_and_the_exit_code_tells(spec, tmp_path, cluster, capsys):
    found = planned(spec, tmp_path / "r")
    with pytest.raises(SystemExit) as ended:
        main(["status", str(found.root)])
    assert ended.value.code == state.WORK_LEFT
    assert f"next: hyperlax submit {found.root}" in capsys.readouterr().out.replace("\n", " ")
    with pytest.raises(SystemExit):
        main(["submit", str(found.root)])
    assert "job 1: 4 units" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["cancel", str(found.root)])
    assert "cancelled 1 job" in capsys.readouterr().out
    for unit in found.units:
        records.note_done(found, unit, {"env_steps": unit.env_steps, "lanes": 2, "failed_lanes": 0})
    with pytest.raises(SystemExit) as ended:
        main(["status", str(found.root), "--json"])
    assert ended.value.code == state.ALL_DONE
    told = json.loads(capsys.readouterr().out)
    assert {u["state"] for u in told["units"]} == {"done"}
    assert told["next"] == f"hyperlax merge {found.root}"


def test_starts_without_progress_end_it(spec, tmp_path):
    found = planned(spec, tmp_path)
    unit = found.units[0]
    assert [records.stuck(found, unit, None) for _ in range(4)] == [False] * 4
    assert [records.stuck(found, unit, "7") for _ in range(3)] == [False, False, True]
    assert not records.stuck(found, unit, "8")
    keeper = folders.new(found.folder(unit))
    folders.write(keeper, 1)
    assert not records.stuck(found, unit, "8")


def test_the_tables_of_units_are_not_experiments_of_their_own(spec, tmp_path):
    found = planned(spec, tmp_path)
    folders.trained(found.folder(found.units[0]))
    with pytest.raises(ValueError, match="no experiment found"):
        sweeps.store.find(tmp_path)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--executor slurm", "needs --time"),
        ("--executor slurm --time 1h", "--time 1h"),
        ("--executor slurm --time 60 --tasks 2", "--tasks is for"),
        ("--partition gpu", "is for --executor slurm"),
        ("--units 3", "--units is for"),
    ],
)
def test_half_a_request_is_refused_before_anything_is_made(flags, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("sweep-hp-samples", "run-benchmark"):
        with pytest.raises(SystemExit) as ended:
            main([command, *flags.split(), "--run-length-modifier", "quick"])
        assert ended.value.code == 2
        assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_reason_of_a_failure_cannot_steer_the_terminal(spec, tmp_path, capsys):
    found = planned(spec, tmp_path, slurm=None)
    records.note_failed(found, found.units[0], "x\x1b]0;owned\x07\x1b[2J\nnext: rm")
    for words in (["status", str(tmp_path)], ["status", str(tmp_path), "--units"]):
        with pytest.raises(SystemExit):
            main(words)
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert r"failed: x\x1b]0;owned\x07\x1b[2J\nnext: rm" in out
