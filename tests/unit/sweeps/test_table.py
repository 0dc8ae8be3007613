"""Which trials the command shows at its end."""

from dfnas_ray.cli.sweep import best_trials
from dfnas_ray.sweeps.result import TriedSettings
from dfnas_ray.workflow.sweep import BestSettings, SweptRecord


def trials(*values):
    return [
        TriedSettings(
            number=number, state="fail" if value is None else "complete", parameters={}, settings={}, values=value,
            figures={}, seconds=None, error=None,
        )
        for number, value in enumerate(values)
    ]  # fmt: skip


def record(objectives, front):
    best = BestSettings(number=front[0], settings={}, values=(0.0,), figures={})
    return SweptRecord(asked=9, trials={}, objectives=objectives, best=best, pareto_front=front, data_free=True)


def numbers(found):
    return [trial.number for trial in found]


def test_of_one_objective_the_five_best_are_shown_in_order():
    found = best_trials(trials([3], [1], None, [7], [5], [6], [7]), record(["student_proxy"], [3]))
    assert numbers(found) == [3, 6, 5, 4, 0]
    found = best_trials(trials([3], [1], [2]), record(["domain_gap"], [1]))
    assert numbers(found) == [1, 2, 0]


def test_of_several_objectives_the_front_is_shown_in_its_order():
    several = record(["diversity", "domain_gap"], [2, 0])
    assert numbers(best_trials(trials([1, 1], [0, 2], [2, 2]), several)) == [2, 0]


def test_a_trial_of_the_front_that_is_not_described_is_left_out():
    assert numbers(best_trials(trials([1, 1]), record(["diversity", "domain_gap"], [2, 0]))) == [0]
