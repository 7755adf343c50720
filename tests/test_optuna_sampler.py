"""Optuna behind the interface of samplers: it asks what Optuna would, and its state is the study."""

from __future__ import annotations

import jax
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from hyperlax.hyperparams.samplers import OptunaSampler
from hyperlax.hyperparams.samplers.storages import close, storage
from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Uniform, resolved
from hyperlax.storage.checkpoint import pack, unpack

SPACE = {
    "net": Joint(("width", "depth"), (32, 1), (64, 2), (128, 3)),
    "lr": LogUniform(1e-5, 1e-1),
    "gamma": Uniform(0.9, 0.99),
    "steps": Integers(1, 4),
    "norm": Choice(True, False),
}


def score(sample):
    return sample["gamma"] - abs(np.log10(sample["lr"]) + 3)


def drawn(sampler, count, at_once=1):
    """The samples of `count` rounds of `at_once`, each told before the next is asked."""
    samples = []
    for _ in range(count):
        sampler, asked = sampler.ask(at_once)
        sampler = sampler.tell([score(sample) for sample in asked])
        samples += asked
    return samples


def seeded(number):
    return int(np.random.SeedSequence((7, number)).generate_state(1)[0] % 2**31)


OPTUNAS = {
    "tpe": lambda number: optuna.samplers.TPESampler(seed=seeded(number), constant_liar=True),
    "nsgaii": lambda number: optuna.samplers.NSGAIISampler(seed=seeded(number)),
    "random": lambda number: optuna.samplers.RandomSampler(seed=seeded(number)),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("algorithm", OPTUNAS)
def test_it_asks_what_optuna_asks_with_a_sampler_seeded_by_the_trials_number(algorithm):
    study = optuna.create_study(direction="maximize")
    distributions = {path: s.distribution() for path, s in SPACE.items()}
    expected = []
    for number in range(16):
        study.sampler = OPTUNAS[algorithm](number)
        trial = study.ask(distributions)
        expected.append({"sample": number, **resolved(SPACE, trial.params)})
        study.tell(trial, score(expected[-1]))
    assert drawn(OptunaSampler(SPACE, 7, algorithm=algorithm), 16) == expected


@pytest.mark.parametrize("algorithm", ["tpe", "nsgaii", "random", "qmc"])
def test_a_restored_sampler_goes_on_where_the_study_stands(tmp_path, algorithm):
    whole = drawn(OptunaSampler(SPACE, 3, algorithm=algorithm), 14)
    where, again = (storage(f"sqlite:///{tmp_path}/study.db", None) for _ in range(2))
    first = OptunaSampler(SPACE, 3, algorithm=algorithm, storage=where)
    begun = drawn(first, 9)
    assert [type(leaf) for leaf in jax.tree.leaves(first)] == [np.ndarray]
    restored = unpack(pack(first), OptunaSampler(SPACE, 8, algorithm=algorithm, storage=again))
    assert begun + drawn(restored, 5) == whole
    close(where)
    close(again)


def test_scores_belong_to_the_samples_that_have_waited_longest():
    sampler, _ = OptunaSampler(SPACE, 1, directions=["maximize", "minimize"]).ask(4)
    sampler = sampler.tell(np.array([[1.0, 2.0], [3.0, np.nan]]))
    assert sampler.waiting() == [2, 3]
    sampler.conclude(3, [5.0, 6.0])
    sampler.tell([[7.0, 8.0]])
    trials = sampler.study().trials
    assert [t.values for t in trials] == [[1.0, 2.0], None, [7.0, 8.0], [5.0, 6.0]]
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 2]
    with pytest.raises(ValueError, match="1 scores are told and 0 samples wait"):
        sampler.tell([[1.0, 1.0]])
    with pytest.raises(ValueError, match=r"2 number\(s\)"):
        sampler.ask(1)[0].tell([1.0])


def test_samplers_that_share_a_study_tell_their_own_samples_alone():
    one = OptunaSampler(SPACE, 1, owner="one")
    two = OptunaSampler(SPACE, 1, owner="two", storage=one.storage)
    for sampler in (one, two, one):
        sampler.ask(1)
    assert (one.waiting(), two.waiting()) == ([0, 2], [1])
    one.tell([1.0, 1.0])
    assert (one.waiting(), two.waiting()) == ([], [1])


def test_trials_that_wait_to_be_asked_again_come_first():
    sampler = OptunaSampler(SPACE, 1, owner="me")
    lost = sampler.ask(1)[1][0]
    study = sampler.study()
    study.enqueue_trial(study.trials[0].params)
    again, new = sampler.ask(2)[1]
    assert again == {**lost, "sample": 1}
    assert new["sample"] == 2
    assert {t.user_attrs["owner"] for t in study.trials} == {"me"}


def test_an_unknown_algorithm_names_the_nearest():
    with pytest.raises(ValueError, match='unknown sampler "tpee"; did you mean "tpe"'):
        OptunaSampler(SPACE, algorithm="tpee")
    with pytest.raises(ValueError, match="one objective only"):
        OptunaSampler(SPACE, algorithm="cmaes", directions=["maximize", "maximize"])
