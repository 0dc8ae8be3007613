"""Which trial a sweep chooses, from figures worked by hand."""

import pytest

from dfnas_ray.errors import DfnasError
from dfnas_ray.sweeps.result import TriedSettings, best_of, pareto_front


def trials(*values):
    return [
        TriedSettings(
            number=number, state="complete", parameters={}, settings={}, values=value, figures={}, seconds=None,
            error="loss is NaN",
        )
        for number, value in enumerate(values)
    ]  # fmt: skip


def test_a_single_objective_takes_the_extreme_and_the_earlier_of_equals():
    assert best_of(trials([1.0], [3.0], None, [3.0]), ["maximize"])[0].number == 1
    assert best_of(trials([1.0], [3.0]), ["minimize"]) == (trials([1.0])[0], [0])


def test_the_front_holds_what_nothing_beats():
    # (maximize, minimize): the second is beaten by the first, the last by the third
    assert pareto_front([(3, 5), (2, 6), (1, 1), (1, 2)], ["maximize", "minimize"]) == [0, 2]


def test_of_a_front_the_balanced_trial_is_chosen():
    best, front = best_of(trials([0.0, 4.0], [1.0, 3.9], [3.0, 3.0], [4.0, 0.0]), ["maximize", "maximize"])
    assert front[0] == best.number == 2
    assert sorted(front) == [0, 1, 2, 3]


def test_without_a_finished_trial_the_first_reason_is_told():
    with pytest.raises(DfnasError, match=r"No trial of the sweep could be finished.*loss is NaN"):
        best_of(trials(None, None), ["maximize"])
