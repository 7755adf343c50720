"""What a run shows: lines, the live display, the leaderboard."""

from __future__ import annotations

import inspect
import io
import logging
import re
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from report_data import synthetic
from rich.console import Console
from rich.live import Live as RichLive

from hyperlax import sweeps
from hyperlax.commands.tables import best_words, leaderboard_table
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Lane
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.report import leaderboard
from hyperlax.run import runner
from hyperlax.run import signals as stopping
from hyperlax.run.terminal import STOPPING, Display, Lines, Live, shown

COMPILED: Any = SimpleNamespace(
    trace_seconds=1.25, compile_seconds=2.5, slots=2, bytes_per_lane=3 * 2**20, programs=1
)
MACHINE = Machine.of("cpu", 2)


@pytest.fixture(scope="module")
def spec() -> Experiment:
    """Eight samples whose minibatches do not fit, of two architectures."""
    rows = [{"sample": i, "num_minibatches": 100 + i, "actor.width": 8 + 56 * (i % 2)} for i in range(8)]
    sizes = {"num_envs": 4, "rollout_length": 8, "critic.width": 8}
    return sweeps.prepare(
        "ppo_mlp", "gymnax.cartpole", samples=rows, set=sizes, total_timesteps=1_024, seeds=2
    )


@pytest.fixture(scope="module")
def programs(spec) -> list[Program]:
    return plan(spec.trees, spec.env, spec.settings.total_timesteps, 2, MACHINE, group_by_sizes=True)


def tell(display: Display, spec: Experiment, programs: list[Program], seconds: float = 2.0) -> list[Lane]:
    """A run, as the runner tells a display of it; the lanes at its end."""
    lanes = spec.lanes()
    display.planned(spec, programs, MACHINE, resumed=True)
    display.compiling(0, len(programs))
    display.halved(100.0, 50.0, 1)
    display.compiled(0, COMPILED)
    display.update(lanes, 0.0)
    for lane in lanes:
        lane.env_steps = 512
        display.evaluated(lane, 100.0 * -lane.lane)
    for lane in (lanes[3], lanes[5]):
        lane.status, lane.diverged_at = "diverged", 512
        display.diverged(lane, spec.trees[1])
    lanes[0].status, lanes[0].env_steps = "done", 1_024
    display.update(lanes, seconds)
    return lanes


@pytest.fixture
def lines(caplog, spec, programs) -> list[str]:
    caplog.set_level(logging.INFO, logger="hyperlax")
    tell(Lines(), spec, programs)
    return caplog.messages


def test_displays_answer_every_call_of_a_run():
    """Whatever the runner and the compiler tell a display is a method of all of them."""
    source = "".join(inspect.getsource(module) for module in (runner, stopping, sweeps))
    called = set(re.findall(r"progress\.([a-z]+)\(", source))
    assert {
        "planned",
        "compiling",
        "compiled",
        "update",
        "evaluated",
        "diverged",
        "failed",
        "stopping",
    } <= called
    for name in called:
        for display in (Lines, Live):
            assert list(inspect.signature(getattr(display, name)).parameters) == list(
                inspect.signature(getattr(Display, name)).parameters
            )


def unconfigured(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The `hyperlax` logger of a program that has not set up logging, until the test ends."""
    logger = logging.getLogger("hyperlax")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    return logger


def test_progress_shows_lines_where_there_is_no_terminal(capsys, monkeypatch, spec, programs):
    logger = unconfigured(monkeypatch)
    with shown(True) as display:
        tell(display, spec, programs)
    printed = capsys.readouterr().out.splitlines()
    assert sum("return " in line for line in printed) == len(spec.lanes())
    assert re.match(r"\[\d\d:\d\d:\d\d\] ppo_mlp on gymnax.cartpole", printed[0])
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


def test_a_handler_for_warnings_hides_no_lines_and_gets_its_warnings(capsys, monkeypatch, spec, programs):
    """Libraries install one with their first `logging.info`, which the program may never have heard of."""
    logger, root = unconfigured(monkeypatch), logging.getLogger()
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    logger.setLevel(logging.NOTSET)  # forgets what it knew about levels
    logging.info("Using JAX default device")
    assert len(root.handlers) == 1
    with shown(True) as display:
        tell(display, spec, programs)
        logger.warning("the disk is full")
    printed = capsys.readouterr()
    assert sum("return " in line for line in printed.out.splitlines()) == len(spec.lanes())
    assert "the disk is full" in printed.out
    warned = printed.err.splitlines()
    assert warned[-1] == "WARNING:hyperlax:the disk is full"
    assert all(line.startswith(("WARNING:", "ERROR:")) for line in warned)
    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


def test_progress_shows_a_bar_on_a_terminal(capsys, monkeypatch, spec, programs):
    unconfigured(monkeypatch)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with shown(True) as display:
        assert isinstance(display, Live)
        tell(display, spec, programs)
        assert display.display.is_started
        display.console.print("brax.ant[backend=mjx]")
    assert not display.display.is_started
    shown_text = capsys.readouterr().out
    assert "steps/s" in shown_text
    assert "brax.ant[backend=mjx]" in shown_text


def test_progress_leaves_a_display_and_the_logging_of_others_alone(caplog, capsys, spec, programs):
    caplog.set_level(logging.INFO, logger="hyperlax")
    for none in (None, False):
        with shown(none) as display:
            assert type(display) is Display
    own = Lines()
    with shown(own) as display:
        assert display is own
    with shown(True) as display:
        tell(display, spec, programs)
    assert len(caplog.messages) > len(spec.lanes())
    assert capsys.readouterr().out == ""


def test_silence_is_silent(capfd, caplog, spec, programs):
    caplog.set_level(logging.INFO, logger="hyperlax")
    shown = Display()
    tell(shown, spec, programs)
    shown.stopping()
    shown.failed(0, RuntimeError("broken"))
    shown.close()
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_the_plan_is_said_first(lines, programs):
    assert lines[0] == (
        "ppo_mlp on gymnax.cartpole: 8 samples x 2 seeds = 16 lanes, 1,024 steps each, corrected protocol"
    )
    told = [line for line in lines if re.match(r"program \d: ", line)]
    assert len(told) == len(programs) == 2
    assert any(
        "actor: width 64 depth 2; critic: width 8 depth 2; predicted useful work" in line for line in told
    )


def test_only_the_first_notes_are_said(lines, spec):
    """The others are counted."""
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes[:5] == [f"note: {note}" for note in spec.notes[:5]]
    assert notes[5:] == ["note: 3 more like this, all in the manifest"]


def test_there_is_one_line_per_evaluation(lines):
    evaluations = [line for line in lines if ": return " in line]
    assert len(evaluations) == 16
    assert evaluations[3] == "lane 3 (sample 1, seed 1) step 512 of 1,024: return -300.00"


def test_compilation_memory_and_resumption_are_named(lines):
    assert "resumed from the checkpoint" in lines
    assert "compiling program 1 of 2" in lines
    assert "program 1 ready: traced in 1.2 s, compiled in 2.5 s, 2 lanes at once, 3.0 MB each" in lines
    assert "100 MB needed, 50 MB may be used: 1 lane at once instead; results are the same" in lines


def test_the_first_divergence_comes_with_its_hyperparameters(lines):
    """Later ones only with lane and step."""
    assert [line for line in lines if " diverged at " in line] == [
        "lane 3 (sample 1, seed 1) diverged at step 512",
        "lane 5 (sample 2, seed 1) diverged at step 512",
    ]
    first = [line for line in lines if line.startswith("first divergence, hyperparameters:")]
    assert len(first) == 1
    assert "'actor.width': 64" in first[0]


class Screen:
    """A terminal in memory."""

    def __init__(self):
        self.file = io.StringIO()
        self.console = Console(force_terminal=True, file=self.file, width=100, highlight=False)

    def text(self) -> str:
        """All that was drawn, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue())


def test_the_live_display_shows_plan_compilation_bar_and_best_lanes(monkeypatch, spec, programs):
    """Drawn at every change here; otherwise four times a second."""
    monkeypatch.setattr(RichLive, "update", partialmethod(RichLive.update, refresh=True))
    screen = Screen()
    shown = Live(screen.console)
    tell(shown, spec, programs)
    shown.close()
    text = screen.text()
    title = "ppo_mlp on gymnax.cartpole: 8 samples × 2 seeds = 16 lanes, 1,024 steps each, corrected protocol"
    assert title in text
    assert re.search(r"│ +1 │ +8 │ +≤ 4 │ +≤ 8 │ +≤ 1 │ actor: width 64 depth 2", text)
    assert "note: sample 0: 100 minibatches of 32 samples" in text
    assert "note: 3 more, all in the manifest" in text
    assert "resumed from the checkpoint" in text
    assert "compiling 1/2" in text
    assert "program 1 compiled in 3.8 s: 2 lanes at once, 3.0 MB each" in text
    assert "100 MB needed, 50 MB may be used: 1 lane at once instead; results are the same" in text
    assert text.count("first divergence: lane 3 (sample 1, seed 1), step 512") == 1
    last = text.rpartition("program 1 ")[2]
    assert re.search(r"59 %", last)
    assert re.search(r"4,352 steps/s, \d+ s elapsed", last)
    assert "1 of 16 lanes done, 2 diverged" in last
    rows = re.findall(r"│ (\d) +│ (\d) +│ ([\d,]+) +│ (-?\d+\.\d\d) +│", last)
    assert rows[:5] == [
        ("0", "0", "1,024", "0.00"),
        ("0", "1", "512", "-100.00"),
        ("1", "0", "512", "-200.00"),
        ("1", "1", "512", "-300.00"),
        ("2", "0", "512", "-400.00"),
    ]


def test_the_live_display_writes_the_same_lines_to_the_log(caplog, spec, programs, lines):
    caplog.clear()
    tell(Live(Screen().console), spec, programs)
    assert caplog.messages == lines


def test_stopping_and_failing_are_shown(caplog):
    """Also an error with brackets in it, which rich would take for markup."""
    caplog.set_level(logging.INFO, logger="hyperlax")
    screen = Screen()
    shown = Live(screen.console)
    shown.failed(1, RuntimeError("shapes [/b] and [8] differ"))
    shown.stopping()
    shown.close()
    assert "program 2 failed: shapes [/b] and [8] differ" in screen.text()
    assert STOPPING in screen.text()
    assert STOPPING in caplog.messages


def _printed(board: pl.DataFrame, width: int = 100) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(leaderboard_table(board, 16))
    return file.getvalue()


@pytest.mark.parametrize(
    ("seeds", "ends"), [(4, ("lowest_seed", "highest_seed")), (10, ("score_low", "score_high"))]
)
def test_the_leaderboard_has_ranks_spreads_and_seeds(seeds, ends):
    """One row per sample; the spread is the range of few seeds, and the interval of ten."""
    results = synthetic(seeds=seeds)
    board = leaderboard(results)
    text = _printed(board)
    assert text.startswith(
        f"best {board.height} of 16 samples by final return: interquartile mean over seeds"
    )
    rows = [line for line in text.splitlines() if "…" in line]
    assert len(rows) == board.height
    for line, row in zip(rows, board.iter_rows(named=True), strict=True):
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert cells[:3] == [row["rank"], str(row["sample"]), f"{row['score']:.1f}"]
        assert cells[3] == " … ".join(f"{row[end]:.1f}" for end in ends)
        assert cells[5].startswith(str(row["seeds_done"]))
        assert ("diverged" in cells[5]) == (row["seeds_diverged"] > 0)


def test_a_single_seed_has_no_interval_and_an_unfinished_sample_no_number():
    columns = ("score", "lowest_seed", "highest_seed", "fresh_return")
    unscored = leaderboard(synthetic(samples=1)).with_columns(
        pl.lit(None, pl.Float64).alias(name) for name in columns
    )
    assert _printed(unscored).count("–") == 3
    assert best_words(unscored, synthetic().samples) == ""


def test_what_the_best_sample_chose_is_said():
    results = synthetic()
    board = leaderboard(results)
    said = best_words(board, results.samples)
    assert said.startswith(f"sample {board['sample'][0]}: ")
    assert re.search(r": lr=0\.\d+, gamma=0\.\d+, rollout=\d+, ", said)
    assert best_words(board, results.samples.select("sample")) == ""
    assert best_words(board.head(0), results.samples) == ""
