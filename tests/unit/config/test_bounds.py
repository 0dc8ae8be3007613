"""Every whole number of a setting has an upper bound: whatever memory is taken for it, a stranger's file cannot choose."""

from __future__ import annotations

import pytest

from dfnas_ray.config.experiment import ExperimentConfig, make_experiment
from dfnas_ray.errors import ConfigError


def unbounded(schema, path=""):
    """Yield the paths of whole numbers in a JSON Schema that have no maximum."""
    if isinstance(schema, list):
        for inner in schema:
            yield from unbounded(inner, path)
    elif isinstance(schema, dict):
        if schema.get("type") == "integer" and not {"maximum", "exclusiveMaximum", "const", "enum"} & schema.keys():
            yield path
        for name, inner in schema.items():
            yield from unbounded(inner, path if name in ("anyOf", "allOf", "oneOf") else f"{path}/{name}")


def test_every_whole_number_of_the_settings_has_an_upper_bound():
    free = sorted(set(unbounded(ExperimentConfig.model_json_schema())))
    assert [path for path in free if "arguments" not in path and "_macs" not in path and "memory" not in path] == []


def test_what_has_no_bound_is_seen():
    assert list(unbounded({"properties": {"n": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}}}))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("synthesis.num_shards=99999999999", "must be less than or equal to 1000000"),
        (
            "search.algorithm={kind: spos, evolution: {population: 99999999999}}",
            "must be less than or equal to 1000000",
        ),
        ("search.seeds=[" + ",".join(map(str, range(40_000))) + "]", ""),
        ("retraining.epochs=" + "9" * 50, "must be less than or equal to 1000000"),
        ("search.space={kind: nasbench_macro, head_channels: 99999999}", "must be less than or equal to 65536"),
    ],
    ids=["shards", "population", "seeds", "epochs", "channels"],
)
def test_a_number_beyond_the_bound_is_told_with_the_bound(override, said):
    def make():
        return make_experiment({"teacher": "digits"}, [override])

    if not said:
        assert len(make().search.trials) == 40_000
        return
    with pytest.raises(ConfigError, match=said):
        make()


def test_too_many_trials_are_told_with_their_number():
    seeds = list(range(30_000))
    values = {
        "teacher": "digits",
        "search": {"seeds": seeds, "algorithm": ["spos", "random_search", "zero_cost", "darts"]},
    }
    with pytest.raises(ConfigError, match=r"4 pair\(s\) of algorithm and space with 30,000 seeds are 120,000 trials"):
        make_experiment(values)


def test_a_grid_that_is_too_large_is_told_with_its_number():
    sweep = {
        "settings": {
            "synthesis.canvas_margin": {"integer": [1, 99_999_999_999]},
            "synthesis.flip_probability": {"choice": [0, 0.5]},
        },
        "sampler": "grid",
    }
    with pytest.raises(ConfigError, match="would try all 199,999,999,998 combinations"):
        make_experiment({"teacher": "digits", "sweep": sweep})
