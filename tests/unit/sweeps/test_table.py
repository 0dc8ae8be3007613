"""Which trials the command shows at its end."""

from dfnas_ray.cli.sweep import best_trials


def trials(*values):
    return [{"number": number, "values": value} for number, value in enumerate(values)]


def test_of_one_objective_the_five_best_are_shown_in_order():
    found = best_trials(
        trials([3], [1], None, [7], [5], [6], [7]), {"objectives": ["student_proxy"], "pareto_front": [3]}
    )
    assert [trial["number"] for trial in found] == [3, 6, 5, 4, 0]
    found = best_trials(trials([3], [1], [2]), {"objectives": ["domain_gap"], "pareto_front": [1]})
    assert [trial["number"] for trial in found] == [1, 2, 0]


def test_of_several_objectives_the_front_is_shown_in_its_order():
    summary = {"objectives": ["diversity", "domain_gap"], "pareto_front": [2, 0]}
    assert [trial["number"] for trial in best_trials(trials([1, 1], [0, 2], [2, 2]), summary)] == [2, 0]
