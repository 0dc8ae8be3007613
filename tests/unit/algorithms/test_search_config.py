"""The names by which trials and rankings are told apart, and settings that make no search."""

import pytest

from dfnas_ray.algorithms.config import SearchConfig, distinct
from dfnas_ray.algorithms.random_search import RandomSearchConfig
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError


class Variant(RandomSearchConfig):
    """One kind under several labels."""

    @property
    def label(self):
        return f"random_search-{self.epochs}"


def names(*algorithms):
    config = SearchConfig().model_copy(update={"algorithm": algorithms, "seeds": (0,)})
    return [trial.name for trial in config.trials]


def test_a_name_alone_stands_for_that_kind_with_its_defaults():
    config = SearchConfig(space="nasbench201", algorithm=["spos", {"kind": "random_search", "epochs": 1}])
    assert config == SearchConfig(
        space={"kind": "nasbench201"}, algorithm=[{"kind": "spos"}, {"kind": "random_search", "epochs": 1}]
    )


def test_labels_that_occur_twice_are_numbered():
    assert distinct(["a", "b", "a", "c"]) == ["a-1", "b", "a-2", "c"]


def test_members_of_one_kind_have_trials_of_their_own():
    twice = [RandomSearchConfig(epochs=1), RandomSearchConfig(epochs=2)]
    assert names(*twice) == ["random_search-nasbench_macro-1-seed-0", "random_search-nasbench_macro-2-seed-0"]


def test_trials_are_named_by_the_label():
    assert names(Variant(epochs=1), RandomSearchConfig()) == [
        "random_search-1-nasbench_macro-seed-0",
        "random_search-nasbench_macro-seed-0",
    ]


@pytest.mark.parametrize(
    "algorithm", [{"kind": "darts", "epochs": 5, "warmup_epochs": 5}, {"kind": "proxyless", "epochs": 20}]
)
def test_alphas_that_never_learn_are_refused(algorithm):
    said = rf"(?s)warmup_epochs \(\d+\) must be below epochs \({algorithm['epochs']}\).*Lower warmup_epochs, or raise epochs"
    with pytest.raises(ConfigError, match=said):
        make_experiment({"teacher": "digits", "search": {"algorithm": algorithm}})
