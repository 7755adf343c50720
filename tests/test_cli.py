"""The command line: everything it accepts, everything it refuses, and a sweep from end to end."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest

import hyperlax
from hyperlax import sweeps
from hyperlax.commands import flags, training
from hyperlax.commands import main as cli
from hyperlax.hyperparams import values
from hyperlax.report import export
from hyperlax.run import compiling
from hyperlax.testing.schedules import SIZES

CACHE = str(Path(__file__).parents[1] / ".jax_cache")
QUICK = "--algo-and-network-config ppo_mlp_no_network_search --run-length-modifier quick --num-samples 2"
SMALL = {**SIZES, "actor.activation": "tanh", "critic.activation": "tanh", "eval_episodes": 2}
"""The sizes of the sweeps of `check_schedule`, whose program many tests share."""
SWEEP = (
    f"sweep-hp-samples {QUICK} {' '.join(f'--set {k}={v}' for k, v in SMALL.items())} "
    "--env-config gymnax.cartpole --total-timesteps 300 --output-root out"
)
FOLDER = Path("out") / "ppo_mlp_no_network_search" / "gymnax.cartpole"
TINY = """
from hyperlax import Choice, LogUniform, Recipe

RECIPES = {
    "tiny": Recipe(
        "ppo",
        "mlp",
        {
            "actor_lr": LogUniform(1e-4, 1e-2),
            "actor.activation": Choice("tanh", "relu"),
            "normalize_observations": Choice(True, False),
            **{f"{net}.width": 8 for net in ("actor", "critic")},
            "num_envs": 4,
            "rollout_length": Choice(8, 16),
            "num_minibatches": 2,
            "epochs": 1,
        },
        {"total_timesteps": 200, "seeds": 1, "evaluations": 2, "eval_episodes": 2},
        only=True,
    )
}
"""
"""A recipe file of a user's own. Fixed values and settings make it small, so its default run is short."""


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", CACHE)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(line: str) -> int:
    """The exit code of `hyperlax <line>`."""
    with patch.object(sys, "argv", ["hyperlax", *line.split()]), pytest.raises(SystemExit) as left:
        cli.main(line.split())
    code = left.value.code
    assert isinstance(code, int)
    return code


def words(text: str) -> str:
    """`text` without the frames and line breaks of a terminal."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


def plain() -> dict[str, str]:
    """The environment of a user: without the tests' runtime type checks, which import jax."""
    return {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}


@dataclasses.dataclass
class Finished:
    """A sweep that was run, in which folder, and what it said."""

    home: Path
    output: str

    @property
    def folder(self) -> Path:
        return self.home / FOLDER


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    """The quick start's sweep, smaller, run to its end."""
    home, output = tmp_path_factory.mktemp("finished"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setenv("HYPERLAX_CACHE_DIR", CACHE)
        patch.chdir(home)
        assert run(SWEEP) == 0
    return Finished(home, output.getvalue())


@pytest.fixture
def prepared(monkeypatch) -> list:
    """What would have been run: (experiment, execution) of every command, none of which trains."""
    seen = []
    monkeypatch.setattr(sweeps, "run", lambda spec, how, *_, **__: seen.append((spec, how)))
    monkeypatch.setattr(training, "conclude", lambda *_: 0)
    return seen


# Help and flags


def test_help_is_there_for_every_command_and_starts_no_jax():
    """`--help` answers before anything heavy is imported."""
    code = """
import sys
from hyperlax.commands.main import main
training = ["run-single-hp", "sweep-hp-samples", "optuna-hp-search", "run-benchmark"]
for command in ["", *training, "generate-hp-samples", "plot-benchmark", "export", "list"]:
    try:
        main([*command.split(), "--help"])
    except SystemExit as left:
        assert left.code == 0, left.code
heavy = {"jax", "numpy", "polars", "altair", "equinox", "gymnax", "scipy", "optuna"} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], env=plain(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: hyperlax") == 9
    assert "<algorithm>_<network>" in done.stdout
    assert "<output-root>/<recipe>/<environment>" in words(done.stdout)


def test_the_module_runs_as_a_program():
    """`python -m hyperlax` is `hyperlax`."""
    command = [sys.executable, "-m", "hyperlax", "--version"]
    done = subprocess.run(command, env=plain(), capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.strip() == hyperlax.__version__


def _boolean_flags() -> list[str]:
    common = [f.name for f in dataclasses.fields(flags.Common) if f.type == "bool"]
    own = [
        n
        for n, p in inspect.signature(training.sweep_hp_samples).parameters.items()
        if p.annotation == "bool"
    ]
    return [*common, *own]


def test_there_are_boolean_flags():
    assert {"resume", "save_logs", "sequential", "omit_ab"} <= set(_boolean_flags())


@pytest.mark.parametrize("flag", _boolean_flags())
@pytest.mark.parametrize(
    ("written", "expected"),
    [("--{}", True), ("--no-{}", False), ("--{} True", True), ("--{} False", False), ("--{}=true", True)],
)
def test_booleans_are_written_in_every_way(monkeypatch, flag, written, expected):
    """`--flag`, `--no-flag` and, as the original's users type it, `--flag True`."""
    seen = {}

    def train(command, common, design, sequential, scheduler, confirm, spread, dry_run):
        seen.update(dataclasses.asdict(common), **design, sequential=sequential, dry_run=dry_run)
        return 0

    monkeypatch.setattr(training, "train", train)
    assert (
        run("sweep-hp-samples --num-samples 3 " + written.format(flag.replace("_", "-")) + " --seed 5") == 0
    )
    assert seen[flag] is expected
    assert (seen["num_samples"], seen["seed"]) == (3, 5)


# What is refused

REFUSED = [
    ("run-single-hp --env-config gymnax.cartpol", 'did you mean "gymnax.cartpole"?.*hyperlax list'),
    ("run-single-hp --env-config gymnx.cartpole", 'did you mean "gymnax.cartpole"?'),
    ("run-single-hp --env-config my.module:Env", "cannot be imported: No module named 'my'"),
    ("run-single-hp --algo-and-network-config ppo_mpl", 'unknown recipe "ppo_mpl"; did you mean "ppo_mlp"?'),
    ("run-single-hp --algo-and-network-config mine.py:x", 'recipe "mine.py:x": mine.py does not exist'),
    ("generate-hp-samples --algo-and-network-config ppo_mpl", 'did you mean "ppo_mlp"?'),
    (
        "run-single-hp --algo-and-network-config dqn_mlp",
        "which has a 1-dimensional box of actions: DQN needs discrete actions; use sac or ppo",
    ),
    ("run-single-hp --env-config brax.antt", 'unknown environment "brax.antt"; did you mean "brax.ant"?'),
    ("run-single-hp --env-config brax.ant --set env.backend=mjxx", 'got .*did you mean "mjx"?'),
    ("run-single-hp --set env.backend=mjx", 'gymnax.pendulum has no option "backend"'),
    ("run-single-hp --set actor.widht=8", '"actor.widht"; did you mean "actor.width"?'),
    ("run-single-hp --set evaluation_s=8", 'did you mean "evaluations"?'),
    ("run-single-hp --set gamma", "--set needs path=value, got 'gamma'"),
    ("run-single-hp --set gamma=high", "gamma needs a number, got 'high'"),
    ("run-single-hp --set actor.activation=rel", 'one of relu, tanh, silu.*did you mean "relu"?'),
    ("run-single-hp --set num_envs=0", "num_envs must be at least 1, got '0'"),
    ("run-single-hp --set gamma=1.5", "gamma must be at most 1, got '1.5'"),
    ("run-single-hp --set actor_lr=-1e-3", "actor_lr must be at least 0, got '-1e-3'"),
    (
        "run-single-hp --algo-and-network-config sac_mlp --set init_alpha=0",
        "init_alpha must be at least 1e-06, got '0'",
    ),
    ("run-single-hp --set actor.width=0", "actor.width must be at least 1, got '0'"),
    ("run-single-hp --set gamma=0.9 --set gamma=0.8", "--set gamma is given twice: '0.9' and '0.8'"),
    ("run-single-hp --set seeds=2 --seeds 3", "seeds is given twice"),
    ("run-single-hp --run-length-modifier lng", 'did you mean "long"? Allowed: quick, default, long'),
    ("run-single-hp --run-length-modifier 0", "total_timesteps must be at least 1"),
    ("run-single-hp --seeds 0", "--seeds must be at least 1"),
    ("run-single-hp --total-timesteps -5", "--total-timesteps must be at least 1"),
    ("run-single-hp --protocol publised", 'Did you mean "published"?'),
    ("run-single-hp --device gpu", "jax finds no such device.*.[cuda13].*--device cpu"),
    ("run-single-hp --hparam-batch-size 0", "--hparam-batch-size must be at least 1"),
    ("run-single-hp --checkpoint-seconds -1", "--checkpoint-seconds. Must be >= 0"),
    ("run-single-hp --num-samples 3", "run-single-hp trains one sample.*sweep-hp-samples draws"),
    ("run-single-hp --confirm 3", "It is a flag of sweep-hp-samples"),
    ("optuna-hp-search --search-only gamma", "fix what it is to leave alone with --set"),
    ("sweep-hp-samples --num-samples 0", "--num-samples must be at least 1, got 0"),
    ("run-single-hp --sede 5", "Unknown option: --sede. Did you mean --seed"),
    ("run-single-hp --resume", "nothing to resume: results/run-single-hp/ppo_mlp/gymnax.pendulum holds no"),
    ("run-single-hp --resume-from nowhere", "nothing to resume: nowhere does not exist"),
    ("sweep-hp-sample", 'Unknown command "sweep-hp-sample". Did you mean "sweep-hp-samples"?'),
    ("sweep-hp-samples --num-samples 0", "--num-samples must be at least 1"),
    ("sweep-hp-samples --num-samples many", "--num-samples needs an integer, got 'many'"),
    ("sweep-hp-samples --sampling-method sobol", 'did you mean "qmc_sobol"?'),
    ("run-benchmark --sampling-method gird", 'did you mean "grid"?'),
    ("generate-hp-samples --sampling-method haltn", 'did you mean "halton"?'),
    ("sweep-hp-samples --experiment-type sobol", "sobol_matrices_A_B_AB"),
    ("sweep-hp-samples --load-hyperparams none.csv", "samples file none.csv does not exist"),
    ("sweep-hp-samples --load-hyperparams wrong.csv", 'unknown column "gama"; did you mean "gamma"?'),
    ("sweep-hp-samples --scheduler pbtt", 'unknown scheduler "pbtt"; did you mean "pbt"?'),
    (
        "sweep-hp-samples --scheduler pbt --num-samples 1",
        "copies between samples and there is 1: --num-samples 8",
    ),
    ("sweep-hp-samples --scheduler pbt --set evaluations=1", "there are 0.*--set evaluations=4"),
    ("sweep-hp-samples --scheduler asha --set evaluations=1", "there is none: --set evaluations=9"),
    (
        "sweep-hp-samples --scheduler pbt --group-by-structural-hparams",
        "copy one another only within a program",
    ),
    ("sweep-hp-samples --scheduler pbt --confirm 1", "leave out --confirm"),
    ("sweep-hp-samples --scheduler asha --set scheduler.factor=2", 'asha has no option "scheduler.factor"'),
    ("sweep-hp-samples --set scheduler.factor=2", "for sweep-hp-samples with --scheduler asha or pbt"),
    ("sweep-hp-samples --scheduler asha --experiment-type sobol_matrices_A_B_AB", "leave out --scheduler"),
    ("generate-hp-samples --output-file x.txt", "must end in .csv, .json or .parquet"),
    ("generate-hp-samples --output-file wrong.csv", "wrong.csv exists; remove it or choose another"),
    ("plot-benchmark --results-dir-to-plot nowhere", "no experiment found in nowhere"),
    ("plot-benchmark --results-dir-to-plot . --format jpg", "html, png, svg and pdf; got jpg"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_bad_input_is_refused_with_the_fix_and_nothing_is_created(tmp_path, capsys, line, message):
    """Exit code 2, the message on stderr, no traceback, and a folder as empty as before."""
    (tmp_path / "wrong.csv").write_text("sample,gama\n0,0.9\n")
    assert run(line) == 2
    said = capsys.readouterr()
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    assert re.search(pattern, words(said.err)), said.err
    assert "Traceback" not in said.err
    assert not said.out
    assert [p.name for p in tmp_path.rglob("*")] == ["wrong.csv"]


def test_a_folder_with_another_experiment_is_refused_with_the_difference(finished, monkeypatch, capsys):
    """The same command twice, other settings, other samples: with and without --resume; nothing changes."""
    monkeypatch.chdir(finished.home)
    before = {p: p.stat().st_mtime_ns for p in finished.home.rglob("*") if p.is_file()}
    for line, message in {
        SWEEP: "already holds this experiment; continue it with --resume",
        f"{SWEEP} --seeds 3": "already holds another experiment: seeds: 2 in the folder, 3 asked for",
        f"{SWEEP} --seeds 3 --resume": "cannot be resumed with other settings: seeds: 2 in the folder, 3",
        f"{SWEEP} --set gamma=0.5 --resume": ", 0.5 asked for",
        f"{SWEEP} --resume-from {FOLDER} --set gamma=0.5": "first in sample 0: gamma 0.9",
    }.items():
        assert run(line) == 2
        said = capsys.readouterr()
        assert message in words(said.err)
        assert not said.out
    assert before == {p: p.stat().st_mtime_ns for p in finished.home.rglob("*") if p.is_file()}


# A sweep from end to end


def test_a_sweep_leaves_everything_it_promises(finished):
    """Every file of an experiment's folder is there and readable; nothing else is."""
    names = {p.relative_to(finished.folder).as_posix() for p in finished.folder.rglob("*") if p.is_file()}
    tables = {f"{name}.parquet" for name in ("samples", "lanes", "curves", "episodes", "timeline", "system")}
    policies = {name for name in names if name.startswith("policies/")}
    assert names - policies == {
        *tables,
        "samples.csv",
        "manifest.json",
        "hyperlax.log",
        "report.html",
        "checkpoint/state.bin",
        "checkpoint/manifest-copy.json",
    }
    assert len(policies) == 4
    for name in policies:
        assert hyperlax.load(finished.folder / name).act(np.zeros(4, np.float32)) in (0, 1)
    for name in tables:
        assert pl.read_parquet(finished.folder / name).height > 0
    assert pl.read_csv(finished.folder / "samples.csv").height == 2
    assert "<html" in (finished.folder / "report.html").read_text()[:500]
    results = hyperlax.read(finished.folder)
    assert set(results.lanes["status"]) == {"done"}
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    assert manifest["settings"]["total_timesteps"] == 300
    assert manifest["recipe"] == "ppo_mlp_no_network_search"
    assert manifest["plan"][0]["memory_mb_per_lane"] > 0
    assert manifest["timings"]["wall_seconds"] > 0


def test_a_sweep_says_what_it_does_and_ends_in_a_leaderboard(finished):
    """The plan, the compilation, a line per evaluation, the best samples, the report and what to do next."""
    log = (finished.folder / "hyperlax.log").read_text()
    points = hyperlax.read(finished.folder).curves.filter(pl.col("metric") == "return").height
    for said in (finished.output, log):
        assert "2 samples x 2 seeds = 4 lanes, 300 steps each, corrected protocol" in said
        assert "predicted useful work" in said
        assert re.search(r"program 1 ready: traced in [\d.]+ s, compiled in [\d.]+ s, 2 lanes at once", said)
        assert (
            len(re.findall(r"lane \d \(sample \d, seed \d\) step \d+ of 288: return \d+\.\d\d", said))
            == points
        )
    _, _, end = finished.output.partition("best 2 of 2 samples by final return")
    assert re.search(r"^ +1(–2)? +[01] +\d+\.\d +\d+\.\d … \d+\.\d", end, re.MULTILINE)
    assert re.search(r"^sample [01]: .*actor_lr=0\.\d+, ", end, re.MULTILINE)
    assert re.search(r"^4 done in \d+\.\d s$", end, re.MULTILINE)
    assert f"report: {FOLDER / 'report.html'}" in end
    assert re.search(
        r"^Compared: 2 samples of ppo_mlp_no_network_search on gymnax.cartpole", end, re.MULTILINE
    )
    assert re.search(r"^next: cd .* && hyperlax .* --resume --confirm [12]$", end, re.MULTILINE)


@pytest.mark.parametrize("flags", ["--resume", f"--resume-from {FOLDER}", "--resume-from out"])
def test_resume_finds_the_experiment_from_its_folder_and_from_the_root(
    finished, prepared, monkeypatch, flags
):
    monkeypatch.chdir(finished.home)
    assert run(f"{SWEEP} {flags}") == 0
    _, how = prepared[0]
    assert how.resume
    assert how.folder == FOLDER


def test_a_finished_experiment_is_resumed_to_itself(finished, monkeypatch, capsys):
    """Found, reported, and not trained again."""
    monkeypatch.chdir(finished.home)
    curves = hyperlax.read(finished.folder).curves
    assert run(f"{SWEEP} --resume") == 0
    said = capsys.readouterr().out
    assert "resumed from the checkpoint" in said
    assert "4 done in" in said
    assert "compiling" not in said
    assert hyperlax.read(finished.folder).curves.equals(curves)


def test_lanes_that_fail_are_named_and_give_code_1(monkeypatch, capsys):
    """The rest is kept: the folder is readable and has its report."""
    monkeypatch.setattr(compiling, "free_memory", lambda *_: 10)
    assert run(SWEEP) == 1
    said = capsys.readouterr()
    assert "4 failed in" in said.out
    assert "program 1 failed, its lanes are marked: one lane needs" in said.out
    for lane in range(4):
        assert f"lane {lane} failed: one lane needs" in said.err
    assert "lower num_envs, rollout_length or the network's size" in said.err
    assert set(hyperlax.read(FOLDER).lanes["status"]) == {"failed"}
    assert (FOLDER / "report.html").exists()


def test_a_sweep_in_which_all_diverge_finishes_with_code_1(capsys):
    """The first divergence is named, with its step and hyperparameters, and what to try instead."""
    assert run(f"{SWEEP} --set actor_lr=3e38") == 1
    said = capsys.readouterr().out
    assert re.search(r"lane \d \(sample \d, seed \d\) diverged at step \d+", said)
    assert len(re.findall("first divergence, hyperparameters: .*'actor_lr': 3", said)) == 1
    assert "4 diverged in" in said
    rates = r"\(--set actor_lr=0.0001 --set critic_lr=0.0001\)"
    advice = f"every lane diverged: try smaller learning rates {rates}"
    assert re.search(advice, " ".join(said.split()))
    assert "hyperlax.testing.check_env(" in said


def test_plot_benchmark_draws_what_it_finds_below_a_folder(finished, capsys, monkeypatch):
    """The report and images, printed by path; the picture of the first chart stands for all."""
    real, drawn = export.image, []

    def image(spec, suffix):
        drawn.append(drawn[0] if drawn else real(spec, suffix))
        return drawn[0]

    monkeypatch.setattr(export, "image", image)
    (finished.folder / "report.html").unlink()
    assert run(f"plot-benchmark --results-dir-to-plot {finished.home} --format html,png") == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written[0] == finished.folder / "report.html"
    assert len(written) > 3
    assert len(drawn) == len(written[1:])
    for path in written[1:]:
        assert path.read_bytes().startswith(b"\x89PNG")


# What is drawn


@pytest.fixture
def tiny(tmp_path) -> str:
    """A recipe in a file of one's own."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipes.py").write_text(TINY)
    return "--algo-and-network-config mine/recipes.py:tiny"


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_generated_samples_are_those_a_sweep_draws(tiny, prepared, suffix, capsys):
    """Written to a file and loaded again they keep their ids and values, whatever the format."""
    assert run(f"generate-hp-samples {tiny} --num-samples 5 --output-file files/s.{suffix} --seed 3") == 0
    assert f"5 samples of 4 columns written to files/s.{suffix}" in capsys.readouterr().out
    assert run(f"sweep-hp-samples {tiny} --num-samples 5 --seed 3") == 0
    assert run(f"sweep-hp-samples {tiny} --load-hyperparams files/s.{suffix} --seed 3 --output-root x") == 0
    (drawn, _), (loaded, _) = prepared
    assert list(loaded.records) == list(range(5))
    assert drawn.samples.equals(loaded.samples)
    assert drawn.identity() == loaded.identity()


@pytest.mark.slow
def test_loaded_samples_train_as_the_drawn_ones_do(tiny):
    """Same ids, same numbers; a part of the file trains the same lanes again, whatever its order."""
    assert run(f"generate-hp-samples {tiny} --num-samples 3 --output-file s.csv") == 0
    assert run(f"sweep-hp-samples {tiny} --num-samples 3 --output-root drawn") == 0
    assert run(f"sweep-hp-samples {tiny} --load-hyperparams s.csv --output-root loaded") == 0
    drawn, loaded = (hyperlax.read(next(Path(r).glob("*/*"))) for r in ("drawn", "loaded"))
    assert drawn.folder == Path("drawn/recipes.py_tiny/gymnax.pendulum")
    keys = ["lane", "env_steps", "metric"]
    left, right = (r.curves.sort(keys).select("sample", "seed", *keys, "value") for r in (drawn, loaded))
    assert left.equals(right)
    assert left["sample"].unique().sort().to_list() == [0, 1, 2]


def test_sensitivity_designs_have_their_matrices(tiny, prepared):
    """N samples make N (D + 2) with the mixed matrices, 2 N without; each says which it belongs to."""
    line = f"sweep-hp-samples {tiny} --num-samples 4 --experiment-type sobol_matrices_A_B_AB --output-root"
    assert run(f"{line} a") == 0
    assert run(f"{line} b --omit-ab") == 0
    (whole, _), (short, _) = prepared
    assert len(whole.trees) == 4 * (4 + 2)
    assert short.samples["matrix"].to_list() == ["A"] * 4 + ["B"] * 4
    assert whole.samples.head(8).equals(short.samples)
    a = whole.samples.filter(pl.col("matrix") == "A")
    mixed = whole.samples.filter(pl.col("matrix") == "AB:actor_lr")
    varied = ["actor.activation", "normalize_observations", "rollout_length"]
    assert mixed.select(varied).equals(a.select(varied))
    assert not set(mixed["actor_lr"]) & set(a["actor_lr"])


def test_generated_sensitivity_designs_load_with_their_matrices(tiny, prepared):
    flags = "--experiment-type sobol_matrices_A_B_AB --num-samples 2"
    assert run(f"generate-hp-samples {tiny} {flags} --output-file s.csv --omit-ab") == 0
    assert run(f"sweep-hp-samples {tiny} --load-hyperparams s.csv") == 0
    assert prepared[0][0].samples["matrix"].to_list() == ["A", "A", "B", "B"]


def test_set_fixes_hyperparameters_and_settings(tiny, prepared):
    """By dotted name, against the recipe and the samples."""
    line = "--set actor_lr=0.5 --set critic.width=3 --set evaluations=7 --set initial_weights=shared"
    assert run(f"sweep-hp-samples {tiny} --num-samples 2 {line} --set seed=9 --seeds 3") == 0
    spec, _ = prepared[0]
    for tree in spec.trees:
        assert values(tree)["actor_lr"] == 0.5
        assert values(tree)["critic.width"] == 3
    settings = spec.settings
    assert (settings.evaluations, settings.seed, settings.seeds) == (7, 9, 3)
    assert settings.initial_weights == "shared"


def test_the_published_protocol_is_the_same_by_flag_and_by_set(prepared):
    """All its settings come with it either way."""
    assert run("run-single-hp --protocol published --output-root a") == 0
    assert run("run-single-hp --set protocol=published --output-root b") == 0
    (flag, _), (assigned, _) = prepared
    assert flag.identity() == assigned.identity()
    assert (flag.settings.evaluation, flag.settings.initial_weights) == ("sampled", "shared")
    assert values(flag.trees[0])["loss_reduction"] == "sum"


def test_a_grid_has_at_most_as_many_samples_as_asked_for(tiny, prepared):
    assert run(f"sweep-hp-samples {tiny} --num-samples 9 --sampling-method grid") == 0
    samples = prepared[0][0].samples
    assert samples.height == 8
    assert samples.unique([c for c in samples.columns if c != "sample"]).height == 8


def test_how_it_runs_comes_from_the_flags(prepared):
    """Each flag reaches the runner, and none of them changes the experiment."""
    flags = "--sequential True --hparam-batch-size 3 --group-by-structural-hparams --save-policies all"
    assert run(f"{SWEEP} {flags} --checkpoint-seconds 7") == 0
    assert run(f"{SWEEP.removesuffix('out')} other") == 0
    (spec, how), (plain, default) = prepared
    assert (how.sequential, how.lanes_at_once, how.group_by_sizes) == (True, 3, True)
    assert (how.save_policies, how.checkpoint_seconds) == ("all", 7)
    assert (default.sequential, default.lanes_at_once, default.group_by_sizes) == (False, None, False)
    assert spec.identity() == plain.identity()


def test_sizes_that_do_not_fit_are_noted_before_the_run(prepared):
    """Which samples, and what is done about it."""
    line = "--set num_envs=4 --set rollout_length=8 --total-timesteps 60"
    assert run(f"run-single-hp {line} --set num_minibatches=64 --output-root a") == 0
    assert run(f"run-single-hp {line} --set num_minibatches=5 --output-root b") == 0
    (many, _), (uneven, _) = prepared
    assert many.notes[0] == "sample 0: 64 minibatches of 32 samples: 32 minibatches of one are used"
    assert many.notes[1].startswith("1 of 1 samples train 32 of 60 env steps: whole cycles of 32 (")
    assert "5 minibatches do not divide 32 samples" in uneven.notes[0]


def test_list_names_everything_that_has_a_name(capsys):
    """All that it lists can be used."""
    from hyperlax import envs
    from hyperlax.experiments import recipes
    from hyperlax.registry import built_in
    from hyperlax.studies import suites

    assert run("list") == 0
    printed = capsys.readouterr().out
    listed = {line.split()[0] for line in printed.splitlines() if line.startswith("  ")}
    assert "  drpqc  (data re-uploading parametrised quantum circuit)\n" in printed
    assert {*recipes.names(), "gymnax.cartpole", "gymnax.pendulum"} <= listed
    assert {*built_in.AGENTS, *built_in.NETWORKS, *built_in.SCHEDULES, *built_in.EXPORTERS} <= listed
    assert {*suites.names(), *envs.names()} <= listed
