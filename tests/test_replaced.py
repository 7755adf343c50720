"""What a lane had done before it was given another state is counted as it was, what follows as it now is."""

from __future__ import annotations

from hyperlax import envs
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.samples import Lane
from hyperlax.hyperparams import assign
from hyperlax.run.replaced import Replaced

ENV = envs.load("gymnax.cartpole")


def test_circuit_executions_are_those_before_and_those_of_the_new_hyperparameters_since():
    tree = assign(Recipe("ppo", "drpqc").hyperparams(), {"num_minibatches": 2})
    per_step, per_gradient = tree.executions(ENV)
    assert per_step > 0
    changed = Replaced(tree, env_steps=160, gradient_steps=7, circuit_executions=1234)
    assert changed.executed(Lane(0, 0, 0, env_steps=160, gradient_steps=7), ENV) == 1234
    later = Lane(0, 0, 0, env_steps=260, gradient_steps=12)
    assert changed.executed(later, ENV) == 1234 + round(100 * per_step + 5 * per_gradient)
    assert Replaced(tree, *changed.counts()) == changed
