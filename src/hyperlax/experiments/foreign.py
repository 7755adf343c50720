"""Classes from outside hyperlax are traced before anything is created: what is wrong is said in one line."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import jax
import jax.numpy as jnp

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.hyperparams import declared
from hyperlax.lanes.keys import refuse_typed_keys
from hyperlax.learning.evaluation import evaluate
from hyperlax.networks.base import AbstractNetworkHyperparams, check_output
from hyperlax.programs import train
from hyperlax.programs.compiled import state_like
from hyperlax.registry.foreign import explained

log = logging.getLogger(__name__)


def classes(hp: AbstractAgentHyperparams, env: AbstractEnv) -> dict[str, str]:
    """The classes of algorithm, networks and environment that are not hyperlax's own, by name.

    The value is the function of `hyperlax.testing` that checks one.
    """
    kinds = _kinds(hp, env)
    return {kind.__name__: _check_of(kind) for kind in kinds if not kind.__module__.startswith("hyperlax.")}


def changeable(hp: AbstractAgentHyperparams, env: AbstractEnv) -> bool:
    """Whether a class is one of the notebook, or script, that runs, and may give its globals other values."""
    return any(kind.__module__ == "__main__" for kind in _kinds(hp, env))


def _kinds(hp: AbstractAgentHyperparams, env: AbstractEnv) -> list[type]:
    return [type(hp), *map(type, hp.nested_networks().values()), type(env)]


def _check_of(kind: type) -> str:
    if issubclass(kind, AbstractEnv):
        return "check_env"
    return "check_network" if issubclass(kind, AbstractNetworkHyperparams) else "check_agent"


@contextmanager
def traced(hp: AbstractAgentHyperparams, env: AbstractEnv, what: str = "") -> Iterator[None]:
    """Turn any error in the `with` block into a `ValueError` that names the classes from outside, and where.

    Errors are left as they are if all classes are hyperlax's own. `what` says what could not be trained, by
    default these classes.
    """
    found = classes(hp, env)
    try:
        yield
    except Exception as error:
        if not found:
            raise
        log.debug("the classes of one's own cannot be traced", exc_info=error)
        who = " with ".join(found)
        checks = " and ".join(f"hyperlax.testing.{check}({name})" for name, check in found.items())
        alone = "checks it alone" if len(found) == 1 else "check them alone"
        raise ValueError(f"{what or who} cannot be trained: {explained(error)}; {checks} {alone}") from error


def check_classes(hp: AbstractAgentHyperparams, env: AbstractEnv, episodes: int) -> None:
    """Trace one cycle of a lane and an evaluation in some `episodes`, if a class is not hyperlax's own.

    Raises `ValueError` with what is wrong in it, before anything is created.
    """
    if not classes(hp, env):
        return
    with traced(hp, env):
        check_networks(hp, env)
        caps = hp.capacities([hp.sizes()], [1], env)
        state = state_like(hp, env, caps)
        refuse_typed_keys("the state of a lane", state)
        if differing := _differing(*map(jax.tree.structure, (state, state_like(hp, env, caps)))):
            raise ValueError(
                f"{differing} has another structure each time it is built, which a program cannot hold; its "
                "static fields must be equal each time: define functions outside of what builds it"
            )
        refuse_overlooked(type(hp), type(state.agent))
        if hp.learns_in_parts:
            train.partwise(state.agent)
        jax.eval_shape(lambda s: train.segment(s, env, caps, jnp.int32(1)), state)
        jax.eval_shape(_evaluated(env, episodes), state)


def refuse_overlooked(kind: type[AbstractAgentHyperparams], built: type[AbstractAgent]) -> None:
    """Raise `ValueError` where hyperparameters of one's own forget to build the agent that they are for.

    Those that inherit `agent` from hyperlax build hyperlax's own, which neither is the class beside them nor
    reads the hyperparameters that they add.
    """
    short = kind.__name__.removesuffix("Hyperparams")
    beside = getattr(sys.modules.get(kind.__module__), short, None)
    fix = f"define agent(self, env, caps, *, key) on {kind.__name__}, to return "
    if isinstance(beside, type) and issubclass(beside, AbstractAgent) and not issubclass(built, beside):
        raise ValueError(
            f"{kind.__name__} builds the agent {built.__name__}, not the {short} beside it; "
            f"{fix}{short}(self, env, caps, key=key)"
        )
    builder = next(c for c in kind.__mro__ if "agent" in vars(c))
    if not builder.__module__.startswith("hyperlax."):
        return
    own = [vars(c).items() for c in kind.__mro__ if not c.__module__.startswith("hyperlax.")]
    functions = [f for members in own for name, f in members if name not in ("quick", "published")]
    read = {name for function in functions for name in _names(function)}
    added = [name for name in declared(kind) if name not in declared(cast(Any, builder))]
    if unread := [name for name in added if name not in read]:
        raise ValueError(
            f"{kind.__name__} adds the hyperparameter {unread[0]}, which nothing reads: it builds the agent "
            f"{built.__name__} of hyperlax; {fix}an agent of your own"
        )


def _names(member: Any) -> Iterator[str]:
    """The names that a function in the body of a class uses; none for the methods of dataclasses."""
    function = getattr(member, "fget", None) or inspect.unwrap(getattr(member, "__func__", member))
    codes = [function.__code__] if inspect.isfunction(function) and function.__name__ != "__init__" else []
    while codes:
        code = codes.pop()
        yield from (*code.co_names, *(c for c in code.co_consts if isinstance(c, str)))
        codes += [c for c in code.co_consts if inspect.iscode(c)]


def _differing(one: Any, other: Any) -> str | None:
    """The innermost class in which two structures of trees differ; None if they are equal."""
    if one == other:
        return None
    below = [_differing(*pair) for pair in zip(one.children(), other.children(), strict=False)]
    node = one.node_data() or other.node_data()
    return next((name for name in below if name), node[0].__name__)


def _evaluated(env: AbstractEnv, episodes: int) -> Any:
    def run(state: train.TrainState) -> Any:
        key = train.evaluation_key(state.key, state.env_steps)
        return evaluate(state.agent, env, episodes, jnp.bool_(True), key=key)

    return run


def check_networks(hp: AbstractAgentHyperparams, env: AbstractEnv) -> None:
    """Trace a forward pass of every network of a sample whose class is not hyperlax's own, once per size.

    Raises `ValueError` with both shapes for one that returns anything else than it declares.
    """
    for use in hp.networks(env).values():
        if not type(use.hp).__module__.startswith("hyperlax."):
            check_output(type(use.hp), use.inputs, use.hp.sizes())
            AbstractNetworkHyperparams.flops.__func__(type(use.hp), use.inputs, use.hp.sizes())  # pyright: ignore
