"""Two votes: supernets and training-free figures."""

import numpy as np
import pytest

from dfnas_ray.algorithms.borda import Borda, BordaConfig, places


def ranked(measurements, supernets=2, proxies=("synflow", "naswot")):
    config = BordaConfig(supernets=supernets, proxies=proxies)
    borda = Borda.__new__(Borda)
    borda.config = config
    borda.untrained = type("Untrained", (), {"rank": lambda self, these: [one["synflow"] for one in these]})()
    return borda.rank(measurements)


def test_a_place_is_a_share_of_all_and_nan_is_lowest():
    assert places([3.0, 1.0, 2.0, np.nan]).tolist() == [1.0, 0.5, 0.75, 0.25]
    assert places([1.0, 1.0]).tolist() == [0.75, 0.75]


def test_each_side_has_one_vote_however_many_supernets_there_are():
    up = {"supernet_0": 1.0, "supernet_1": 1.0, "synflow": 0.0}
    down = {"supernet_0": 0.0, "supernet_1": 0.0, "synflow": 1.0}
    assert ranked([up, down]) == [0.75, 0.75]
    both = {"supernet_0": 2.0, "supernet_1": 2.0, "synflow": 2.0}
    assert ranked([up, down, both])[2] == 1.0


def test_supernets_vote_together():
    rows = [
        {"supernet_0": 3.0, "supernet_1": 30.0, "synflow": 1.0},
        {"supernet_0": 2.0, "supernet_1": 20.0, "synflow": 1.0},
        {"supernet_0": 1.0, "supernet_1": 10.0, "synflow": 1.0},
    ]
    scores = ranked(rows)
    assert scores[0] > scores[1] > scores[2]


def test_figures_and_steps_follow_from_the_settings():
    config = BordaConfig(supernets=2, epochs=5, proxies=["synflow"], evolution={"generations": 4})
    assert config.figures == ("supernet_0", "supernet_1", "synflow")
    assert config.steps_to_show == 14
    with pytest.raises(ValueError, match="different"):
        BordaConfig(proxies=["synflow", "synflow"])
