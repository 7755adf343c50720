"""Files from strangers: nothing in them is run, believed about sizes, or put unescaped into a page."""

from __future__ import annotations

import ast
import os
import pickle
import re
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import folders
import jax
import numpy as np
import pytest
from report_data import synthetic
from test_policies import trained

import hyperlax
from hyperlax import policies
from hyperlax.agents import AGENTS
from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import values
from hyperlax.lanes.sizes import to_json
from hyperlax.networks import NETWORKS
from hyperlax.report import write_comparison, write_report
from hyperlax.searches import outcome
from hyperlax.storage.checkpoint import pack
from hyperlax.storage.integrity import read_json, write_json
from hyperlax.storage.shareable import shareable_command, without_folders

ATTACK = 'x"><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def agent():
    """An agent as host arrays, without what only learning needs, and the header of its policy."""
    recipe, _, caps, agent = trained("gymnax.cartpole")
    hp = agent.hp
    header = {"algorithm": "ppo", "network": "mlp", "env": "gymnax.cartpole"}
    header |= {"hyperparams": values(jax.tree.map(np.asarray, hp)), "caps": to_json(caps)}
    assert recipe == Recipe("ppo", "mlp")
    return jax.tree.map(np.asarray, agent.for_acting()), header


def test_an_honest_policy_loads(agent, tmp_path):
    (tmp_path / "it.policy").write_bytes(pack(agent[0], **agent[1]))
    assert policies.load(tmp_path / "it.policy").act(np.zeros(4)).shape == ()


WRONG = (10**12, 10**30, -1, None, "x", {}, {"branches": [[1]]}, 1.5, [10**10])
CAPS = ("actor.width", "critic.depth", "num_envs", "env_block", "actor.activation", "minibatch_chunks")


@pytest.mark.parametrize("name", CAPS)
def test_no_capacity_of_a_policy_is_believed(agent, tmp_path, name):
    path = tmp_path / "crafted.policy"
    for value in (*WRONG, *([2**31 - 1] if "." in name else [])):
        if name == "env_block" and value == "x":
            continue  # nothing that acts reads it
        path.write_bytes(pack(agent[0], **{**agent[1], "caps": {**agent[1]["caps"], name: value}}))
        with pytest.raises(ValueError, match=r"^[^\n]*crafted\.policy[^\n]*$"):
            policies.load(path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *[
            (name, value)
            for name in ("algorithm", "network", "env")
            for value in (None, 5, ["a"], "os:system")
        ],
        *[(name, v) for name in ("hyperparams", "caps") for v in (None, 5, ["a"], "x")],
        *[("hyperparams", {"actor.width": v}) for v in (10**12, float("nan"), "x", None, [1], 10**400)],
        ("hyperparams", {"nothing": 1}),
        ("hyperparams", {"gamma": 0.5}),
        ("env", "gymnax.cartpole[command=touch ran]"),
        ("env", "brax.ant[backend"),
    ],
)
def test_every_other_entry_of_a_policy_is_checked(agent, tmp_path, entry, value):
    path = tmp_path / "crafted.policy"
    path.write_bytes(pack(agent[0], **{**agent[1], entry: value}))
    with pytest.raises(ValueError, match=r"crafted\.policy"):
        policies.load(path)


def test_hyperparameters_among_the_arrays_are_those_of_the_header(agent, tmp_path):
    path = tmp_path / "crafted.policy"
    path.write_bytes(pack(jax.tree.map(lambda x: x + x.dtype.type(1), agent[0]), **agent[1]))
    with pytest.raises(ValueError, match=r"crafted\.policy .*hyperparameters .* differ"):
        policies.load(path)


class _Command:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def test_the_state_of_cma_es_in_a_study_runs_nothing(tmp_path, monkeypatch):
    cmaes = pytest.importorskip("cmaes")
    from hyperlax.hyperparams.samplers.cma import state

    monkeypatch.chdir(tmp_path)
    own = cmaes.CMA(mean=np.zeros(3), sigma=1.0, bounds=np.array([[0.0, 1.0]] * 3), seed=1)
    own.tell([(own.ask(), float(i)) for i in range(own.population_size)])
    read, unpickled = state(pickle.dumps(own), "trial 3"), pickle.loads(pickle.dumps(own))
    read._rng.seed(3)
    unpickled._rng.seed(3)
    np.testing.assert_array_equal(read.ask(), unpickled.ask())
    crafted = [_Command(os.system, ("touch ran",)), _Command(np.ndarray, ((10**13,),)), [1], cmaes.CMA]
    crafted += [_Command(eval, ("open('ran', 'w')",))]
    crafted += [_Command(cmaes.CMA, (np.zeros(3), 1.0, None, 100, None, 10**12))]
    for thing in crafted:
        with pytest.raises(ValueError, match="trial 3 of the study holds no state of CMA-ES"):
            state(pickle.dumps(thing), "trial 3")
    assert not (tmp_path / "ran").exists()


def test_a_journal_that_optuna_did_not_write_is_refused(tmp_path):
    from hyperlax.hyperparams.samplers.storages import storage

    for content in ("no\njson\n", "[" * 100_000 + "\n", '{"op_code": "x"}\n', "5\n"):
        (tmp_path / "study.journal").write_text(content)
        with pytest.raises(ValueError, match=r"study\.journal is damaged: no study of Optuna"):
            storage(str(tmp_path / "study.journal"), None)


def test_names_in_a_written_recipe_are_text(monkeypatch):
    names = ('a"+__import__("os").system("touch ran")+".py:Net', "😀.py:Net")
    plain = Recipe("ppo", "mlp")
    monkeypatch.setattr(Recipe, "classes", property(lambda self: plain_classes))
    plain_classes = (AGENTS["ppo"], NETWORKS["mlp"])
    for name in names:
        found = {"best": {"trial": 1, "values": {"x": 1.0}, "params": {}}}
        tree = ast.parse(outcome.recipe_text(Recipe("ppo", name), plain.hyperparams(), found))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert [ast.literal_eval(a) for a in calls[0].args] == ["ppo", name]
        assert len(calls) == 1


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.seen |= {tag, *(name for name, _ in attrs)}


def _parts(path):
    """The names of all elements and attributes of a page."""
    page = _Page()
    page.feed(path.read_text())
    return page.seen


def test_nothing_in_results_becomes_an_element_or_an_attribute(tmp_path):
    def crafted(name):
        results = synthetic(samples=3, seeds=3, diverged=())
        samples = results.samples.with_columns(results.samples["actor.activation"].replace("tanh", ATTACK))
        results.manifest.update(name=name, env=ATTACK, recipe=name, notes=[ATTACK], command=["x", ATTACK])
        results.manifest["versions"][ATTACK] = ATTACK
        return type(results)(
            results.manifest, samples.rename({"gamma": ATTACK}), results.lanes, results.curves
        )

    pages = [
        write_report(crafted(ATTACK), tmp_path / "report.html"),
        write_comparison([crafted(ATTACK), crafted(f"{ATTACK}2")], tmp_path / "comparison.html"),
    ]
    for page in pages:
        assert not _parts(page) & {"img", "onerror", "src"}


def test_html_is_made_in_templates_alone():
    """No other module writes an element; drawings of circuits are SVG documents of numbers."""
    package = Path(hyperlax.__file__).parent
    element = re.compile(r"</?(div|p|table|td|th|tr|h[1-6]|section|pre|b|a|img|script|svg)(\s[^<>]*)?>")
    found = set()
    for file in package.rglob("*.py"):
        tree = ast.parse(file.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        if any(element.search(_text(node)) for node in ast.walk(tree) if id(node) not in docs):
            found.add(file.relative_to(package).as_posix())
    assert found == {"networks/drawing.py"}


def _text(node: ast.AST) -> str:
    """The text of a literal, with a letter in place of each value that is put into it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "x" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_what_is_passed_on_names_no_folder_user_or_host(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = [
        "/opt/bin/hyperlax",
        "--a=/home/me doe/r.py:Net",
        f"--o={tmp_path}/out",
        "~/q/w",
        "--set",
        "a=/x/y",
    ]
    assert shareable_command(said) == ["hyperlax", "--a=…/r.py:Net", "--o=out", "…/w", "--set", "a=…/y"]
    assert without_folders("postgresql://me@db.lab:5432/studies") == "postgresql://…/studies"
    assert without_folders("sqlite:////home/me/study.db is locked") == "sqlite://…/study.db is locked"
    for harmless in ("https://a.b/c/d", "a/b", "3/4"):
        assert without_folders(harmless) == harmless


@pytest.mark.parametrize("part", ["algorithm", "network", "env"])
def test_names_in_files_are_said_without_what_a_terminal_would_obey(agent, tmp_path, part):
    path = tmp_path / "it.policy"
    path.write_bytes(pack(agent[0], **{**agent[1], part: "\x1b[2J[\n"}))
    with pytest.raises(ValueError, match=r"\\x1b\[2J\[\\n") as refused:
        policies.load(path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "words",
    [
        "status FOLDER",
        "status FOLDER --json",
        "check FOLDER",
        "merge FOLDER",
        "cancel FOLDER",
        "plot-benchmark --results-dir-to-plot FOLDER",
        "compare FOLDER --output-file FOLDER/it.html",
        "export --results-dir FOLDER --to tensorboard",
        "sweep-hp-samples --resume-from FOLDER",
        "run-single-hp --resume-from FOLDER",
        "optuna-hp-search --resume-from FOLDER",
        "run-benchmark --resume-from FOLDER",
    ],
)
def test_no_command_runs_or_connects_to_what_a_folder_names(tmp_path, monkeypatch, words):
    from hyperlax.commands.main import main
    from hyperlax.hyperparams.samplers import storages

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storages, "_database", lambda url: Path("connected").touch())
    (tmp_path / "evil.py").write_text("open('stolen', 'w')")
    evil, folder, url = "evil.py:Thing", tmp_path / "r", "postgresql://me@elsewhere/trials"
    folders.trained(folder)
    named = dict.fromkeys(("recipe", "algorithm", "network", "env"), evil)
    command = ["hyperlax", words.split()[0], "--env-config", evil, "--storage", url]
    about = {**named, "command": command, "search": {"storage": url}, "complete": False}
    about |= {"settings": {"total_timesteps": 4, "evaluations": 4, "seeds": 1}, "identity": named}
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), **about})
    with suppress(SystemExit, RuntimeError):
        main(words.replace("FOLDER", str(folder)).split())
    assert not [name for name in ("stolen", "connected") if (tmp_path / name).exists()]
