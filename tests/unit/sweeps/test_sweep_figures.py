"""The figures of a sweep's page: nothing that is written in them covers anything else."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import optuna
import pytest
from matplotlib import pyplot as plt
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.report.sweep_figures import break_at_dots, draw_parallel, draw_slices, sweep_figures

DISTRIBUTIONS = {
    "regularizers.bn_statistics.weight": FloatDistribution(0.03, 30, log=True),
    "regularizers.total_variation.weight": FloatDistribution(1e-6, 1e-2, log=True),
    "rounds": IntDistribution(1, 3),
    "canvas_margin": CategoricalDistribution([0, 2, 4]),
    "lr": FloatDistribution(0.0123, 0.25),
    "stages": CategoricalDistribution(["half, then full", "full alone", "a quarter, half, full"]),
}


def some_trials(count):
    """Return twelve finished trials of so many settings."""
    rng = np.random.default_rng(0)
    names = list(DISTRIBUTIONS)[:count]
    trials = []
    for number in range(12):
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
        trial.number = number
        trials.append(trial)
    return trials


@pytest.fixture(autouse=True)
def closed_figures():
    """Close what a test has drawn."""
    yield
    plt.close("all")


def covering(figure, texts):
    """Return the pairs of texts of which one covers the other."""
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    boxes = [(text, box.padded(-1)) for text, box in boxes if box.width]
    assert len(boxes) > 4
    return [(first, second) for (first, a), (second, b) in itertools.combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_no_label_of_the_slices_covers_another(count):
    figure = draw_slices(some_trials(count), 0, "student_proxy")
    figure.canvas.draw()
    texts = []
    for axes in figure.axes:
        if not axes.axison:
            continue
        for axis, place, limits in ((axes.xaxis, 0, axes.get_xlim()), (axes.yaxis, 1, axes.get_ylim())):
            ticks = [text for text in axis.get_ticklabels() if limits[0] <= text.get_position()[place] <= limits[1]]
            # The box around a slanted text is larger than what is written.
            texts += [axis.label, *(text for text in ticks if text.get_visible() and not text.get_rotation())]
    assert covering(figure, texts) == []


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_no_label_of_the_parallel_axes_covers_another(count):
    figure = draw_parallel(some_trials(count), 0, "student_proxy", maximise=True)
    figure.canvas.draw()
    assert covering(figure, figure.axes[0].texts) == []


@pytest.mark.parametrize("maximise", [True, False])
def test_each_trial_is_a_line_through_its_settings_and_the_best_is_strong_and_on_top(maximise):
    trials = some_trials(4)
    del trials[5].params["rounds"]
    axes = draw_parallel(trials, 0, "domain_gap", maximise).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 5]
    assert len(lines) == 12
    order = sorted(trials, key=lambda trial: trial.value, reverse=not maximise)
    for trial, line in zip(order, lines, strict=True):
        weight, _, rounds, margin, _ = line.get_ydata()
        assert weight == pytest.approx(math.log(trial.params["regularizers.bn_statistics.weight"] / 0.03, 1000))
        assert margin == [0, 2, 4].index(trial.params["canvas_margin"]) / 2
        if trial.number == 5:
            assert math.isnan(rounds)
        else:
            assert rounds == (trial.params["rounds"] - 1) / 2
    strengths = [line.get_alpha() for line in lines]
    assert strengths == sorted(strengths)
    assert 0 < strengths[0] < strengths[-1] == 1


def test_a_long_name_is_broken_at_its_dots():
    assert break_at_dots("regularizers.bn_statistics.weight", 26) == "regularizers.bn_statistics.\nweight"
    assert break_at_dots("rounds", 26) == "rounds"
    assert break_at_dots("a" * 40, 26) == "a" * 40


def test_trials_that_differ_in_nothing_have_no_importances():
    sweep = {"settings": {"synthesis.method.tau": {"choice": [1, 2]}}}
    config = make_experiment({"teacher": "digits", "sweep": sweep}).sweep
    study = optuna.create_study(direction="maximize")
    for value in (0.1, 0.2, 0.3, 0.4):
        distribution = CategoricalDistribution([1, 2])
        study.add_trial(create_trial(value=value, params={"tau": 1}, distributions={"tau": distribution}))
    titles = [title for title, _, _ in sweep_figures(study, config)]
    assert titles == [
        "History of student_proxy",
        "student_proxy along each coefficient",
        "student_proxy: parallel coordinates",
    ]


def test_a_choice_may_hold_what_looks_like_a_formula():
    distribution = CategoricalDistribution(["$a_{$", "b"])
    trials = [
        create_trial(value=value, params={"stages": choice}, distributions={"stages": distribution})
        for value, choice in ((0.1, "$a_{$"), (0.2, "b"))
    ]
    for figure in (draw_slices(trials, 0, "semantics"), draw_parallel(trials, 0, "semantics", maximise=True)):
        figure.canvas.draw()


def test_figures_take_their_colours_from_the_page_and_ids_of_their_own():
    settings = {
        "synthesis.method.tau": {"uniform": [0.5, 2]},
        "synthesis.regularizers.bn_statistics.weight": {"log_uniform": [0.01, 10]},
    }
    objectives = ["student_proxy", "domain_gap"]
    config = make_experiment({"teacher": "digits", "sweep": {"settings": settings, "objectives": objectives}}).sweep
    study = optuna.create_study(directions=["maximize", "minimize"])
    names = {"tau": FloatDistribution(0.5, 2), "weight": FloatDistribution(0.01, 10, log=True)}
    for number in range(6):
        params = {"tau": 0.5 + number / 4, "weight": 10 ** (number / 2 - 2)}
        values = [0.1 * number, 1.0 + (number - 3) ** 2]
        study.add_trial(create_trial(values=values, params=params, distributions=names))
    svgs = [str(svg) for _, _, svg in sweep_figures(study, config)]
    assert len(svgs) == 2 * 4 + 1  # history, slices, parallel coordinates and importances; the front
    for svg in svgs:
        shades = set(re.findall(r"#[0-9a-fA-F]{6}\b|\b(?:black|white)\b", svg))
        middle = {shade for shade in shades if shade.startswith("#") and 90 < mean_of(shade) < 175}
        assert shades == middle, "a colour that is not seen on light or on dark"
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert "mathdefault" not in svg
    ids = [name for svg in svgs for name in re.findall(r'\sid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))


def mean_of(shade):
    return sum(int(shade[place : place + 2], 16) for place in (1, 3, 5)) / 3
