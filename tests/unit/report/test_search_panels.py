"""The panels of a search: whose score the circle has, and which trials share a scale."""

from dfnas_ray.algorithms.trials import HistoryPoint
from dfnas_ray.report import figures
from dfnas_ray.report.search_section import _last_score


def sampled(number, **scores):
    return HistoryPoint(
        phase="sampling", number=number, genotypes=tuple(scores), scores=tuple(scores.values()), best=1.0
    )


def test_the_circle_has_the_last_score_of_the_architecture_chosen():
    points = [sampled(1, a=0.1, b=0.9), sampled(2, a=0.4)]
    assert _last_score(points, "a") == 0.4
    assert _last_score(points, "b") == 0.9
    assert _last_score(points, "c") is None


def test_trials_of_different_algorithms_have_scales_of_their_own(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        figures, "_sampling_panel", lambda name, position, points, low, seen: shown.update({name: list(seen)})
    )
    points = {"spos 0": [sampled(1, a=0.5)], "spos 1": [sampled(1, b=0.6)], "random": [sampled(1, c=-40.0)]}
    figures.sampling_panels(points, {"spos 0": "spos", "spos 1": "spos", "random": "random_search"})
    assert shown == {"spos 0": [0.5, 0.6], "spos 1": [0.5, 0.6], "random": [-40.0]}
