"""Several processes on one GPU: their memory, and the service that lets them run at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from hyperlax import sweeps
from hyperlax.cluster import local, sharing, splitting
from hyperlax.experiments.execution import Execution
from hyperlax.programs.plan import Machine, Program
from hyperlax.run import compiling
from hyperlax.run.display import Display

FAKE = """#!{python}
import os, sys
folder = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
said = "" if sys.argv[1:] else sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(f"{{' '.join(sys.argv[1:])}}{{said}} {{os.path.isdir(folder)}}\\n".replace("\\n ", " "))
if {broken!r} in ("always", said.strip()):
    sys.exit("Cannot find MPS control daemon process")
"""


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str | None = None) -> Path:
    """A made-up control program of MPS, first on the path; returns the file of what it was told.

    It fails if it is told what is `broken`, or `always`.
    """
    log, program = tmp_path / "told", tmp_path / sharing.CONTROL
    program.write_text(FAKE.format(python=sys.executable, log=str(log), broken=broken))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(sharing.PIPES, raising=False)
    return log


def test_the_service_runs_while_processes_share_a_gpu(tmp_path, monkeypatch):
    log = installed(tmp_path, monkeypatch)
    with sharing.side_by_side(3) as found:
        assert Path(found[sharing.PIPES]).is_dir()
        assert log.read_text() == "-d True\n"
    assert log.read_text() == "-d True\nquit True\n"
    assert not Path(found[sharing.PIPES]).exists()


@pytest.mark.parametrize(
    ("given", "seen"), [("3", None), ("2, 3", None), ("GPU-8932f937", "GPU-8932f937"), ("MIG-1", "MIG-1")]
)
def test_the_service_does_not_count_the_gpus_anew(tmp_path, monkeypatch, given, seen):
    """Its processes ask for them by the numbers that they have without it."""
    installed(tmp_path, monkeypatch)
    environments: list[Any] = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **more: environments.append(more["env"]) or run(*a, **more)
    )
    with sharing.side_by_side(2, {**os.environ, sharing.VISIBLE: given}):
        assert environments[0].get(sharing.VISIBLE) == seen


def test_nothing_is_started_for_one_process_or_beside_a_service_that_runs(tmp_path, monkeypatch):
    log = installed(tmp_path, monkeypatch)
    with sharing.side_by_side(1) as found:
        assert found == {}
    with sharing.side_by_side(4, {**os.environ, sharing.PIPES: "/run/mps"}) as found:
        assert found == {}
    assert not log.exists()


def test_it_is_said_if_the_service_is_missing_or_does_not_start(tmp_path, monkeypatch, capsys):
    installed(tmp_path, monkeypatch, broken="always")
    with pytest.raises(ValueError, match="Cannot find MPS control daemon"), sharing.side_by_side(2):
        pass
    monkeypatch.setenv("PATH", "")
    with sharing.side_by_side(2) as found:
        assert found == {}
    assert "take turns" in capsys.readouterr().out
    assert sharing.processes_per_gpu(1, 16, {}) == 1


def silent(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Let the control program not answer when it is told what is `said`."""
    answered = subprocess.run

    def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        if more["input"] == said:
            raise subprocess.TimeoutExpired(command, more["timeout"])
        return answered(command, **more)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize("answers", [True, False])
def test_what_was_trained_counts_even_if_the_service_does_not_stop(tmp_path, monkeypatch, capsys, answers):
    installed(tmp_path, monkeypatch, broken="quit" if answers else None)
    if not answers:
        silent(monkeypatch, "quit\n")
    with sharing.side_by_side(2) as found:
        assert found
    why = "Cannot find MPS control daemon process" if answers else "it has not answered within 30 s"
    assert f"{sharing.CONTROL} does not stop: {why}" in capsys.readouterr().err
    with pytest.raises(ArithmeticError, match="of the training"), sharing.side_by_side(2):
        raise ArithmeticError("of the training")


def test_a_service_that_does_not_answer_has_not_started(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch)
    silent(monkeypatch, "")
    with pytest.raises(ValueError, match="does not start: it has not answered"), sharing.side_by_side(2):
        pass


@pytest.mark.parametrize(("gpus", "cores", "processes"), [(1, 16, 8), (2, 16, 4), (1, 2, 1), (8, 8, 1)])
def test_there_are_as_many_processes_as_cores_can_serve(gpus, cores, processes):
    assert sharing.processes_per_gpu(gpus, cores, {sharing.PIPES: "/run/mps"}) == processes


def test_processes_share_the_memory_of_a_gpu_unless_the_user_has_said_how():
    shares = [float(sharing.memory_of(n, {})[sharing.FRACTION]) * n for n in (2, 3, 7)]
    assert all(0.85 < share <= 0.91 for share in shares)
    assert sharing.memory_of(1, {}) == {}
    for said in (sharing.FRACTION, sharing.PREALLOCATE):
        assert sharing.memory_of(3, {said: "0.2"}) == {compiling.TOGETHER: "3"}


def test_a_process_that_has_too_little_memory_names_those_that_share_it(monkeypatch):
    """Shown for a program that needs 10 MB for one lane, of which 5 may be used."""
    spec = sweeps.prepare("ppo_mlp", "gymnax.cartpole", run_length_modifier="quick", num_samples=1)
    programs = sweeps.plan(spec.trees, spec.env, 10**6, 1, Machine.planned("cpu"))
    how = Execution(memory_limit=5 * 2**20)
    compiler = compiling.Compiler(spec, jax.devices()[:1], programs, how, Display())
    monkeypatch.setattr(compiler, "_compile", lambda *_: SimpleNamespace(bytes_per_lane=10 * 2**20))
    monkeypatch.delenv(compiling.TOGETHER, raising=False)
    with pytest.raises(MemoryError, match="one lane needs 10 MB, 5 MB may be used: lower num_envs"):
        compiler(0)
    for name, value in sharing.memory_of(3, {}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MemoryError, match="give fewer --tasks, of which 3 share this GPU, or lower num_envs"):
        compiler(0)


def test_processes_do_not_inherit_that_their_parent_takes_little(monkeypatch):
    monkeypatch.delenv(sharing.PREALLOCATE, raising=False)
    monkeypatch.setattr(sharing, "_said", set())
    sharing.take_little()
    assert os.environ[sharing.PREALLOCATE] == "false"
    assert sharing.PREALLOCATE not in sharing.of_user()
    monkeypatch.setattr(sharing, "_said", set())
    sharing.take_little()
    assert sharing.of_user()[sharing.PREALLOCATE] == "false", "the user's own word stays"


def test_processes_find_their_gpu_its_service_and_their_share_of_it(tmp_path, monkeypatch):
    """Five processes on two GPUs; each would begin with this environment."""
    installed(tmp_path, monkeypatch)
    for name in (sharing.FRACTION, sharing.PREALLOCATE, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    seen: dict[int, dict[str, str]] = {}

    class Noting(local.Workers):
        def _work(self, task: int) -> None:
            seen[task] = self._own(task)

    Noting(tmp_path, 5, 2).run([])
    assert [seen[task]["CUDA_VISIBLE_DEVICES"] for task in range(5)] == ["0", "1", "0", "1", "0"]
    assert {env[sharing.FRACTION] for env in seen.values()} == {"0.300"}
    assert len({env[sharing.PIPES] for env in seen.values()}) == 1


def test_a_program_for_an_accelerator_is_cut_only_if_that_is_wanted():
    """A part of its lanes would take as long as all of them."""
    given = {"recipe": "ppo_mlp", "env": "gymnax.cartpole", "run_length_modifier": "quick", "seeds": 2}
    spec = sweeps.prepare(**given, num_samples=4)
    machine = Machine.planned("gpu")
    programs = sweeps.plan(spec.trees, spec.env, 10**6, 2, machine)
    units = splitting.split(0, spec, programs, machine, seconds=1e-9)
    assert [unit.samples for unit in units] == [p.samples for p in programs]
    assert all(unit.seconds > 0 for unit in units)
    halves = splitting.split(0, spec, [replace(programs[0], samples=(0, 1, 2, 3))], machine, wanted=2)
    assert len(halves) == 2
    assert halves[0].seconds == halves[1].seconds


def test_programs_for_accelerators_are_compiled_several_at_a_time(monkeypatch):
    """By as many threads as the host has cores for; on a CPU, whose cores train, one by one."""
    program = Program((0,), {}, 1.0)
    lockstep = replace(program, accelerator=True)
    for cores, several in ((1, 1), (4, 2), (64, 8)):
        monkeypatch.setattr(compiling, "usable_cores", lambda n=cores: n)
        assert compiling.at_a_time([program, program]) == 1
        assert compiling.at_a_time([program, lockstep]) == several
