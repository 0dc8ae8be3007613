"""The sweep section: defaults, what it makes of the synthesis settings, and errors that say what would be right."""

import pytest

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError

WEIGHT = "synthesis.regularizers.bn_statistics.weight"


def experiment(**sweep):
    sweep.setdefault("settings", {WEIGHT: {"log_uniform": [0.01, 100]}})
    return make_experiment({"teacher": "digits", "sweep": sweep})


def test_a_trial_has_its_own_settings_and_those_fixed_to_save_time():
    config = experiment(fixed={"synthesis.num_shards": 2})
    trial = config.sweep.synthesis(config.synthesis, {WEIGHT: 3.5}, fixed=True)
    assert (trial.regularizers.bn_statistics.weight, trial.num_shards) == (3.5, 2)
    run = config.sweep.synthesis(config.synthesis, {WEIGHT: 3.5}, fixed=False)
    assert (run.regularizers.bn_statistics.weight, run.num_shards) == (3.5, config.synthesis.num_shards)


def test_trials_may_have_fewer_shards_than_a_search_starts_with():
    values = {"teacher": "digits", "synthesis": {"num_shards": 4}, "search": {"start_after_shards": 2}}
    sweep = {"settings": {WEIGHT: {"log_uniform": [0.01, 100]}}, "fixed": {"synthesis.num_shards": 1}}
    assert make_experiment({**values, "sweep": sweep}).search.start_after_shards == 2


def test_settings_that_do_not_go_together_are_an_error_of_that_trial():
    config = experiment(settings={"synthesis.method.batch_size": {"choice": [50, 100]}}, fixed={})
    with pytest.raises(ConfigError, match=r"do not go together.*Next multiple"):
        config.sweep.synthesis(
            config.synthesis.model_copy(update={"images_per_shard": 130}), {"synthesis.method.batch_size": 50}, True
        )


def test_a_grid_has_as_many_trials_as_points():
    settings = {"synthesis.method.rounds": {"integer": [1, 3]}, "synthesis.method.tau": {"choice": [0.5, 1.0]}}
    assert experiment(settings=settings, sampler="grid", trials=99).sweep.num_trials == 6


def test_numbers_that_are_written_as_text_are_counted_as_numbers():
    config = experiment(
        settings={"synthesis.method.rounds": {"choice": [2, "4"]}}, fixed={"synthesis.num_shards": 1}, pruning={}
    )
    assert config.sweep.most_rounds(config.synthesis) == 4


def test_pruning_counts_rounds_through_all_shards_of_a_trial():
    config = experiment(
        settings={"synthesis.method.rounds": {"choice": [1, 3, 2]}},
        fixed={"synthesis.num_shards": 4},
        pruning={"min_rounds": 2},
    )
    assert config.sweep.most_rounds(config.synthesis) == 12
    pruning = config.sweep.pruning  # rungs at 2, 6, 18
    assert [n for n in range(1, 19) if pruning.has_rung(n - 1, n)] == [2, 6, 18]
    assert pruning.has_rung(0, 3)  # a shard that was there already: its rounds come at once
    assert not pruning.has_rung(2, 5)
    assert pruning.has_rung(2, 100)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            {"settings": {"synthesis.regularizers.bn_statistic.weight": {"uniform": [1, 2]}}},
            "Did you mean bn_statistics",
        ),
        ({"settings": {"search.seeds": {"choice": [0, 1]}}}, "search.seeds cannot be swept"),
        (
            {"settings": {"synthesis.method.rounds": {"integer": [0, 3]}}},
            r"synthesis.method.rounds at 0: synthesis.method.rounds \(0\)",
        ),
        ({"settings": {"synthesis.method.rounds": {"uniform": [1.5, 3.5]}}}, "synthesis.method.rounds at 1.5"),
        (
            {"settings": {"synthesis.method.tau": {"log_uniform": [0, 1]}}},
            r"settings.synthesis.method.tau.*must begin above 0",
        ),
        ({"settings": {}}, "sweep.settings"),
        ({"objectives": ["student"]}, "'student' does not exist. It must be one of student_proxy, semantics"),
        ({"objectives": []}, "sweep.objectives"),
        ({"objectives": ["verifier_agreement"]}, "needs sweep.verifier"),
        ({"objectives": ["labelled_accuracy"]}, "needs sweep.labelled"),
        ({"objectives": ["semantics", "diversity"], "sampler": "cmaes"}, "cmaes supports only one objective"),
        ({"objectives": ["semantics", "diversity"], "pruning": {}}, "pruning needs a single objective"),
        (
            {"fixed": {"synthesis.num_shards": 1, "synthesis.method.rounds": 2}, "pruning": {"min_rounds": 2}},
            r"min_rounds \(2\) must be below the 2 rounds that a trial makes",
        ),
        ({"sampler": "grid"}, "grid needs values that can be listed"),
        ({"sampler": "cmaes", "settings": {"synthesis.method.tau": {"choice": [1, 2]}}}, "cmaes varies numbers only"),
        ({"sampler": "tpe2"}, "sweep.sampler"),
        ({"trials": 0}, "sweep.trials"),
        ({"fixed": {"synthesis.num_shard": 1}}, "sweep.fixed.*Did you mean num_shards"),
        ({"fixed": {WEIGHT: 1}}, "both in settings and in fixed"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_when_the_file_is_read(sweep, message):
    with pytest.raises(ConfigError, match=message):
        experiment(**sweep)
