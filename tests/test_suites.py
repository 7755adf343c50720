"""The cells of a suite, the impossible ones among them, and how flags change a suite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hyperlax import sweeps
from hyperlax.experiments.recipes import resolve
from hyperlax.studies.suites import MODES, Mode, Rule, Suite, cells, find, prepare

SMALL = Suite(("ppo_mlp", "dqn_mlp"), ("gymnax.pendulum", "gymnax.cartpole"), samples=2, run_length="quick")


def test_every_combination_is_a_cell_and_impossible_ones_say_why():
    found = cells(SMALL)
    assert [c.name for c in found if c.skipped is None] == [
        "ppo_mlp on gymnax.pendulum, batched",
        "ppo_mlp on gymnax.cartpole, batched",
        "dqn_mlp on gymnax.cartpole, batched",
    ]
    (skipped,) = [c for c in found if c.skipped]
    assert skipped.name == "dqn_mlp on gymnax.pendulum, batched"
    assert "DQN needs discrete actions" in str(skipped.skipped)
    assert len({c.path for c in found}) == 4


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Suite(("ppo_mlp",), ("gymnax.cartpole",), ("batchd",)),
            'unknown sweep mode batchd.*"batched"',
        ),
        (lambda: Suite((), ("gymnax.cartpole",)), "at least one name in algos"),
        (lambda: Suite(("ppo_mlp", "ppo_mlp"), ("gymnax.cartpole",)), "ppo_mlp is named twice in algos"),
        (lambda: Suite(("ppo_mlp",), ("gymnax.cartpole",), samples=0), "samples must be at least 1"),
        (lambda: find("ppo_mlp_vs_drpq"), 'did you mean "ppo_mlp_vs_drpqc"'),
        (lambda: find("nowhere.py:mine"), "nowhere.py does not exist"),
        (lambda: cells(Suite(("ppo_mpl",), ("gymnax.cartpole",))), 'did you mean "ppo_mlp"'),
        (lambda: cells(Suite(("ppo_mlp",), ("gymnax.cartpol",))), "gymnax.cartpole"),
    ],
)
def test_invalid_suites_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_suite_in_a_users_file_is_found(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from hyperlax import Suite\nSUITES = {'a': Suite(('ppo_mlp',), ('gymnax.cartpole',))}\n")
    assert find(f"{path}:a") == find(str(path)) == Suite(("ppo_mlp",), ("gymnax.cartpole",))


@pytest.mark.parametrize("name", ["ppo_mlp_vs_drpqc", "ppo_families", "reproduction_small"])
def test_shipped_suites_name_what_exists(name):
    suite = find(name)
    assert [resolve(a) for a in suite.algos]
    assert [c for c in cells(suite) if c.skipped is None]


def test_the_published_suite_is_the_published_benchmark():
    """It has 30 cells: DQN and PPO on two environments with discrete actions, PPO and SAC on three others."""
    suite = find("published")
    gymnax = tuple(e for e in suite.envs if e.startswith("gymnax."))
    assert set(suite.envs) - set(gymnax) == {"brax.inverted_double_pendulum"}
    found = cells(replace(suite, envs=gymnax))
    pairs = {(c.recipe.rpartition(".")[2], c.env) for c in found if c.skipped is None}
    discrete, continuous = ("gymnax.cartpole", "gymnax.acrobot"), ("gymnax.pendulum", "gymnax.reacher")
    nets = ("mlp", "tmlp", "drpqc")
    assert pairs == {
        (f"{a}_{n}", e)
        for algos, where in ((("dqn", "ppo"), discrete), (("ppo", "sac"), continuous))
        for a in algos
        for n in nets
        for e in where
    }
    why = {c.skipped for c in found if "sac" in c.recipe and c.skipped}
    assert why == {"the published benchmark has no SAC on discrete actions"}


@pytest.mark.parametrize(
    ("name", "protocol"), [("published", "published"), ("published_corrected", "corrected")]
)
def test_the_published_suites_follow_their_protocol(name, protocol):
    """Settings and samples are the published ones; the first two samples of PPO with MLPs are known."""
    suite = find(name)
    cell = next(c for c in cells(replace(suite, algos=suite.algos[3:4], envs=("gymnax.cartpole",))))
    spec = prepare(suite, cell)
    s = spec.settings
    assert (s.total_timesteps, s.evaluations, s.eval_episodes, s.seeds, s.seed) == (5_000_000, 40, 32, 4, 42)
    assert s.protocol == protocol
    assert s.evaluation == {"published": "sampled", "corrected": "deterministic"}[protocol]
    assert spec.samples["num_envs"].to_list()[:2] == [1024, 2048]
    assert spec.samples["gamma"].to_list()[:2] == pytest.approx([0.972561, 0.900492], abs=1e-6)
    assert len(spec.trees) == 64


RULED = Suite(
    ("ppo_mlp", "dqn_mlp"),
    ("gymnax.cartpole", "gymnax.acrobot"),
    samples=2,
    run_length="quick",
    settings={"seeds": 3, "gamma": 0.9},
    rules=(
        Rule(algo="*dqn_*", env="*.acrobot", skip="not today"),
        Rule(env="*.cartpole", settings={"gamma": 0.8, "protocol": "published"}),
        Rule(algo="dqn_mlp", settings={"gamma": 0.7}),
    ),
)


def settings_of(suite: Suite, **given):
    specs = {c.name.partition(",")[0]: prepare(suite, c, **given) for c in cells(suite) if c.skipped is None}
    return {
        name: (float(s.trees[0].gamma), s.settings.protocol, s.settings.seeds)  # pyright: ignore
        for name, s in specs.items()
    }


def test_rules_skip_cells_and_set_what_is_special_about_them():
    skipped = [(c.name, c.skipped) for c in cells(RULED) if c.skipped]
    assert skipped == [("dqn_mlp on gymnax.acrobot, batched", "not today")]
    assert settings_of(RULED) == {
        "ppo_mlp on gymnax.cartpole": (pytest.approx(0.8), "published", 3),
        "ppo_mlp on gymnax.acrobot": (pytest.approx(0.9), "corrected", 3),
        "dqn_mlp on gymnax.cartpole": (pytest.approx(0.7), "published", 3),
    }


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("brax.ant[backend=mjx]", True),
        ("brax.*[backend=*]", True),
        ("*ant*", True),
        ("*", True),
        ("brax.ant", False),
        ("brax.ant[mjx]", False),
        ("brax?ant[backend=mjx]", False),
    ],
)
def test_only_the_star_of_a_rule_stands_for_other_characters(pattern, fits):
    """Brackets hold the options of an environment."""
    assert Rule(env=pattern).matches("ppo_mlp", "brax.ant[backend=mjx]") == fits
    assert Rule(algo=pattern).matches("brax.ant[backend=mjx]", "gymnax.cartpole") == fits


def test_flags_and_set_win_over_a_suite_and_its_rules():
    changed = RULED.changed({"envs": ("gymnax.cartpole",)}, {"gamma": "0.6"}, ["protocol", "seeds"])
    assert settings_of(changed, protocol="corrected", seeds=1) == {
        "ppo_mlp on gymnax.cartpole": (pytest.approx(0.6), "corrected", 1),
        "dqn_mlp on gymnax.cartpole": (pytest.approx(0.6), "corrected", 1),
    }


def test_recipes_of_one_folder_are_refused(tmp_path):
    text = "from hyperlax import Recipe\nRECIPES = {'a': Recipe('ppo', 'mlp')}\n"
    names = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
        names.append(f"{tmp_path / folder / 'mine.py'}:a")
    with pytest.raises(ValueError, match=r"would share the folder batched/mine\.py_a/gymnax\.cartpole"):
        cells(Suite(tuple(names), ("gymnax.cartpole",)))


def test_a_new_entry_in_modes_can_be_used(monkeypatch):
    """A mode added to `MODES` prepares the experiments of its cells."""

    def one(suite, recipe, env, **arguments):
        return sweeps.prepare(recipe, env, samples=[{"gamma": 0.5}], **arguments)

    monkeypatch.setitem(MODES, "mine", Mode(prepare=one))
    (cell,) = cells(Suite(("ppo_mlp",), ("gymnax.cartpole",), ("mine",)))
    assert prepare(SMALL, cell).samples["gamma"].to_list() == [0.5]
    assert str(cell.path) == "mine/ppo_mlp/gymnax.cartpole"
