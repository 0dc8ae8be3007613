"""The slices of a sweep's page: nothing that is written in them covers anything else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib import pyplot as plt
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from dfnas_ray.report.sweep_figures import break_at_dots, draw_slices

DISTRIBUTIONS = {
    "regularizers.bn_statistics.weight": FloatDistribution(0.03, 30, log=True),
    "regularizers.total_variation.weight": FloatDistribution(1e-6, 1e-2, log=True),
    "rounds": IntDistribution(1, 3),
    "canvas_margin": CategoricalDistribution([0, 2, 4]),
    "lr": FloatDistribution(0.0123, 0.25),
    "stages": CategoricalDistribution(["half, then full", "full alone", "a quarter, half, full"]),
}


@pytest.fixture
def slices():
    """Return a function that draws the slices of so many settings."""

    def draw(count):
        rng = np.random.default_rng(0)
        names = list(DISTRIBUTIONS)[:count]
        trials = []
        for _ in range(12):
            params = {
                name: d.choices[rng.integers(3)]
                if isinstance(d, CategoricalDistribution)
                else int(rng.integers(d.low, d.high + 1))
                if isinstance(d, IntDistribution)
                else float(np.exp(rng.uniform(np.log(d.low), np.log(d.high))))
                for name, d in DISTRIBUTIONS.items()
                if name in names
            }
            trial = create_trial(
                state=TrialState.COMPLETE, value=rng.random(), params=params,
                distributions={name: DISTRIBUTIONS[name] for name in names},
            )  # fmt: skip
            trial.number = len(trials)
            trials.append(trial)
        return draw_slices(trials, 0, "student_proxy")

    yield draw
    plt.close("all")


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_no_label_covers_another(slices, count):
    figure = slices(count)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = []
    for axes in figure.axes:
        if not axes.axison:
            continue
        for axis, place, limits in ((axes.xaxis, 0, axes.get_xlim()), (axes.yaxis, 1, axes.get_ylim())):
            ticks = [text for text in axis.get_ticklabels() if limits[0] <= text.get_position()[place] <= limits[1]]
            # The box around a slanted text is larger than what is written.
            texts += [axis.label, *(text for text in ticks if text.get_visible() and not text.get_rotation())]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    boxes = [(text, box) for text, box in boxes if box.width]
    assert len(boxes) > 4
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), f"{first!r} covers {second!r}"


def test_a_long_name_is_broken_at_its_dots():
    assert break_at_dots("regularizers.bn_statistics.weight", 26) == "regularizers.bn_statistics.\nweight"
    assert break_at_dots("rounds", 26) == "rounds"
    assert break_at_dots("a" * 40, 26) == "a" * 40
