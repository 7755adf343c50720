"""How much memory a program may use on each of its devices, with devices and programs that are stand-ins."""

from __future__ import annotations

import pytest

from hyperlax import sweeps
from hyperlax.experiments import memory
from hyperlax.experiments.execution import Execution
from hyperlax.programs.compiled import Compiled
from hyperlax.programs.plan import Program
from hyperlax.run import compiling
from hyperlax.run.display import Display
from hyperlax.storage.memory import Bound

GB = 2**30


class Device:
    def __init__(self, platform: str, free: int):
        self.platform, self.free = platform, free

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": self.free}


@pytest.fixture
def compiler(monkeypatch):
    """A function that makes a compiler for programs of one lane of `needed` bytes, and more of `lanes`."""

    def make(platform: str, count: int, free: int, needed: int, lanes: int = 1, **how):
        monkeypatch.setattr(memory, "host_memory", lambda: Bound(free, free))
        spec = sweeps.prepare("ppo_mlp", "gymnax.cartpole", seeds=1)
        program = Program(tuple(range(lanes)), {}, 1.0, accelerator=platform != "cpu")
        devices = [Device(platform, free) for _ in range(count)]
        made = compiling.Compiler(spec, devices, [program] * 2, Execution(**how), Display())

        def compiled(program, devices, per_device):
            found = Compiled.__new__(Compiled)
            found.bytes_per_lane, found.slots = needed, per_device * len(devices)
            found.trace_seconds = found.compile_seconds = 0.0
            return found

        monkeypatch.setattr(made, "_compile", compiled)
        return made

    return make


def test_a_lane_that_runs_alone_may_use_what_all_cores_share(compiler):
    assert compiler("cpu", 64, 128 * GB, 3 * GB)(0).slots == 1


def test_fewer_lanes_at_a_time_have_more_of_the_memory_of_the_host(compiler):
    """Every program as many as fit, whatever was compiled before."""
    made = compiler("cpu", 64, 128 * GB, 10 * GB, lanes=64)
    assert [made(number).slots for number in (0, 1, 0)] == [8, 8, 8]
    with pytest.raises(MemoryError, match="one lane needs 204800 MB"):
        compiler("cpu", 64, 128 * GB, 200 * GB, lanes=64)(0)


def test_fewer_accelerators_have_no_more_memory_each(compiler):
    assert compiler("gpu", 8, 80 * GB, 30 * GB, lanes=64)(0).slots == 16
    with pytest.raises(MemoryError, match="one lane needs 102400 MB, 65536 MB may be used"):
        compiler("gpu", 8, 80 * GB, 100 * GB, lanes=64)(0)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_limit_of_the_user_holds_on_every_device(compiler, platform):
    made = compiler(platform, 8, 80 * GB, 3 * GB, lanes=64, memory_limit=2 * GB)
    for number in (0, 1):
        with pytest.raises(MemoryError, match="one lane needs 3072 MB, 2048 MB may be used"):
            made(number)
    assert compiler(platform, 8, GB, 2 * GB, lanes=8, memory_limit=2 * GB)(0).slots == 8
