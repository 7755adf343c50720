"""Counts, sizes and seeds: exact integers, stated ranges, and what cannot be is refused with numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import jax
import jax.random as jr
import numpy as np
import pytest

from hyperlax import searches, sweeps
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.machine import check_settings
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.settings import Settings, run_length
from hyperlax.hyperparams import Choice, Joint, LogUniform, Uniform
from hyperlax.hyperparams.samplers import METHODS, design
from hyperlax.lanes.keys import seed_words, seeded
from hyperlax.networks.pqc import PQCHyperparams
from hyperlax.registry import boolean, integer, real
from hyperlax.registry.limits import LARGEST_LEAF, LIMITS, within
from hyperlax.schedules import PBT
from hyperlax.storage.memory import Bound, host_memory

CARTPOLE = "gymnax.cartpole"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (5, 5),
        (5.0, 5),
        ("1e5", 100_000),
        ("100_000", 100_000),
        (" 7 ", 7),
        ("-3", -3),
        ("2.50e2", 250),
        ("9007199254740993", 2**53 + 1),
        (np.int64(2**62 + 1), 2**62 + 1),
        (np.float32(3), 3),
        (np.array(4), 4),
        (2**200, 2**200),
    ],
)
def test_integers_are_exact(given, expected):
    found = integer("n", given)
    assert found == expected
    assert type(found) is int


NO_INTEGERS = (2.5, "2.5", True, np.bool_(True), "True", "", "ten", "nan", "inf", np.nan, np.inf, None, [3])


@pytest.mark.parametrize("given", [*NO_INTEGERS, "1e999999999", "1,000", "0x10", "1" * 5000, 1j])
def test_what_is_no_integer_is_refused_on_one_line(given):
    with pytest.raises(
        ValueError, match=r"^n (needs an integer|is an integer beyond all bounds), got "
    ) as found:
        integer("n", given)
    assert len(str(found.value)) < 120


def test_flags_and_numbers_of_numpy_are_those_of_python():
    assert boolean("x", np.bool_(True)) is True
    assert boolean("x", "0") is False
    assert real("x", np.float32(0.5)) == 0.5
    for wrong in ("maybe", 2, None, [True], "nan"):
        with pytest.raises(ValueError, match="x needs true or false"):
            boolean("x", wrong)
    for wrong in ("nan", True, None, [1.0], "1,5"):
        with pytest.raises(ValueError, match="x needs a number"):
            real("x", wrong)


@pytest.mark.parametrize("name", LIMITS)
def test_both_ends_of_every_range_are_in_it(name):
    least, most = LIMITS[name].least, LIMITS[name].most
    assert (within(name, least), within(name, str(most))) == (least, most)
    with pytest.raises(ValueError, match=f"^flag must be at least {least:,}, got {least - 1}$"):
        within(name, least - 1, "flag")
    with pytest.raises(ValueError, match=f"^flag must be at most {most:,}.* got 1e64$"):
        within(name, "1e64", "flag")


@pytest.mark.parametrize(
    "refused",
    [
        lambda: Settings(seeds=True),
        lambda: Settings(total_timesteps=2**31),
        lambda: Settings().updated({"evaluations": 2.5}),
        lambda: Settings().updated({"eval_shots": "1e20"}),
        lambda: Settings().updated(run_length("3e9")),
        lambda: Execution(lanes_at_once=0),
        lambda: Execution(checkpoint_seconds=float("nan")),
        lambda: PBT(interval=0),
        lambda: PBT(factor=float("inf")),
        lambda: searches.Search(n_trials=10**9),
        lambda: design({"gamma": Uniform(0.9, 0.99)}, 10**6, "random", 0),
        lambda: Uniform(0.0, float("inf")),
        lambda: LogUniform(float("nan"), 1.0),
    ],
)
def test_the_same_ranges_hold_in_python(refused):
    with pytest.raises(ValueError, match=r"must be|needs"):
        refused()


@pytest.mark.parametrize("call", [sweeps.prepare, searches.prepare])
@pytest.mark.parametrize("wrong", [{"seeds": True}, {"seed": -1}, {"seed": 2**63}, {"total_timesteps": 3e9}])
def test_entry_points_refuse_the_same(call, wrong):
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(wrong))} "):
        call("ppo_mlp", CARTPOLE, **wrong)


def test_values_of_numpy_can_be_chosen_from_and_described():
    spaces = [
        Choice(*np.array([4, 8])),
        Choice(np.bool_(True), np.bool_(False)),
        Joint(["a", "b"], tuple(np.array([1, 2])), (np.int64(3), np.float32(0.5))),
        Uniform(np.float64(0.1), np.float64(2)),
    ]
    for space in spaces:
        assert json.loads(json.dumps(space.describe())) == space.describe()
        space.distribution()
    recipe = Recipe(
        "ppo", "mlp", {"num_envs": Choice(*np.array([4, 8])), "actor.layer_norm": spaces[1]}, only=True
    )
    assert sweeps.prepare(recipe, CARTPOLE, num_samples=2).rows[0].keys() >= {"num_envs"}
    assert searches.prepare(recipe, CARTPOLE, n_trials=2).identity()


def test_seeds_below_32_bits_have_the_keys_of_jax():
    for seed in (0, 1, 42, 2**31 - 1, 2**31, 2**32 - 1):
        assert (jr.key_data(seeded(seed)) == jr.key_data(jr.key(np.uint32(seed)))).all()
        assert seed_words(seed) == (seed,)
    assert (jr.key_data(seeded(42)) == jr.key_data(jr.key(42))).all()


def test_seeds_of_63_bits_differ_and_have_the_keys_of_jax_in_64_bits():
    seeds = [42, 42 + 2**32, 42 + 2**33, 2**32, 2**62, 2**63 - 1, 0, 1]
    keys = {tuple(np.asarray(jr.key_data(seeded(s))).tolist()) for s in seeds}
    assert len(keys) == len({seed_words(s) for s in seeds}) == len(seeds)
    with jax.enable_x64(True):
        wide = [np.asarray(jr.key_data(jr.key(s))) for s in seeds]
    assert all((np.asarray(jr.key_data(seeded(s))) == w).all() for s, w in zip(seeds, wide, strict=True))


@pytest.mark.parametrize("method", sorted({*METHODS} - {"grid"}))
def test_samplers_tell_seeds_of_63_bits_apart(method):
    space = {"gamma": Uniform(0.9, 0.99), "width": Choice(1, 2)}
    drawn = [str(design(space, 4, method, seed)) for seed in (42, 42 + 2**32, 2**63 - 1)]
    assert len(set(drawn)) == 3
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match="seed must be at"):
            design(space, 4, method, seed)


IMPOSSIBLE = [
    ("ppo_mlp", {"actor.width": 10**6}, r"at least 2\d\.\d TiB of memory \(weights .* lower the sizes"),
    ("ppo_mlp", {"num_envs": 2 * 10**9}, "at most 2,147,483,647 can be counted: lower num_envs"),
    ("ppo_mlp", {"rollout_length": 10**9}, "at most 2,147,483,647 can be counted"),
    ("ppo_mlp", {"actor.depth": 10**6}, "actor.depth must be at most 1,000"),
    ("ppo_mlp", {"epochs": 10**9}, "gradient steps are .* can be counted: lower epochs"),
    ("ppo_mlp", {"evaluations": 10**9}, "evaluations must be at most 100,000"),
    ("ppo_mlp", {"eval_episodes": 10**8}, "eval_episodes must be at most 1,000,000"),
    ("ppo_mlp", {"seeds": 10**7}, "seeds must be at most 100,000"),
    (
        "ppo_mlp",
        {"num_envs": 10**9, "rollout_length": 1, "total_timesteps": 10**9},
        r"acting .* lower num_envs",
    ),
    ("ppo_drpqc", {"actor.layers": 10**9}, "actor.layers must be at most 100,000"),
    ("ppo_drpqc", {"actor.stacks": 20}, "40 qubits"),
    ("sac_mlp", {"batch_size": 10**9}, "batch_size must be at most 16,777,216"),
    ("sac_mlp", {"buffer_size": 10**12}, "buffer_size must be at most 2,147,483,647"),
    ("sac_mlp", {"buffer_size": 2 * 10**9}, "the replay buffer .* lower buffer_size"),
    ("sac_mlp", {"warmup_rollout_length": 2 * 10**9}, "the warm-up has .* lower warmup_rollout_length"),
    ("sac_mlp", {"update_to_data": 1000, "total_timesteps": 2 * 10**6, "batch_size": 2**24}, r"\d+ years"),
]


@pytest.fixture
def small(monkeypatch):
    """A machine of 16 GiB, whatever this one has."""
    from hyperlax.experiments import feasible

    def bound():
        return Bound(2**34, 2**33)

    monkeypatch.setattr(feasible, "host_memory", bound)
    monkeypatch.setattr(feasible, "device_memory", lambda: 2**34)


@pytest.mark.parametrize(("recipe", "set_", "message"), IMPOSSIBLE)
def test_sizes_that_cannot_be_are_refused_with_numbers(small, recipe, set_, message):
    with pytest.raises(ValueError, match=message) as found:
        sweeps.prepare(recipe, CARTPOLE, set=set_)
    assert "\n" not in str(found.value)


def test_sizes_are_checked_wherever_they_come_from(small, tmp_path):
    (tmp_path / "s.csv").write_text("num_envs,actor.width\n8,16\n8,10000000\n")
    with pytest.raises(ValueError, match=r"sample 1 of ppo_mlp .* of memory"):
        sweeps.prepare("ppo_mlp", CARTPOLE, samples=tmp_path / "s.csv")
    recipe = Recipe("ppo", "mlp", {"actor.width": Choice(10**6), "actor.depth": 3}, only=True)
    with pytest.raises(ValueError, match="of memory"):
        sweeps.prepare(recipe, CARTPOLE, num_samples=2)
    with pytest.raises(ValueError, match="no sample of the space fits this machine"):
        searches.prepare(recipe, CARTPOLE, n_trials=2)
    with pytest.raises(ValueError, match="100 samples × 100,000 seeds are 10,000,000 lanes"):
        sweeps.prepare("ppo_mlp", CARTPOLE, num_samples=100, seeds=100_000)


def test_what_is_large_and_possible_is_accepted_and_its_time_is_said(small):
    assert PQCHyperparams().refusal(60, 2**38) is None  # 20 qubits
    assert not sweeps.prepare("ppo_mlp", CARTPOLE, run_length_modifier="long").notes
    spec = sweeps.prepare("ppo_mlp", CARTPOLE, run_length_modifier="long", num_samples=64, seeds=1000)
    assert any("training is predicted to take about" in note for note in spec.notes)
    assert Settings(total_timesteps=LARGEST_LEAF).total_timesteps == LARGEST_LEAF


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        (partial(jax.enable_x64, True), "JAX_ENABLE_X64"),
        (partial(jax.default_prng_impl, "rbg"), "JAX_DEFAULT_PRNG_IMPL"),
        (partial(jax.threefry_partitionable, False), "JAX_THREEFRY_PARTITIONABLE"),
        (partial(jax.debug_nans, True), "JAX_DEBUG_NANS"),
        (partial(jax.disable_jit, True), "JAX_DISABLE_JIT"),
        (partial(jax.transfer_guard_host_to_device, "disallow"), "JAX_TRANSFER_GUARD_HOST_TO_DEVICE"),
    ],
)
def test_settings_of_jax_that_break_programs_or_change_random_numbers_are_refused_in_one_line(setting, name):
    with setting(), pytest.raises(ValueError, match=f"^[^\n]*unset {name}, or set {name.lower()} to"):
        sweeps.prepare("ppo_mlp", CARTPOLE)


def test_settings_of_jax_that_only_log_are_no_hindrance():
    with jax.transfer_guard_device_to_host("log"):
        check_settings()


GROUP_1 = "4:memory:/docker/abc\n"
GROUP_2 = "0::/user.slice/job\n"
MOUNT_1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
MOUNT_2 = "41 31 0:38 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
UNLIMITED = 9223372036854771712


@pytest.mark.parametrize(
    ("group", "mount", "files", "expected"),
    [
        (GROUP_1, MOUNT_1, {"memory/docker/abc/memory.limit_in_bytes": 2**30}, 2**30),
        (GROUP_1, MOUNT_1, {"memory/memory.limit_in_bytes": 2**29}, 2**29),  # inside of the container
        (
            GROUP_1,
            MOUNT_1,
            {
                "memory/docker/abc/memory.limit_in_bytes": UNLIMITED,
                "memory/docker/memory.limit_in_bytes": 2**28,
            },
            2**28,
        ),
        (GROUP_2, MOUNT_2, {"user.slice/job/memory.max": "max", "user.slice/memory.max": 2**27}, 2**27),
        (GROUP_2, MOUNT_2, {"user.slice/job/memory.max": 2**26}, 2**26),
        (GROUP_2, MOUNT_1, {"memory/memory.limit_in_bytes": 2**26}, None),
        ("", "", {}, None),
    ],
)
def test_the_smallest_limit_of_a_container_counts(tmp_path, group, mount, files, expected):
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(group)
    (proc / "mountinfo").write_text(mount)
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    machine = host_memory(tmp_path / "none", tmp_path)
    found = host_memory(proc, tmp_path)
    assert found.total == (machine.total if expected is None else expected)


def test_cache_that_can_be_given_back_counts_as_free(tmp_path):
    folder = tmp_path / "sys/fs/cgroup/user.slice/job"
    folder.mkdir(parents=True)
    (tmp_path / "cgroup").write_text(GROUP_2)
    (tmp_path / "mountinfo").write_text(MOUNT_2)
    (folder / "memory.max").write_text("1000000\n")
    (folder / "memory.current").write_text("900000\n")
    (folder / "memory.stat").write_text("anon 5\ninactive_file 300000\n")
    assert host_memory(tmp_path, tmp_path) == (1_000_000, 400_000)


@pytest.mark.slow
def test_the_limit_of_the_address_space_counts():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36));"
        "from hyperlax.storage.memory import Bound, host_memory; print(host_memory().total <= 2**36)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr
