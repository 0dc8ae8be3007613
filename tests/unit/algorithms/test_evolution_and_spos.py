import io
from collections import Counter

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms import Evolution, EvolutionConfig, SearchState, SposConfig
from dfnas_ray.algorithms.one_shot import reestimate_batch_norm
from dfnas_ray.errors import GenotypeError
from dfnas_ray.search_spaces import NASBenchMacroConfig
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.batches import SyntheticBatches
from dfnas_ray.training.config import DistillationConfig

SPACE = NASBenchMacroConfig(stem_channels=4, stage_layers=(2, 2), stage_channels=(8, 16), head_channels=16).space(
    (1, 16, 16), 10
)


def evolve(limit=None, generations=6, seed=0, **settings):
    sizes = {"population": 10, "parents": 4, "mutations": 5, "crossovers": 5, **settings}
    return Evolution(SPACE, EvolutionConfig(generations=generations, **sizes), limit, seed)


def score(genotype):
    return -sum((choice - 1) ** 2 for choice in genotype)  # best at 1111


def run(evolution):
    asked = []
    while not evolution.is_finished:
        asked.append(evolution.ask())
        evolution.tell([score(genotype) for genotype in asked[-1]])
    return asked


def test_evolution_finds_the_best_of_a_simple_score():
    evolution = evolve()
    run(evolution)
    assert SPACE.encode(evolution.best()) == "1111"


def test_evolution_stays_within_the_limit_and_scores_nothing_twice():
    limit = SPACE.cost(SPACE.decode("1111")).macs
    asked = [genotype for generation in run(evolve(limit, generations=30)) for genotype in generation]
    assert all(SPACE.cost(genotype).macs <= limit for genotype in asked)
    assert max(Counter(asked).values()) == 1  # 30 generations ask for more than the 81 architectures there are


def test_evolution_asked_twice_answers_the_same():
    evolution = evolve()
    assert evolution.ask() == evolution.ask()


def test_evolution_goes_on_from_its_state_as_if_undisturbed():
    undisturbed = run(evolve())
    first, second = evolve(), evolve(seed=99)
    for _ in range(2):
        first.tell([score(genotype) for genotype in first.ask()])
    first.ask()
    second.load_state_dict(first.state_dict())
    assert run(second) == undisturbed[2:]


def test_a_limit_that_nothing_meets_is_refused_with_the_smallest():
    with pytest.raises(GenotypeError, match="smallest architecture"):
        evolve(limit=1)


def test_a_score_that_is_not_a_number_is_the_worst():
    evolution = evolve(generations=1)
    asked = evolution.ask()
    evolution.tell([float("nan")] + [-5.0] * (len(asked) - 1))
    assert evolution.best() == asked[1]


def make_spos(seed=0, **settings):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher = freeze_teacher("t", DigitsCNN(4), (1, 16, 16), (0.3,), (0.3,))
    rng = np.random.default_rng(0)
    data = SyntheticImages(
        images=rng.integers(0, 256, (48, 1, 18, 18), dtype=np.uint8),
        labels=np.zeros(48, np.int64),
        rounds=np.zeros(48, np.int64),
        logits=rng.normal(size=(48, 10)).astype(np.float32),
        ids=np.arange(48, dtype=np.uint64),
    )
    distillation = DistillationConfig()
    side = [SyntheticBatches(data, teacher, distillation, 16, seed, torch.device("cpu")) for _ in range(2)]
    evolution = {"generations": 2, "population": 3, "parents": 2, "mutations": 2, "crossovers": 1}
    config = SposConfig(epochs=2, batch_size=16, calibration_batches=2, evolution=evolution, **settings)
    return SearchState(config.algorithm(SPACE, *side, distillation, None, seed))


def test_spos_samples_every_choice_uniformly():
    spos = make_spos().algorithm
    draws = np.array([SPACE.sample_within(spos.path_rng, None) for _ in range(3000)])
    for column in draws.T:
        counts = np.bincount(column, minlength=3)
        assert np.abs(counts - 1000).max() < 3 * np.sqrt(3000 * (1 / 3) * (2 / 3))


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_search_that_stops_anywhere_ends_like_an_undisturbed_one(stop_after):
    undisturbed = make_spos()
    undisturbed.run()
    saved = io.BytesIO()

    class Stop(Exception):  # noqa: N818 - it is no error
        pass

    def stop(state):
        if len(state.history) == stop_after:
            torch.save(state.state_dict(), saved)
            raise Stop

    with pytest.raises(Stop):
        make_spos().run(stop)
    saved.seek(0)
    torch.manual_seed(1234)
    resumed = make_spos()
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    resumed.run()
    assert resumed.history == undisturbed.history
    assert resumed.algorithm.best() == undisturbed.algorithm.best()


def test_scores_do_not_depend_on_the_order_of_candidates():
    scorer = make_spos().algorithm.scorer()
    candidates = [SPACE.decode(text) for text in ("0000", "1212", "2222")]
    assert scorer(candidates) == scorer(candidates[::-1])[::-1]


def test_reestimated_statistics_are_the_plain_average_over_batches():
    supernet = SPACE.supernet()
    batches = [torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    reestimate_batch_norm(supernet, SPACE.decode("1111"), batches)
    convolution, norm = supernet.stem[0], supernet.stem[1]
    outputs = [convolution(batch) for batch in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([o.var((0, 2, 3)) for o in outputs]).mean(0))
    assert not supernet.training
