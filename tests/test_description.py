"""What hyperparameters mean is said once, beside them, and told in every form."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import polars as pl
import pytest
from jaxtyping import Array, Float
from report_data import nothing_yet, synthetic

from hyperlax.agents import AGENTS
from hyperlax.commands.app import app
from hyperlax.experiments import description, recipes
from hyperlax.experiments.description import NO_MEANING, NO_SOURCE, UNDECLARED, describe
from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import Choice, Integers, Joint, LogUniform, Uniform, fields, hp, literature, words
from hyperlax.networks import NETWORKS
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.mlp import MLPHyperparams
from hyperlax.registry.spellings import SPELLINGS, alike

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "hyperparameters.md"


class Bare(AbstractNetworkHyperparams):
    """Hyperparameters of somebody who says little about them."""

    size: Float[Array, ""] = eqx.field(default_factory=lambda: jnp.asarray(2.0))
    mute: Float[Array, ""] = hp(0.5, doc="")

    def sizes(self):
        return {}

    def network(self, in_size, caps, *, key):
        raise NotImplementedError


@pytest.fixture
def bare(monkeypatch):
    """A network registered under `bare`, one of whose fields nothing is known of."""
    monkeypatch.setitem(NETWORKS.built_in, "bare", f"{__name__}:Bare")
    yield "bare"
    NETWORKS._found.pop("bare", None)


@pytest.mark.parametrize("name", recipes.names())
def test_every_hyperparameter_of_every_recipe_has_meaning_default_and_range(name):
    recipe = recipes.resolve(name)
    rows = {row.name: row for row in describe(name).rows}
    assert list(rows) == [f.path for f in fields(recipe.hyperparams())]
    searched = {path for key, s in recipe.search_space().items() for path in getattr(s, "paths", [key])}
    for row in rows.values():
        assert len(row.meaning) > 5, row.name
        assert row.meaning != NO_MEANING
        assert row.range
        assert row.default is not None
        assert row.searched <= (row.name in searched)
        assert (row.space is None) == (row.name not in searched)
        assert row.source


@pytest.mark.parametrize("name", [*AGENTS, *NETWORKS])
def test_every_source_is_in_the_literature_or_says_why_not(name):
    for row in describe(name).rows:
        for part in row.source.split("; "):
            assert literature.cited(part) or part in (NO_SOURCE, literature.PROTOCOL), row


def test_a_range_accepts_what_it_says_and_refuses_what_it_does_not():
    """The words of the range are those of the error for a value outside of it."""
    known = {f.path: f for f in fields(recipes.resolve("ppo_mlp").hyperparams())}
    assert known["gamma"].range == "0 to 1"
    assert known["actor.depth"].range == "1 to 1,000"
    assert known["num_envs"].range == "at least 1"
    assert known["clip_value"].range == "true, false"
    assert known["time_limit"].range == "truncation, termination"
    with pytest.raises(ValueError, match="gamma must be at most 1"):
        known["gamma"].encode(1.5)
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        known["num_envs"].encode(0)


def test_fields_of_which_nothing_is_known_are_said_so(bare):
    for name, prefix in ((bare, ""), ("dqn+bare", "critic.")):
        rows = {row.name: row for row in describe(name).rows}
        assert rows[f"{prefix}size"].meaning == UNDECLARED
        assert rows[f"{prefix}size"].range == "not known"
        assert rows[f"{prefix}mute"].meaning == NO_MEANING
        assert rows[f"{prefix}mute"].range == "at least 0"


def test_a_recipe_is_described_as_its_run_length_trains_it():
    usual, quick = ({r.name: r for r in describe("ppo_mlp", length).rows} for length in ("default", "quick"))
    assert usual["num_envs"].space == "8, 16, 32, 64"
    assert quick["num_envs"].space == "4, 8"
    assert not quick["actor.width"].searched
    assert quick["actor.width"].default == 16
    facts = describe("ppo_mlp", "quick").facts
    assert facts["run length quick"].startswith("2,048 env steps, 2 seeds per sample, 4 evaluations")


def test_a_recipe_of_ones_own_is_described_without_a_name():
    space = {"actor_lr": LogUniform(1e-4, 1e-2), "gamma": 0.9, "epochs": Choice(3)}
    found = describe(Recipe("ppo", "mlp", space=space, only=True))
    rows = {row.name: row for row in found.rows}
    assert [name for name, row in rows.items() if row.searched] == ["actor_lr"]
    assert (rows["actor_lr"].space, rows["actor_lr"].scale) == ("0.0001 to 0.01", "log")
    assert rows["gamma"].default == pytest.approx(0.9)
    assert "actor_lr" in str(found)
    assert "<td>actor_lr</td>" in found._repr_html_()


def test_files_are_described_by_what_they_hold(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from hyperlax import Choice, Recipe\n"
        "mine = Recipe('dqn', 'mlp', space={'gamma': Choice(0.9, 0.99)}, only=True)\n"
    )
    assert describe(f"{file}:mine").kind == "recipe"
    assert describe("hyperlax.networks.mlp:MLPHyperparams").kind == "network"
    assert describe("hyperlax.agents.sac:SACHyperparams").kind == "algorithm"
    with pytest.raises(ValueError, match="is no algorithm, no network, no environment, no recipe"):
        describe("hyperlax.networks.mlp:ACTIVATIONS")
    file.write_text("x = (")
    with pytest.raises(ValueError, match=r"mine2|mine.*does not exist|line 1|cannot"):
        describe(f"{tmp_path / 'mine2'}.py:mine")


def test_an_environment_is_described_with_its_options():
    found = describe("gymnax.acrobot")
    assert found.facts["actions"] == "3 discrete actions"
    assert found.facts["return of a random policy"] == "-499"
    assert "dqn" in found.facts["algorithms"]
    assert found.rows == ()


def test_the_table_and_json_say_the_same(capsys):
    for words_ in ("dqn_mlp", "mlp"):
        assert app(["describe", words_, "--format", "json"], result_action="return_value") == 0
        found = json.loads(capsys.readouterr().out)
        assert found == json.loads(json.dumps(describe(words_).to_dict()))
        assert app(["describe", words_], result_action="return_value") == 0
        shown = capsys.readouterr().out
        for row in found["rows"]:
            assert row["name"][:12] in shown


def test_html_is_escaped(monkeypatch):
    space = {"critic.activation": Choice("tanh")}
    found = description.of_recipe("<b>x</b>", Recipe("dqn", "mlp", space=space))
    assert "<b>" not in found._repr_html_()


def test_the_page_of_the_documentation_is_what_the_command_writes(capsys):
    assert app(["describe", "--format", "markdown"], result_action="return_value") == 0
    assert capsys.readouterr().out == PAGE.read_text("utf-8"), (
        "write it again: hyperlax describe --format markdown > docs/reference/hyperparameters.md"
    )


def test_the_page_lists_every_reference_that_it_names():
    text = PAGE.read_text("utf-8")
    body, _, listed = text.partition("## References")
    named = {short for short in literature.REFERENCES if short in body}
    assert named
    assert named == {short for short in literature.REFERENCES if f"* {short}:" in listed}


@pytest.mark.parametrize(
    ("space", "extent", "scale", "varies"),
    [
        (Uniform(0.9, 0.999), "0.9 to 0.999", "linear", True),
        (LogUniform(1e-5, 1e-3), "1e-05 to 0.001", "log", True),
        (Integers(1, 3), "1 to 3", "integers", True),
        (Integers(2, 2), "2 to 2", "integers", False),
        (Choice(True, False), "true, false", "choice", True),
        (Choice(1, 2, 3, 4, 5, 6), "1, 2, … 6", "choice", True),
        (Choice("tanh", "tanh"), "tanh, tanh", "choice", False),
        (Joint(("a", "b"), (1, 2), (3, 4)), "together a, b: 1, 2; 3, 4", "choice", True),
    ],
)
def test_spaces_in_words(space, extent, scale, varies):
    assert (words.extent(space), words.scale(space), words.varies(space)) == (extent, scale, varies)


PATHS = [
    f.path for name in ("ppo_mlp", "dqn_mlp", "sac_mlp") for f in fields(recipes.resolve(name).hyperparams())
]
FLAGS = [
    "env-config",
    "algo-and-network-config",
    "num-samples",
    "seeds",
    "seed",
    "device",
    "set",
    "output-root",
]


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("lr", PATHS, ["actor_lr", "critic_lr", "q_lr", "alpha_lr"]),
        ("learning_rate", PATHS, ["actor_lr", "critic_lr", "q_lr", "alpha_lr"]),
        ("LayerNorm", PATHS, ["actor.layer_norm", "critic.layer_norm"]),
        ("critic.hidden_size", PATHS, ["critic.width"]),
        ("discount", PATHS, ["gamma"]),
        ("n_envs", PATHS, ["num_envs"]),
        ("numEnvs", PATHS, ["num_envs"]),
        ("polyak", PATHS, ["tau"]),
        ("gama", PATHS, ["gamma"]),
        ("env", FLAGS, ["env-config"]),
        ("algo", FLAGS, ["algo-and-network-config"]),
        ("sede", FLAGS, ["seed"]),
        ("n-seeds", FLAGS, ["seeds"]),
        ("CartPole-v1", ["gymnax.cartpole", "gymnax.pendulum"], ["gymnax.cartpole"]),
        ("HalfCheetah-v4", ["brax.halfcheetah", "brax.ant"], ["brax.halfcheetah"]),
        ("acro", ["gymnax.acrobot"], ["gymnax.acrobot"]),
        ("zzz", PATHS, []),
        ("", PATHS, []),
    ],
)
def test_names_are_suggested_across_spellings(typed, known, meant):
    assert alike(typed, known) == meant


def test_every_spelling_stands_for_something():
    """What `SPELLINGS` says is the end of the name of a hyperparameter, a setting or a flag that there is."""
    from hyperlax.experiments.settings import Settings

    nets = [f"net.{f.path}" for n in NETWORKS.built_in for f in fields(NETWORKS[n]())]
    flags = {
        f
        for c in app._commands
        if not c.startswith("-") and app[c].default_command is not None
        for a in app[c].assemble_argument_collection()
        for f in a.names
    }
    known = [*PATHS, *nets, *Settings.__dataclass_fields__, *(f.lstrip("-") for f in flags)]
    for typed, ends in SPELLINGS.items():
        for end in ends:
            last = re.findall(r"[a-z0-9]+", end)
            assert any(re.findall(r"[a-z0-9]+", k)[-len(last) :] == last for k in known), (typed, end)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("lr", "did you mean actor_lr, a hyperparameter of ppo and sac or critic_lr"),
        ("polyak", "did you mean tau, a hyperparameter of dqn and sac"),
        ("Acrobot-v1", 'did you mean "gymnax.acrobot"'),
        ("ppo_mpl", 'did you mean "ppo_mlp"'),
    ],
)
def test_unknown_names_are_answered_with_known_ones(typed, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        describe(typed)


def test_the_defaults_of_a_network_are_its_own():
    assert {row.name: row.default for row in describe("mlp").rows} == {
        f.path: f.default for f in fields(MLPHyperparams())
    }


def test_a_recipe_and_results_print_what_they_are():
    printed = str(Recipe("dqn", "mlp", space={"gamma": 0.9, "tau": LogUniform(0.001, 0.1)}, only=True))
    assert printed.splitlines() == [
        "dqn_mlp: 1 searched, 1 fixed",
        "  tau: 0.001 to 0.1 (log)",
        "  gamma = 0.9",
    ]
    results = synthetic(samples=4, seeds=2, diverged=(1,))
    assert "4, with 2 seeds each" in repr(results)
    assert "7 done, 1 diverged" in repr(results)
    lasts = results.curves.filter(pl.col("metric") == "return").sort("env_steps").group_by("lane").last()
    best = lasts.sort("value")[-1]
    said = f"{best['value'][0]:.4g} (sample {best['sample'][0]}, seed {best['seed'][0]})"
    assert said in repr(results)
    manifest = {**results.manifest, "recipe": "<i>x</i>"}
    assert "<i>" not in dataclasses.replace(results, manifest=manifest)._repr_html_()
    assert "none yet" in repr(nothing_yet())
