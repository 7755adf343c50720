"""Policies play episodes, which are drawn; other programs act as they do."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image, ImageSequence
from test_policies import trained

from hyperlax import envs, policies
from hyperlax.commands import main as cli
from hyperlax.envs.base import AbstractEnv, Box
from hyperlax.envs.brax_scenes import rotated
from hyperlax.envs.gymnax_scenes import SCENES
from hyperlax.experiments.recipes import resolve
from hyperlax.hyperparams import assign
from hyperlax.networks import PQCHyperparams
from hyperlax.networks.base import abstract_network
from hyperlax.policies import films, reference
from hyperlax.policies.gymnasium import GymnasiumPolicy
from hyperlax.policies.policy import Policy
from hyperlax.storage.checkpoint import read_header, with_header

ENVS = ["gymnax.cartpole", pytest.param("gymnax.pendulum", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=ENVS)
def saved(request, tmp_path_factory):
    """The file of a policy, in the folder of an experiment, and the policy."""
    path = tmp_path_factory.mktemp("results") / "policies" / "lane-00003.policy"
    recipe, _, caps, agent = trained(request.param)
    about = {"lane": 3, "env_steps": 500, "score": 1.5, "definition": "mean return of 4 episodes"}
    policies.save(path, jax.tree.map(np.asarray, agent), recipe, request.param, caps, **about)
    return path, policies.load(path)


@pytest.fixture(scope="module")
def played(saved):
    return saved[1].rollout(episodes=3, seed=7, states=True)


def run(*words: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    assert isinstance(left.value.code, int)
    return left.value.code


# Acting


def test_a_batch_is_acted_on_as_its_observations_are(saved):
    policy = saved[1]
    obs = np.asarray(jr.normal(jr.key(0), (2, 3, policy.env.obs_size)))
    each = np.stack([[policy.act(o) for o in row] for row in obs])
    together = policy.act(obs)
    assert isinstance(together, np.ndarray)
    assert together.shape == (2, 3, *policy.env.action_space.shape)
    np.testing.assert_allclose(together, each, rtol=1e-5, atol=1e-6)
    assert policy.act(obs[:, :0]).shape == (2, 0, *policy.env.action_space.shape)


def test_acting_can_be_compiled_and_mapped(saved):
    policy = saved[1]
    obs = jr.normal(jr.key(1), (4, policy.env.obs_size))
    expected = policy.act(obs)
    for f in (jax.vmap(policy.act), jax.jit(policy.act), jax.jit(jax.vmap(policy.act))):
        np.testing.assert_allclose(f(obs), expected, rtol=1e-5, atol=1e-6)


def test_a_batch_draws_a_number_for_each_observation(saved):
    policy = saved[1]
    actions = policy.act(jnp.zeros((64, policy.env.obs_size)), key=jr.key(0))
    assert len(np.unique(actions)) > 1


# Episodes


def test_episodes_are_those_of_the_environment(saved, played):
    """Every recorded step is that of the environment from the recorded state, and of the policy."""
    env, policy = saved[1].env, saved[1]
    step = jax.jit(lambda state, action: env.step(state, action, key=jr.key(0)))  # nothing in it is random
    for number in range(3):
        states, length = played.episode(number), int(played.lengths[number])
        assert len(states) == length + 1
        actions = policy.act(played.obs[number, :length])
        np.testing.assert_allclose(actions, played.actions[number, :length], rtol=1e-5, atol=1e-6)
        for t in (0, length // 2, length - 1):
            after, seen = step(states[t], played.actions[number, t])
            np.testing.assert_allclose(seen.reward, played.rewards[number, t], rtol=1e-6)
            for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(states[t + 1]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
            if t + 1 < length:
                np.testing.assert_allclose(seen.obs, played.obs[number, t + 1], rtol=1e-5, atol=1e-6)
        assert bool(seen.terminated) == played.terminated[number]
        assert played.terminated[number] or length == env.max_episode_steps
    np.testing.assert_allclose(played.returns, played.rewards.sum(1), rtol=1e-5)
    assert len(np.unique(played.returns)) > 1


def test_episodes_repeat_by_their_seed(saved, played):
    again = saved[1].rollout(episodes=3, seed=7)
    np.testing.assert_array_equal(again.rewards, played.rewards)
    assert not np.array_equal(saved[1].rollout(episodes=3, seed=2**40 + 7).rewards, played.rewards)
    sampled = saved[1].rollout(episodes=3, seed=7, evaluation="sampled")
    np.testing.assert_array_equal(sampled.obs[:, 0], played.obs[:, 0])
    assert not np.array_equal(sampled.rewards, played.rewards)


def test_what_cannot_be_played_is_refused(saved):
    policy = saved[1]
    for wrong, match in (
        ({"env": "gymnax.acrobot"}, "trained on observations of . numbers, not 6"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"evaluation": "greedy"}, "deterministic or sampled"),
        ({"seed": -1}, "seed must be at least 0"),
    ):
        with pytest.raises(ValueError, match=match):
            policy.rollout(**wrong)
    with pytest.raises(TypeError, match="episode"):
        policy.rollout(episode=3)
    with pytest.raises(ValueError, match="states=True"):
        policy.rollout(episodes=1).episode(0)


# Pictures


def test_a_film_shows_the_episode_at_its_speed(played, tmp_path):
    length, seconds = int(played.lengths[0]), played.env.scene(played.episode(0)[0]).seconds
    with Image.open(played.save(tmp_path / "a.gif")) as animation:
        shown = [frame.info["duration"] / 1000 for frame in ImageSequence.Iterator(animation)]
    assert len(shown) <= films.MOST_FRAMES + 1
    assert sum(shown) == pytest.approx(length * seconds + films.LAST, rel=0.1, abs=0.1)
    with Image.open(played.save(tmp_path / "a.png", episode=1)) as sheet:
        assert sheet.width == 4 * films.WIDTH


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_every_picture_shows_what_moves(name):
    """The picture of a state differs from that of another one, and paints more than the background."""
    env = envs.load(f"gymnax.{name}")
    _, episode = jax.jit(lambda key: (key, env.reset(key=key)[0]))(jr.key(0))
    other = env.reset(key=jr.key(5))[0]
    scenes = [env.scene(jax.tree.map(np.asarray, state)) for state in (episode, other)]
    first, second = (np.asarray(films.picture(scene, "")) for scene in scenes if scene is not None)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 2
    assert (first != second).any()


def test_a_quaternion_turns_as_its_matrix_does():
    rng = np.random.default_rng(0)
    q, points = rng.normal(size=4), rng.normal(size=(5, 3))
    w, x, y, z = q = q / np.linalg.norm(q)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    np.testing.assert_allclose(rotated(q, points), points @ matrix.T, atol=1e-12)


class _Plain(AbstractEnv):
    """An environment without pictures, whose episodes end after three steps."""

    obs_size: int = 3
    action_space: Box = Box((-2.0,), (2.0,))
    max_episode_steps: int = 3

    def reset(self, *, key):
        return jnp.zeros(()), jr.normal(key, (3,))

    def step(self, state, action, *, key):
        truncated = state + 1 >= 3
        seen = envs.Timestep(jr.normal(key, (3,)), action[0], jnp.bool_(False), truncated)
        return state + 1, seen


def test_an_environment_without_pictures_says_so(tmp_path):
    recipe, env, _, agent = trained("gymnax.pendulum")
    policy = Policy(agent, env, {"algorithm": recipe.algorithm, "network": recipe.network, "env": "mine"})
    played = policy.rollout(_Plain(), episodes=2, states=True)
    np.testing.assert_array_equal(played.lengths, 3)
    for name, match in (("a.gif", "define scene"), ("a.html", "no page to watch"), ("a.mp4", "must end in")):
        with pytest.raises(ValueError, match=match):
            played.save(tmp_path / name)
    with np.load(played.save(tmp_path / "a.npz"), allow_pickle=False) as file:
        np.testing.assert_array_equal(file["obs"], played.obs)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


# Other programs


def untrained(recipe: str, env_name: str, changes: dict) -> Policy:
    """A policy of any recipe with weights away from zero and statistics of observations."""
    env, own = envs.load(env_name), resolve(recipe)
    hp = assign(own.hyperparams(), changes)
    caps = hp.capacities([hp.sizes()], [1], env)
    agent = hp.agent.__func__(jax.tree.map(jnp.asarray, hp), env, caps, key=jr.key(1))
    agent = agent.observe(jr.normal(jr.key(2), (9, env.obs_size)) * 3 + 1, jnp.ones(9, bool))
    agent = jax.tree.map(lambda x: x * 3 if x.dtype == jnp.float32 and x.ndim == 2 else x, agent)
    return Policy(agent, env, {"algorithm": own.algorithm, "network": own.network, "env": env_name})


SMALL = {"actor.width": 6, "actor.depth": 2, "critic.width": 4, "critic.depth": 1}
CASES = [
    *[
        ("ppo_mlp", "gymnax.pendulum", {**SMALL, "actor.activation": name, "actor.layer_norm": norm})
        for name, norm in (("relu", True), ("silu", False), ("gelu", True), ("elu", False))
    ],
    ("dqn_mlp", "gymnax.cartpole", {"critic.layer_norm": True, "critic.width": 8}),
    ("sac_tmlp", "gymnax.mountain_car_continuous", {"actor.shape": "32=2^5", "critic.shape": "32=2^5"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "env_name", "changes"), CASES)
def test_plain_numpy_acts_as_the_policy(recipe, env_name, changes, tmp_path):
    policy = untrained(recipe, env_name, changes)
    _acts_alike(policy, tmp_path)


def _acts_alike(policy, folder):
    obs = np.random.default_rng(0).normal(size=(40, policy.env.obs_size)) * 2
    plain = reference.load(policy.export(folder / "it.npz"))
    expected = policy.act(obs)
    np.testing.assert_allclose(reference.act(plain, obs), expected, rtol=1e-5, atol=1e-5)
    assert len(np.unique(expected)) > 1
    assert plain["about"]["env"] == policy.header["env"]


def test_a_policy_from_a_padded_program_is_exported_without_padding(saved, tmp_path):
    _acts_alike(saved[1], tmp_path)
    plain = reference.load(tmp_path / "it.npz")
    assert plain["layer0.weight"].shape == (3, saved[1].env.obs_size)
    assert "layer1.weight" not in plain
    assert (plain["about"]["score"], plain["about"]["definition"]) == (1.5, "mean return of 4 episodes")


def fields(data: bytes) -> dict[int, list]:
    """The fields of a protocol buffer by number, read independently of what writes them."""
    found: dict[int, list] = {}
    file = io.BytesIO(data)

    def varint() -> int:
        value = shift = 0
        while True:
            (byte,) = file.read(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while file.tell() < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        value = varint() if wire == 0 else file.read({2: varint, 5: lambda: 4}[wire]())
        found.setdefault(number, []).append(value)
    return found


def _computed(graph: dict[int, list], obs: np.ndarray) -> np.ndarray:
    """What a graph makes of `obs`, by https://onnx.ai/onnx/operators."""

    def array(tensor: dict[int, list]) -> np.ndarray:
        return np.frombuffer(tensor[9][0], "<f4").reshape(tensor[1])

    def normalised(x: Any, scale: Any, shift: Any, epsilon: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * scale + shift

    operators: dict[bytes, Any] = {
        b"Add": np.add,
        b"Sub": np.subtract,
        b"Mul": np.multiply,
        b"Div": np.divide,
        b"Tanh": np.tanh,
        b"Relu": lambda x: np.maximum(x, 0),
        b"Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        b"Elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        b"Gemm": lambda x, weight, bias, transB: x @ (weight.T if transB else weight) + bias,
        b"LayerNormalization": lambda x, scale, shift, axis, epsilon: normalised(x, scale, shift, epsilon),
        b"ArgMax": lambda x, axis, keepdims: x.argmax(axis),
    }
    known: dict[bytes, Any] = {b"obs": obs}
    known |= {tensor[8][0]: array(tensor) for tensor in map(fields, graph[5])}
    for node in map(fields, graph[1]):
        told = {
            a[1][0].decode(): a[3][0] if 3 in a else np.frombuffer(a[2][0], "<f4")[0]
            for a in map(fields, node.get(5, []))
        }
        known[node[2][0]] = operators[node[4][0]](*(known[name] for name in node[1]), **told)
    return known[b"action"]


def test_an_onnx_model_is_a_graph_from_observations_to_actions(saved, tmp_path):
    """Run by the definitions of its operators, and by ONNX where that is installed, it acts as the policy."""
    policy, path = saved[1], tmp_path / "it.onnx"
    model = fields(policy.export(path).read_bytes())
    graph = fields(model[7][0])
    nodes = [fields(node) for node in graph[1]]
    constants = [fields(tensor)[8][0] for tensor in graph[5]]
    known = {b"obs", *constants}
    for node in nodes:  # in an order in which every input is there
        assert set(node[1]) <= known
        known |= set(node[2])
    assert b"action" in known
    told = json.loads(fields(model[14][0])[2][0])
    assert told["actions"] == ("discrete" if policy.env.action_space.shape == () else "box")
    obs = np.random.default_rng(0).normal(size=(9, policy.env.obs_size)).astype(np.float32)
    np.testing.assert_allclose(_computed(graph, obs), policy.act(obs), atol=1e-5)
    if importlib.util.find_spec("onnxruntime"):
        runtime: Any = importlib.import_module("onnxruntime")
        (action,) = runtime.InferenceSession(str(path)).run(None, {"obs": obs})
        np.testing.assert_allclose(action, policy.act(obs), atol=1e-5)


def test_what_cannot_be_exported_is_refused(saved, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.npz or \.onnx"):
        saved[1].export(tmp_path / "it.pt")
    circuit = abstract_network(PQCHyperparams, 3, PQCHyperparams().sizes())
    with pytest.raises(ValueError, match="PQC is not a stack of dense layers"):
        circuit.plain()
    assert not list(tmp_path.iterdir())


def test_gymnasium_is_played_in_its_own_form(saved):
    pytest.importorskip("gymnasium")
    policy = saved[1]
    name = policy.env.gymnax_id
    adapted = policy.to_gymnasium(name)
    obs, _ = adapted.env.reset(seed=3)
    action = adapted.act(obs)
    assert adapted.env.action_space.contains(action)
    np.testing.assert_allclose(np.asarray(action), policy.act(obs), rtol=1e-6)
    played = adapted.evaluate(2, seed=3)
    np.testing.assert_array_equal(played.obs[0, 0], obs.astype(np.float32))
    assert played.lengths.max() <= policy.env.max_episode_steps
    wrong = "Pendulum-v1" if name == "CartPole-v1" else "CartPole-v1"
    for other, match in (
        (wrong, "trained on observations"),
        ("Nothing-v0", "cannot make Nothing-v0"),
        (5, "int"),
    ):
        with pytest.raises(ValueError, match=match):
            policy.to_gymnasium(other)


def test_actions_are_scaled_to_the_bounds_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    recipe, env, _, agent = trained("gymnax.pendulum")
    policy = Policy(agent, env, {"algorithm": recipe.algorithm, "network": recipe.network, "env": "mine"})

    class Half(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (3, 1))
        action_space = gymnasium.spaces.Box(0.0, 1.0, (1, 1), np.float64)

    obs = np.array([[0.3], [0.2], [-0.5]])
    action = policy.to_gymnasium(Half()).act(obs)
    assert (action.shape, action.dtype) == ((1, 1), np.float64)
    np.testing.assert_allclose(action, (policy.act(obs[:, 0])[None] + 2) / 4, rtol=1e-6)


def test_no_action_leaves_the_space_of_gymnasium_by_rounding():
    gymnasium = pytest.importorskip("gymnasium")

    class Extreme:
        env = envs.load("gymnax.pendulum")

        def act(self, obs, *, key=None):
            return np.full(1, np.sign(obs[0]) * 2.0000002, np.float32)

    class Odd(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (3,))
        action_space = gymnasium.spaces.Box(np.float32(-0.1), np.float32(0.7), (1,), np.float32)

    for sign in (-1, 1):
        assert Odd.action_space.contains(GymnasiumPolicy(Extreme(), Odd()).act(np.full(3, sign)))


# The command line


def test_play_says_what_is_played_and_draws_it(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path, policy = saved
    assert run("play", str(path), "--episodes", "3", "--seed", "7", "--output-file", "it.gif") == 0
    said = capsys.readouterr().out
    assert f"ppo with mlp on {policy.header['env']}" in said
    assert "env steps 500" in said
    assert "score 1.5 (mean return of 4 episodes)" in said
    assert (
        f"return {policy.rollout(episodes=3, seed=7).returns.mean():.4g} on average over 3 episodes" in said
    )
    assert (tmp_path / "it.gif").is_file()
    assert run("play", str(path), "--output-file", "it.gif") == 2
    assert "it.gif exists" in capsys.readouterr().err
    assert run("play", str(path.parents[1]), "--episodes", "1") == 0
    assert run("export-policy", str(path), "--output-file", "it.npz") == 0
    assert (tmp_path / "it.npz").is_file()


def test_the_best_policy_of_a_folder_is_played(saved, tmp_path):
    data = saved[0].read_bytes()
    header = read_header(data)

    def write(name, **about):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(with_header(data, {**header, **about}))

    for lane, score in ((1, 3.0), (2, 7.5), (3, None)):
        write(f"run/policies/lane-{lane}.policy", lane=lane, score=score)
    assert policies.load(tmp_path / "run").header["lane"] == 2
    with pytest.raises(ValueError, match=r"holds no policies; name one of the folders .*/run$"):
        policies.load(tmp_path)
    write("old/policies/lane-1.policy", score=None)
    with pytest.raises(ValueError, match="tells what it scored"):
        policies.load(tmp_path / "old")


def test_what_play_cannot_do_is_refused(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = str(saved[0])
    for words, match in (
        (["none.policy"], "none.policy: no such file"),
        ([path, "--output-file", "it.mp4"], "must end in .gif, .png, .html or .npz"),
        ([path, "--output-file", f"{path}/it.gif"], "where a folder is needed"),
        (
            [path, "--gymnasium", "CartPole-v1", "--env-config", "gymnax.cartpole"],
            "--env-config has no meaning",
        ),
        ([path, "--env-config", "gymnax.acrobot"], "built differently"),
        ([path, "--output-file", "it.html"], "no page to watch"),
        ([path, "--episodes", "0"], "at least 1"),
        ([path, "--network", "gone.py:Net"], "gone.py does not exist"),
    ):
        assert run("play", *words) == 2
        said = capsys.readouterr().err
        assert match in " ".join(said.replace("│", " ").split()), said
        assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_what_is_printed_of_a_header_is_text(saved):
    policy = Policy(
        saved[1].agent, saved[1].env, {**saved[1].header, "definition": "\x1b[2J\x07x", "seed": "1"}
    )
    assert "\x1b" not in repr(policy)
    assert "seed" not in repr(policy)


def test_without_pillow_it_is_said_how_to_get_it(played, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ValueError, match=r'PIL.* not installed: pip install "\.\[play\]"'):
        played.save(tmp_path / "it.gif")
