"""Names: every way of naming every kind of thing, and what is said when a name cannot be."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import jax.random as jr
import pytest

from hyperlax import envs, exporters, schedules
from hyperlax.agents import AGENTS, PPOHyperparams
from hyperlax.commands import main as cli
from hyperlax.experiments import recipes
from hyperlax.networks import NETWORKS, MLPHyperparams
from hyperlax.registry import Registry, base, build, nearest, short_name
from hyperlax.registry.modules import load_file
from hyperlax.storage.files import experiment_path
from hyperlax.studies import suites
from hyperlax.typecheck import public

MINE = """
from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from hyperlax import Recipe, Suite, schedules
from hyperlax.agents import PPOHyperparams
from hyperlax.envs import AbstractEnv, Box, Timestep
from hyperlax.networks import MLP, MLPHyperparams
from sibling import START


@dataclasses.dataclass(frozen=True)
class Constants:
    start: float = START


class Line(AbstractEnv):
    # a point that an action moves

    obs_size: int = eqx.field(static=True, default=1)
    action_space: Box = Box((-1.0,), (1.0,))
    max_episode_steps: int = eqx.field(static=True, default=7)
    speed: float = eqx.field(static=True, default=0.5)

    def reset(self, *, key):
        start = jnp.full((1,), Constants().start)
        return (start, jnp.int32(0)), start

    def step(self, state, action: Float[Array, " act"], *, key):
        place, t = state[0] + self.speed * action, state[1] + 1
        late = t >= self.max_episode_steps
        return (place, t), Timestep(place, -jnp.abs(place[0]), jnp.bool_(False), late)


class Deep(eqx.Module):
    pass


class DeepHyperparams(MLPHyperparams):
    pass


class OnlyPPOHyperparams(PPOHyperparams):
    pass


class Patient(schedules.ASHA):
    pass


def write(runs, destination):
    return f"{len(runs)} runs at {destination}"


def helper():
    return 1


RECIPES = {"small": Recipe("ppo", "mlp", {"gamma": 0.5})}
SUITES = {"both": Suite(("ppo_mlp",), ("gymnax.cartpole",))}
"""
FINDERS = {
    "environment": (envs.load, "Line"),
    "network": (NETWORKS.resolve, "DeepHyperparams"),
    "algorithm": (AGENTS.resolve, "OnlyPPOHyperparams"),
    "scheduler": (lambda name: schedules.load(name, {}), "Patient"),
    "tracker": (exporters.EXPORTERS.resolve, "write"),
    "recipe": (recipes.resolve, "small"),
    "suite": (suites.find, "both"),
}
"""Kind → how a name is looked up, and what the file `MINE` calls one."""


def of_mine(found):
    """Whether it is what `MINE` defines."""
    kind = found if isinstance(found, type) or callable(found) else type(found)
    return "mine" in kind.__module__ or found in (
        recipes.Recipe("ppo", "mlp", {"gamma": 0.5}),
        suites.Suite(("ppo_mlp",), ("gymnax.cartpole",)),
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with `lib/mine.py`, next to what it imports, and another one that is the current folder."""
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "sibling.py").write_text("START = 0.25\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    known = set(sys.modules)
    base._installed.cache_clear()
    yield tmp_path
    base._installed.cache_clear()
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("kind", FINDERS)
def test_a_file_is_found_from_the_current_folder(kind, place, monkeypatch):
    find, name = FINDERS[kind]
    assert of_mine(find(f"../lib/mine.py:{name}"))
    monkeypatch.setenv("HOME", str(place))
    assert of_mine(find(f"~/lib/mine.py:{name}"))
    monkeypatch.chdir(place / "lib")
    assert of_mine(find(f"mine.py:{name}"))


@pytest.mark.parametrize("kind", FINDERS)
def test_a_module_is_found_where_python_finds_it(kind, place, monkeypatch):
    find, name = FINDERS[kind]
    monkeypatch.syspath_prepend(str(place / "lib"))
    assert of_mine(find(f"mine:{name}"))


@pytest.mark.parametrize("kind", FINDERS)
def test_an_installed_package_brings_names(kind, place, monkeypatch):
    find, name = FINDERS[kind]
    groups = {"environment": "envs", "tracker": "exporters"}
    group = groups.get(kind) or {"algorithm": "agents"}.get(kind, f"{kind}s").replace(
        "schedulers", "schedules"
    )
    info = place / "lib" / "line_world-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: line-world\nVersion: 1.2\n")
    attribute = {"recipe": "RECIPES.small", "suite": "SUITES.both"}.get(kind, name)
    attribute = {"recipe": "small", "suite": "both"}.get(kind, attribute)
    (info / "entry_points.txt").write_text(f"[hyperlax.{group}]\nbrought = mine:{attribute}\n")
    monkeypatch.syspath_prepend(str(place / "lib"))
    base._installed.cache_clear()
    assert of_mine(find("brought"))


def test_list_says_which_package_a_name_comes_from(place, monkeypatch, capsys):
    info = place / "lib" / "line_world-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: line-world\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[hyperlax.networks]\ndeep = mine:Deep\n[hyperlax.envs]\nline = mine:Line\n"
    )
    monkeypatch.syspath_prepend(str(place / "lib"))
    base._installed.cache_clear()
    with pytest.raises(SystemExit):
        cli.main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert "  deep  (line-world 1.2)" in lines
    assert "  line  (line-world 1.2)" in lines
    assert "  mlp" in lines
    assert "  ppo_deep" in lines, "a network makes a pair with every algorithm"
    assert recipes.resolve("ppo_deep").classes[1].__name__ == "DeepHyperparams"


def test_a_name_that_two_packages_claim_is_refused_with_both(place, monkeypatch):
    for package in ("one", "two"):
        info = place / "lib" / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[hyperlax.networks]\nclaimed = {package}.mod:Deep\n")
    monkeypatch.syspath_prepend(str(place / "lib"))
    base._installed.cache_clear()
    with pytest.raises(
        ValueError, match=r"claimed by (one\.mod|two\.mod):Deep of .* and (one|two)\.mod:Deep"
    ):
        NETWORKS.resolve("claimed")


@pytest.fixture
def declared(place, monkeypatch):
    """A function that installs a package with the given entry points."""

    def install(text):
        info = place / "lib" / "line_world-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: line-world\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(text)
        monkeypatch.syspath_prepend(str(place / "lib"))
        base._installed.cache_clear()

    return install


@pytest.mark.parametrize(
    ("group", "attribute", "name", "find"),
    [
        ("agents", "OnlyPPOHyperparams", "ppo", AGENTS.resolve),
        ("envs", "Line", "gymnax.cartpole", envs.load),
        ("envs", "Line", "gymnax.mine", envs.load),
        ("recipes", "small", "ppo_mlp", recipes.resolve),
        ("suites", "both", "ppo_mlp_vs_drpqc", suites.find),
    ],
)
def test_a_built_in_name_that_a_package_claims_is_refused_with_both(group, attribute, name, find, declared):
    declared(f"[hyperlax.{group}]\n{name} = mine:{attribute}\n")
    found = AGENTS._found.pop(name, None)
    try:
        with pytest.raises(ValueError, match=rf'"{name}" is claimed by .+ and mine:{attribute} of line'):
            find(name)
    finally:
        if found is not None:
            AGENTS._found[name] = found


def test_a_name_that_cannot_be_used_is_not_offered_and_said(declared, capsys):
    declared("[hyperlax.agents]\na+b = mine:OnlyPPOHyperparams\n[hyperlax.networks]\nn.py = mine:Deep\n")
    assert list(AGENTS) == ["ppo", "dqn", "sac"]
    with pytest.raises(ValueError, match=r'"a\+b" of line-world 1\.2 cannot be used: a name begins'):
        recipes.resolve("a+b_mlp")
    with pytest.raises(SystemExit):
        cli.main(["list"])
    assert '  note: the network "n.py" of line-world 1.2 cannot be used' in capsys.readouterr().out


def test_an_environment_of_ones_own_takes_options_of_their_types(place):
    env = envs.load("../lib/mine.py:Line[speed=2,max_episode_steps=3]")
    state, obs = env.reset(key=jr.key(0))
    _, seen = env.step(state, jnp.ones(1), key=jr.key(1))
    assert (obs.tolist(), seen.obs.tolist(), env.max_episode_steps) == ([0.25], [2.25], 3)
    with pytest.raises(ValueError, match=r'has no option "sped"; did you mean "speed"'):
        envs.load("../lib/mine.py:Line[sped=2]")
    with pytest.raises(ValueError, match=r"max_episode_steps needs an integer, got '2.5'"):
        envs.load("../lib/mine.py:Line[max_episode_steps=2.5]")


def test_a_class_stands_for_its_hyperparameters(place):
    assert NETWORKS.resolve("../lib/mine.py:Deep") is NETWORKS.resolve("../lib/mine.py:DeepHyperparams")
    assert NETWORKS.resolve("hyperlax.networks.mlp:MLP") is MLPHyperparams
    assert AGENTS.resolve("hyperlax.agents:PPO") is PPOHyperparams
    assert AGENTS.resolve("../lib/mine.py:OnlyPPO").__name__ == "OnlyPPOHyperparams"


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("ppo+../lib/mine.py:Deep", "ppo_Deep"),
        ("../lib/mine.py:OnlyPPOHyperparams+mlp", "OnlyPPOHyperparams_mlp"),
        ("../lib/mine.py:OnlyPPOHyperparams+../lib/mine.py:Deep", "OnlyPPOHyperparams_Deep"),
        ("ppo+mlp", "ppo_mlp"),
    ],
)
def test_a_pair_is_a_recipe_and_a_folder(name, called, place):
    recipe = recipes.resolve(name)
    assert recipe.name == called
    assert str(experiment_path(name, "gymnax.cartpole")) == f"{called}/gymnax.cartpole"
    networks = recipe.hyperparams().nested_networks()
    assert {type(network) for network in networks.values()} == {recipe.classes[1]}
    assert "actor.width" in recipe.search_space()


def test_folders_stay_below_the_output_root():
    assert str(experiment_path("ppo_mlp", "brax.ant[backend=mjx]")) == "ppo_mlp/brax.ant[backend=mjx]"
    assert (
        str(experiment_path("ppo_mlp", "../lib/mine.py:Line[speed=1e-3]"))
        == "ppo_mlp/mine.py.Line[speed=1e-3]"
    )
    assert len(experiment_path("a/b.py:c", "x[a=../../../esc]").parts) == 2


def test_a_file_runs_once_and_its_classes_stay_the_same(place):
    (place / "lib" / "counted.py").write_text(
        "import sibling\nsibling.RUNS = getattr(sibling, 'RUNS', 0) + 1\n"
    )
    first = load_file("../lib/counted.py")
    assert load_file(place / "lib" / "counted.py") is first
    assert first.sibling.RUNS == 1
    assert str(place / "lib") not in sys.path, "only while it is loaded"


def test_a_file_that_has_changed_since_it_was_run_is_said_once(place, caplog):
    file = place / "written.py"
    file.write_text("number = 1\n")
    assert load_file(file).number == load_file(file).number == 1
    assert not caplog.messages
    file.write_text("number = 2\n")
    assert load_file(file).number == load_file(file).number == 1
    (message,) = caplog.messages
    assert "written.py has changed since this process loaded it" in message
    assert "restart the kernel" in message


def test_a_script_that_names_itself_is_not_run_again(tmp_path):
    (tmp_path / "script.py").write_text(
        "from hyperlax.registry import load_file\nimport sys\n"
        "print('running')\nassert load_file('script.py') is sys.modules['__main__']\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "running\n"


def test_a_module_beside_a_file_is_never_that_of_another_folder(place):
    load_file("../lib/mine.py")
    other = place / "other"
    other.mkdir()
    (other / "sibling.py").write_text("START = 9.0\n")
    (other / "theirs.py").write_text("from sibling import START\n")
    with pytest.raises(
        ValueError, match=r"theirs\.py imports sibling\.py, but the module sibling is that of .*lib"
    ):
        load_file(other / "theirs.py")


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("x = (1,\n", "Net", r"broken\.py, line 1: '\(' was never closed"),
        ("\n\ny = nothing\n", "Net", r"NameError: name 'nothing' is not defined .*broken\.py, line 3"),
        ("import not_there\n", "Net", r"No module named 'not_there' .*broken\.py, line 1"),
        ("from hyperlax.networks import MLP\n", "Mlp", 'has no network called "Mlp"; did you mean "MLP"'),
        (
            "x = 1\n",
            "x",
            r"x is an object of int; a network is a class derived from hyperlax\.net",
        ),
        ("class Net: pass\n", "Net", "Net is a class derived from object; a network"),
        ("def net(): pass\n", "net", "net is a function; a network"),
        (
            "from hyperlax.networks import AbstractNetworkHyperparams\n"
            "class Net(AbstractNetworkHyperparams): pass\n",
            "Net",
            r"Net is abstract: it lacks .*network",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_place(text, name, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ValueError, match=f'network "broken.py:{name}": .*{problem}'):
        NETWORKS.resolve(f"broken.py:{name}")


def test_a_file_that_holds_just_one_needs_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = "from hyperlax.networks import MLPHyperparams\n"
    (tmp_path / "one.py").write_text(f"{start}class Net(MLPHyperparams): pass\n")
    (tmp_path / "two.py").write_text(f"{start}class A(MLPHyperparams): pass\nclass B(MLPHyperparams): pass\n")
    (tmp_path / "none.py").write_text(start)
    assert NETWORKS.resolve("one.py").__name__ == "Net"
    with pytest.raises(ValueError, match=r"two\.py holds A, B; name one, two\.py:A"):
        NETWORKS.resolve("two.py")
    with pytest.raises(ValueError, match=r"none\.py holds no network"):
        NETWORKS.resolve("none.py")
    with pytest.raises(ValueError, match=r'ones\.py does not exist in .*; did you mean "one\.py"'):
        NETWORKS.resolve("ones.py")
    with pytest.raises(ValueError, match=r"to name the file one\.py, write one\.py:Name"):
        NETWORKS.resolve("one:Net") if "one" not in sys.modules else None


def test_unknown_names_get_the_nearest():
    for registry, name, close in ((AGENTS, "pp0", "ppo"), (NETWORKS, "mpl", "mlp")):
        with pytest.raises(ValueError, match=f'unknown {registry.noun} "{name}"; did you mean "{close}"'):
            registry.resolve(name)
        with pytest.raises(KeyError):
            registry[name]


def test_only_what_may_have_been_mistyped_is_suggested():
    assert nearest("defualt", ["quick", "default"]) == '; did you mean "default"?'
    for name, known in (("fast", "default"), ("bayes", "cmaes"), ("a2c_mlp", "sac_mlp")):
        assert nearest(name, ["quick", known]) == ""


def test_a_registry_validates_what_it_is_asked_for(place, monkeypatch):
    (place / "lib" / "rules.py").write_text(
        "def no_deep(name, kind):\n"
        "    if 'Deep' in kind.__name__:\n"
        "        raise ValueError(f'{name} is too deep; make it shallow')\n"
    )
    monkeypatch.syspath_prepend(str(place / "lib"))
    strict = Registry(
        "network",
        "hyperlax.nothing",
        {"mlp": "hyperlax.networks:MLPHyperparams"},
        "hyperlax.networks.base:AbstractNetworkHyperparams",
        validate="rules:no_deep",
    )
    assert strict["mlp"] is MLPHyperparams
    with pytest.raises(ValueError, match="DeepHyperparams is too deep; make it shallow"):
        strict.resolve("mine:DeepHyperparams")


def test_data_names_nothing_but_what_is_registered(place):
    name = "../lib/mine.py:Line"
    before = set(sys.modules)
    for bad in (name, "os:system", "os:system[command=touch x]"):
        with pytest.raises(ValueError, match="may be any code; give env"):
            envs.trusted(bad, "give env=...")
    assert not [module for module in set(sys.modules) - before if module.startswith("_hyperlax_")]
    assert of_mine(envs.load(name))
    with pytest.raises(ValueError, match="may be any code; give env"):
        envs.trusted(f"{name}[speed=1]", "give env=...")
    assert envs.trusted("gymnax.cartpole", "").obs_size == 4


def test_options_are_converted_and_missing_ones_named():
    def make(count: int, flag: bool = False, *, name: str = "x"):
        return count, flag, name

    assert build("it", make, {"count": "1e3", "flag": "true"}) == (1000, True, "x")
    with pytest.raises(ValueError, match=r"it needs the option o\.count"):
        build("it", make, {}, prefix="o.")


def test_an_unknown_parameter_is_refused_with_the_nearest():
    @public
    def train(num_samples: int = 1, *, seeds: int = 2) -> int:
        return num_samples * seeds

    assert train(3, seeds=4) == 12
    with pytest.raises(
        TypeError, match=r'train\(\) has no parameter "num_sample"; did you mean "num_samples"\?'
    ):
        train(num_sample=3)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("name", "short"),
    [("mlp", "mlp"), ("a/my.py:Net", "Net"), ("my.py", "my"), ("pkg.mod:Net", "Net"), ("a b/c", "a_b_c")],
)
def test_short_names_are_file_names(name, short):
    assert short_name(name) == short


def test_importing_the_registries_imports_nothing_else():
    code = """
    import sys
    from hyperlax.registry import built_in
    assert "ppo" in built_in.AGENTS and list(built_in.EXPORTERS)
    assert not {m for m in sys.modules if m.startswith("hyperlax.")} - {
        "hyperlax.registry.moved", "hyperlax.registry", *(f"hyperlax.registry.{m}" for m in
        ("base", "built_in", "foreign", "modules", "spellings", "words"))
    }
    assert "jax" not in sys.modules
    """
    environment = {"PATH": "/usr/bin", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)


@pytest.mark.parametrize("kind", ["float", "float | None", "Optional[float]", float | None])
@pytest.mark.parametrize("default", [10, None])
def test_text_becomes_what_the_annotation_says_whatever_the_default(kind, default):
    def make(gravity=default):
        return gravity

    make.__annotations__["gravity"] = kind
    assert build("it", make, {"gravity": "9.8"}) == 9.8
    assert build("it", make, {}) == default


def test_text_becomes_what_the_default_is_where_no_annotation_says_more():
    def make(number=3, word="a", anything=None, several: "int | str" = 2):
        return number, word, anything, several

    given = {"number": "4", "word": "5", "anything": "6", "several": "7"}
    assert build("it", make, given) == (4, "5", "6", 7)


@pytest.mark.parametrize(
    ("kind", "default", "text", "value"),
    [
        (float | None, 1.0, "none", None),
        ("float | None", 1.0, "None", None),
        ("Optional[int]", 1, " none", None),
        (bool, None, "none", None),
        (str | None, "a", "none", "none"),
        (tuple[int, float], (1, 2.0), "(3,4)", (3, 4.0)),
        ("tuple[float, ...]", (), "(3, 4, 5.5)", (3.0, 4.0, 5.5)),
        ("Tuple[int, ...] | None", (1,), "none", None),
        (list[int], None, "[3]", [3]),
        ("list", (1.0,), "()", []),
        (inspect.Parameter.empty, (1, 2), "(3,1e2)", (3, 100)),
        (tuple[int, int], (1, 2), (3, 4), (3, 4)),
    ],
)
def test_text_becomes_a_tuple_or_none_where_the_annotation_says_so(kind, default, text, value):
    def make(size=default):
        return size

    make.__annotations__ = {} if kind is inspect.Parameter.empty else {"size": kind}
    found = build("it", make, {"size": text})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (tuple[int, int], "3", r"size needs 2 values in parentheses, such as \(1,2\), got '3'"),
        (tuple[int, ...], 3, r"size needs values in parentheses"),
        (tuple[int, int], "(3,x)", "size needs an integer, got 'x'"),
        (tuple[int, int], "none", "size needs 2 values"),
        (float, "none", "size needs a number, got 'none'"),
    ],
)
def test_text_that_is_no_such_tuple_is_refused(kind, text, message):
    def make(size: object = 1.0):
        return size

    make.__annotations__["size"] = kind
    with pytest.raises(ValueError, match=message):
        build("it", make, {"size": text})


def test_a_tuple_is_one_option_of_an_environment():
    name = envs.with_options("my.py:Field", {"size": (3, 4), "wind": None, "mode": "a"})
    assert envs._split(name) == ("my.py:Field", {"size": "(3, 4)", "wind": "None", "mode": "a"})
    with pytest.raises(ValueError, match=r'several values of one as in "size=\(3,4\)", got .4.'):
        envs._split("my.py:Field[size=3,4]")


def test_an_option_is_given_once():
    with pytest.raises(ValueError, match="an option is given twice"):
        envs.load("brax.ant[backend=mjx,backend=spring]")
