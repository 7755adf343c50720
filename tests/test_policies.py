"""A trained agent saved, loaded, and acting as before."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs, policies
from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import assign, values
from hyperlax.networks import MLPHyperparams
from hyperlax.storage.checkpoint import pack, read_header

SIZES = [
    {"actor.width": 3, "actor.depth": 1, "critic.width": 5, "critic.depth": 2, "actor.activation": "elu"},
    {"actor.width": 6, "actor.depth": 2, "critic.width": 2, "critic.depth": 1, "critic.layer_norm": True},
]


def trained(env_name):
    """An agent as a sweep leaves it: padded beyond its own sizes, weights and normaliser moved."""
    recipe, env = Recipe("ppo", "mlp"), envs.load(env_name)
    hps = [assign(recipe.hyperparams(), s) for s in SIZES]
    caps = hps[0].capacities([hp.sizes() for hp in hps], [1, 1], env)

    @jax.jit
    def build(hp, key):
        agent = hp.agent(env, caps, key=key)
        obs = jr.normal(key, (9, env.obs_size)) * 3 + 1
        agent = agent.observe(obs, jnp.ones(9, bool))
        return jax.tree.map(lambda x: x * 3 if x.dtype == jnp.float32 and x.ndim == 2 else x, agent)

    agent = build(jax.tree.map(jnp.asarray, hps[0]), jr.key(0))
    return recipe, env, caps, agent


@pytest.fixture(scope="module", params=["gymnax.pendulum", "gymnax.cartpole"])
def saved(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("policies") / "lane-000003.bin"
    recipe, env, caps, agent = trained(request.param)
    policies.save(path, jax.tree.map(np.asarray, agent), recipe, request.param, caps, lane=3, env_steps=500)
    return path, env, agent


def test_a_loaded_policy_acts_as_the_saved_agent_did(saved):
    path, env, agent = saved
    policy = policies.load(path)
    act = jax.jit(lambda obs, key, explore: agent.for_evaluation().act(obs, key=key, explore=explore)[0])
    actions = set()
    for i in range(8):
        obs, key = jr.normal(jr.key(i), (env.obs_size,)) * 2, jr.key(100 + i)
        best = policy.act(np.asarray(obs))
        np.testing.assert_allclose(best, act(obs, key, jnp.bool_(False)), rtol=1e-6)
        np.testing.assert_array_equal(best, policy.act(obs), err_msg="the best action is always the same")
        sampled = policy.act(obs, key=key)
        np.testing.assert_allclose(sampled, act(obs, key, jnp.bool_(True)), rtol=1e-6)
        assert best.shape == sampled.shape == env.action_space.shape
        actions.add(sampled.tobytes())
    assert len(actions) > 1


def test_every_weight_and_statistic_survives_bit_by_bit(saved):
    path, _, agent = saved
    loaded = policies.load(path).agent
    assert jax.tree.structure(loaded) == jax.tree.structure(agent)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(agent), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_what_was_noted_beside_it_comes_back(saved):
    path, _, agent = saved
    header = policies.load(path).header
    assert (header["lane"], header["env_steps"]) == (3, 500)
    assert header["hyperparams"] == values(agent.hp)


def test_an_observation_of_another_shape_is_refused(saved):
    path, env, _ = saved
    policy = policies.load(path)
    for shape in ((env.obs_size + 1,), (env.obs_size - 1,), (0,)):
        with pytest.raises(ValueError, match=f"observes {env.obs_size} numbers, got shape"):
            policy.act(np.zeros(shape))


def test_damage_is_noticed_wherever_it_is(saved, tmp_path):
    data = saved[0].read_bytes()
    path = tmp_path / "damaged.bin"
    for position in (0, 20, 60, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match=r"damaged\.bin is damaged"):
            policies.load(path)
    for size in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"damaged\.bin is damaged"):
            policies.load(path)


def test_a_policy_of_another_version_is_refused(saved, tmp_path, monkeypatch):
    with monkeypatch.context() as changed:
        changed.setattr("hyperlax.storage.checkpoint.structure", lambda tree: "another")
        path = tmp_path / "old.bin"
        recipe, _, caps, agent = trained("gymnax.cartpole")
        policies.save(path, jax.tree.map(np.asarray, agent), recipe, "gymnax.cartpole", caps)
    with pytest.raises(ValueError, match="built differently"):
        policies.load(path)


def test_a_file_never_decides_what_code_is_imported(tmp_path, monkeypatch):
    """What is not registered comes from the caller, as itself or by name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("open('ran', 'w')\n")
    _, env, caps, agent = trained("gymnax.cartpole")
    path, custom = tmp_path / "own.policy", Recipe("ppo", "mine.py:Other")
    for name in ("mine.py:Env", "os:system[command=touch ran]"):
        policies.save(path, jax.tree.map(np.asarray, agent), custom, name, caps)
        with pytest.raises(
            ValueError, match=r'network "mine.py:Other" .*own\.policy asks for it.*network=\.\.\..*--network$'
        ):
            policies.load(path)
        message = r'environment "(mine\.py:Env|os:system)" .*env=\.\.\., or with --env-config$'
        with pytest.raises(ValueError, match=message):
            policies.load(path, network="mlp")
    assert not (tmp_path / "ran").exists()
    policy, obs = policies.load(path, network=MLPHyperparams, env=env), np.ones(env.obs_size)
    act = jax.jit(lambda obs: agent.for_evaluation().act(obs, key=jr.key(0), explore=jnp.bool_(False))[0])
    np.testing.assert_allclose(policy.act(obs), act(jnp.asarray(obs, jnp.float32)), rtol=1e-6)


def test_a_wrong_choice_of_the_caller_is_not_blamed_on_the_file(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for choice in ({"env": "nowhere.py:E"}, {"network": "nowhere.py:E"}, {"algorithm": "nowhere.py:E"}):
        with pytest.raises(ValueError, match=r"nowhere\.py") as error:
            policies.load(saved[0], **choice)
        assert "copy of the file" not in str(error.value)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        policies.load(tmp_path / "none.bin")


def test_a_hyperparameter_that_is_younger_than_the_file_has_its_default(saved, tmp_path):
    path, env, agent = saved
    header = read_header(path.read_bytes())
    name = list(header["hyperparams"])[-1]
    assert "." not in name
    del header["hyperparams"][name]
    older = eqx.tree_at(lambda a: getattr(a.hp, name), agent.for_acting(), None)
    (tmp_path / "older.policy").write_bytes(pack(jax.tree.map(np.asarray, older), **header))
    loaded = policies.load(tmp_path / "older.policy")
    assert values(loaded.agent.hp) == values(agent.hp)
    obs = np.ones(env.obs_size)
    np.testing.assert_array_equal(loaded.act(obs), policies.load(path).act(obs))
