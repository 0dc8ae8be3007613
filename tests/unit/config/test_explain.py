"""What is wrong with an experiment: one sentence per error, with the setting, its value and what would be right."""

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError

FORMS = "uniform, log_uniform, integer, log_integer, choice"


def refused(**sections):
    with pytest.raises(ConfigError) as raised:
        make_experiment({"teacher": "digits", **sections})
    return str(raised.value)


def inversion(**settings):
    return {"synthesis": {"method": {"kind": "inversion", **settings}}}


@pytest.mark.parametrize(
    ("range_", "message"),
    [
        ({"loguniform": [0.1, 1]}, ".loguniform is not a setting. Did you mean log_uniform?"),
        ({"width": 0.1}, f".width is not a setting. Known here: {FORMS}."),
        ([0.1, 1], f" ([0.1, 1]) must be a mapping of settings: {FORMS}."),
        (0.1, f" (0.1) must be a mapping of settings: {FORMS}."),
        ({"uniform": 3}, ".uniform (3) must be a list, such as [3]."),
        ({"uniform": [0.1]}, ".uniform ([0.1]) must have more values: number 2 is missing."),
        ({"uniform": [0.1, 0.2, 0.3]}, ".uniform ([0.1, 0.2, 0.3]) must have at most 2 value(s)."),
        ({"uniform": ["a", 1]}, ".uniform.0 ('a') must be a valid number."),
        ({"choice": []}, ": choice ([]) needs at least two values."),
    ],
)
def test_a_range_that_is_none(range_, message):
    settings = {"synthesis.method.lr": range_}
    assert refused(sweep={"settings": settings}) == f"sweep.settings.synthesis.method.lr{message}"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"synthesis": 3}, "synthesis (3) must be a mapping of settings: num_shards, "),
        (inversion(rounds=0), "synthesis.method.rounds (0) must be greater than 0."),
        (inversion(keep="some"), "synthesis.method.keep ('some') must be 'all' or 'last'."),
        (inversion(scales=[{"steps": 3}]), "synthesis.method.scales.0.scale is missing."),
        ({"search": {"space": {"kind": "spos"}}}, "search.space.kind ('spos') must be one of "),
        ({"search": {"seeds": []}}, "search.seeds ([]) must have at least 1 value(s)."),
        ({"search": {"seeds": 3}}, "search.seeds (3) must be a list, such as [3]."),
        ({"search": {"algorithm": {"kind": "darts", "order": 3}}}, "search.algorithm.order (3) must be "),
        (
            {"sweep": {"settings": ["synthesis.canvas_margin"]}},
            "sweep.settings (['synthesis.canvas_margin']) must be a mapping.",
        ),
        (
            {"sweep": {"settings": {"synthesis.method.lr": {"uniform": [0.1, 1]}}, "pruning": True}},
            "sweep.pruning (True) must be a mapping of settings: min_rounds, reduction_factor.",
        ),
        ({"retrain": {}}, "retrain is not a setting. Did you mean retraining?"),
    ],
)
def test_a_setting_that_cannot_be(sections, message):
    assert refused(**sections).startswith(message)
    assert "\n" not in refused(**sections)


def retraining(num_workers, **resources):
    return {"retraining": {"num_workers": num_workers}, "cluster": {"retraining": resources}}


@pytest.mark.parametrize("gpus", [0.5, 0.1])
def test_workers_that_train_together_cannot_share_a_gpu(gpus):
    assert refused(**retraining(2, gpus=gpus)) == (
        f"cluster.retraining.gpus ({gpus}) lets the workers of retraining.num_workers (2) share a GPU, on which NCCL refuses "
        "to average their gradients. Set cluster.retraining.gpus to 1, or to 0 to train on CPUs, or retraining.num_workers "
        "to 1."
    )


@pytest.mark.parametrize(
    ("num_workers", "resources"),
    [
        (1, {"gpus": 0.5}),
        (2, {"gpus": 0}),
        (2, {"gpus": 1}),
        (2, {"gpus": 0.6}),  # two have no room on one
        (2, {"gpus": 0.5, "placement": "STRICT_SPREAD"}),
    ],
)
def test_workers_with_a_gpu_of_their_own_or_none_are_accepted(num_workers, resources):
    make_experiment({"teacher": "digits", **retraining(num_workers, **resources)})


def test_several_errors_are_said_at_once():
    message = refused(**inversion(rounds=0, tau=-1))
    assert [line.split(" (")[0] for line in message.splitlines()] == ["synthesis.method.rounds", "synthesis.method.tau"]
