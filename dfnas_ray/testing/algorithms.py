"""The tests of search algorithms, in every space that they can search."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pytest
import torch
from torch import nn

from dfnas_ray.algorithms.base import HistoryEntry, SearchProblem, SearchState, make_algorithm
from dfnas_ray.algorithms.config import ALGORITHMS
from dfnas_ray.search_spaces import Genotype, SearchSpace, SpaceConfig
from dfnas_ray.testing.member import ConfigSuite, ids_of
from dfnas_ray.testing.small import IMAGE_SHAPE, NUM_CLASSES, SMALL_SPACES, small_batches
from dfnas_ray.training.batches import Batch, SyntheticBatches
from dfnas_ray.training.config import DistillationConfig


class NewSearch(NamedTuple):
    """A search that has not begun, and its problem."""

    state: SearchState
    problem: SearchProblem


class FinishedSearch(NamedTuple):
    """The result of an undisturbed search, and its work: the number of batches served and networks built.

    Attributes:
        history: All entries of the history.
        best: The best genotype and its score.
        work: The work done when each entry of the history was written.
    """

    history: list[HistoryEntry]
    best: tuple[Genotype, float]
    work: list[int]


class Start(Protocol):
    """A function that returns a new search."""

    def __call__(self, limit_share: float | None = None, seed: int = 0) -> NewSearch:
        """Return a search whose limit lies at this share between the smallest and the largest MACs of some draws."""
        ...


class _Stop(Exception):  # noqa: N818 - it is not an error
    pass


_finished: dict[tuple[type, str, str], FinishedSearch] = {}


class AlgorithmSuite(ConfigSuite):
    """The tests that every search algorithm must pass.

    Give settings for two or three short epochs or rounds, so that a search can be interrupted and resumed.

    Attributes:
        spaces: The small spaces of the tests. Spaces that the algorithm declares as unsuitable are skipped.
    """

    family = ALGORITHMS
    spaces: ClassVar[Sequence[SpaceConfig]] = SMALL_SPACES

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for each algorithm in each space."""
        if "space_config" not in metafunc.fixturenames:
            super().pytest_generate_tests(metafunc)
            return
        if not (given := self.given()):
            metafunc.parametrize("space_config", self.spaces, ids=ids_of(self.spaces))
            return
        pairs = [
            pytest.param(config, space, id=f"{config_id}-{space_id}")
            for config, config_id in zip(given, ids_of(given), strict=True)
            for space, space_id in zip(self.spaces, ids_of(self.spaces), strict=True)
            if space.kind not in config.unsuitable_spaces
        ]
        metafunc.parametrize(("config", "space_config"), pairs)

    @pytest.fixture
    def start(self, config: Any, space_config: SpaceConfig) -> Start:
        """A function that returns new searches of the algorithm in the space."""
        if space_config.kind in config.unsuitable_spaces:
            pytest.skip(config.unsuitable_spaces[space_config.kind])
        batches = small_batches(count=32)

        def make(limit_share: float | None = None, seed: int = 0) -> NewSearch:
            space = space_config.space(IMAGE_SHAPE, NUM_CLASSES)
            limit = least = None
            if limit_share is not None:
                smallest = space.cost(space.cheapest()).macs
                draws = [space.cost(space.sample(np.random.default_rng(n))).macs for n in range(30)]
                limit = int(smallest + limit_share * (max(draws) - smallest))
                least = (smallest + limit) // 2 if config.keeps_min_macs else None
            problem = SearchProblem(space, batches, batches, DistillationConfig(), limit, seed, min_macs=least)
            return NewSearch(SearchState(make_algorithm(config, problem)), problem)

        return make

    @pytest.fixture
    def undisturbed(self, start: Start, config: Any, space_config: SpaceConfig) -> FinishedSearch:
        """A search that ran to its end without interruption, once for all tests."""
        key = (type(config), config.model_dump_json(), space_config.model_dump_json())
        if key not in _finished:
            with pytest.MonkeyPatch.context() as monkeypatch:
                (state, problem), done = start(), list[int]()
                work = _CountedWork(monkeypatch, problem.space)
                state.run(lambda state: done.append(work.done))
            _finished[key] = FinishedSearch(state.history, state.algorithm.best(), done)
        return _finished[key]

    def test_its_settings_answer_what_others_ask(self, config: Any) -> None:
        """Progress bars, results, the benchmark and the stage's key use them."""
        assert config.label
        assert config.batch_size > 0
        assert config.steps_to_show > 0
        assert all(isinstance(file, str) for file in config.files)
        json.dumps(config.measuring_settings())
        unknown = config.search_settings - set(type(config).model_fields)
        assert not unknown, f"search_settings names unknown settings: {sorted(unknown)}"
        assert all(config.unsuitable_spaces.values()), "each unsuitable space needs a reason"

    def test_a_search_that_stops_anywhere_ends_like_an_undisturbed_one(
        self, start: Start, undisturbed: FinishedSearch
    ) -> None:
        """`state_dict` holds everything that later steps need, in a form that can be loaded without running code."""
        for stop_after in {1, len(undisturbed.history) - 1} & set(range(1, len(undisturbed.history) + 1)):
            saved = io.BytesIO()

            def stop(state: SearchState, saved: io.BytesIO = saved, stop_after: int = stop_after) -> None:
                if len(state.history) == stop_after:
                    torch.save(state.state_dict(), saved)
                    raise _Stop

            with pytest.raises(_Stop):
                start().state.run(stop)
            resumed = _resumed(start, saved, seed=1234)
            assert resumed.history == undisturbed.history
            assert resumed.algorithm.best() == undisturbed.best

    def test_a_search_broken_off_within_an_epoch_or_a_round_ends_like_an_undisturbed_one(
        self, start: Start, undisturbed: FinishedSearch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Work since the last checkpoint is repeated."""
        first, last = undisturbed.work[:1], undisturbed.work[-1:]
        if first == last:
            pytest.skip("the search takes no batch and builds no network after its first checkpoint")
        work = _CountedWork(monkeypatch, start().problem.space)
        work.stop_after = (first[0] + last[0]) // 2
        saved = io.BytesIO()

        def keep(state: SearchState) -> None:
            saved.seek(0)
            saved.truncate()
            torch.save(state.state_dict(), saved)

        with pytest.raises(_Stop):
            start().state.run(keep)
        monkeypatch.undo()
        assert saved.tell()
        assert _resumed(start, saved, seed=99).history == undisturbed.history

    def test_the_architecture_found_is_within_the_limits_and_can_be_built(self, start: Start) -> None:
        """Its score is a number."""
        state, problem = start(limit_share=0.4)
        state.run()
        genotype, score = state.algorithm.best()
        assert problem.max_macs is not None
        assert problem.space.is_within(genotype, problem.max_macs, problem.min_macs)
        assert np.isfinite(score)
        problem.space.build(genotype)

    def test_what_happened_is_recorded_as_json_numbers(self, undisturbed: FinishedSearch) -> None:
        """Reports and resumed commands read the history."""
        assert undisturbed.history
        for entry in undisturbed.history:
            assert entry["phase"] in ("training", "sampling")
            json.dumps(entry)
            assert all(isinstance(value, str | int | float | list) for value in entry.values())

    def test_finalists_are_different_architectures_within_the_limits_and_the_best_comes_first(
        self, start: Start
    ) -> None:
        """A second call returns the same ones."""
        state, problem = start(limit_share=0.6)
        state.run()
        algorithm, space = state.algorithm, problem.space
        finalists = algorithm.finalists(3)
        assert finalists[0] == algorithm.best()[0]
        assert 1 <= len(finalists) <= 3
        assert len(set(finalists)) == len(finalists)
        assert finalists == algorithm.finalists(3)
        assert algorithm.finalists(1) == finalists[:1]
        assert problem.max_macs is not None
        assert all(space.is_within(genotype, problem.max_macs, problem.min_macs) for genotype in finalists)

    def test_measurements_and_scores_do_not_depend_on_the_order_of_candidates(self, start: Start, config: Any) -> None:
        """Several machines measure candidates with copies of the scorer."""
        state, problem = start()
        algorithm = state.algorithm
        if config.cannot_rank:
            with pytest.raises(NotImplementedError):
                algorithm.scorer()
            return
        state.train()
        try:
            scorer = algorithm.scorer()
        except NotImplementedError:
            pytest.fail("give it scorer(), or set cannot_rank to the reason why it has none")
        rng = np.random.default_rng(3)
        candidates = list(dict.fromkeys(problem.space.sample(rng) for _ in range(4)))
        copied = pickle.loads(pickle.dumps(scorer))
        measured = scorer(candidates)
        assert all(isinstance(value, float) for measurement in measured for value in measurement.values())
        copied.to(torch.device("cpu"))
        assert copied(candidates[::-1]) == measured[::-1]
        scores = algorithm.rank(measured)
        assert len(scores) == len(candidates)
        assert algorithm.rank(measured[::-1]) == pytest.approx(scores[::-1])

    def test_it_says_whether_it_trains_before_it_compares_candidates(self, start: Start, config: Any) -> None:
        """Only an algorithm that trains by epochs can start before all images are ready."""
        trains_candidates = config.measures_population  # and compares them, which needs all images
        assert start().state.algorithm.is_training == (config.trains_by_epochs or trains_candidates)


def _resumed(start: Start, saved: io.BytesIO, seed: int) -> SearchState:
    """Return a new search that resumed from a saved state and ran to its end."""
    saved.seek(0)
    torch.manual_seed(seed)
    state = start().state
    state.load_state_dict(torch.load(saved, weights_only=True))
    state.run()
    return state


class _CountedWork:
    """Counts batches served and networks built, and raises `_Stop` at ``stop_after``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, space: SearchSpace):
        self.done = 0
        self.stop_after: int | None = None
        epoch, build = SyntheticBatches.epoch, type(space).build

        def counted_epoch(batches: SyntheticBatches, number: int) -> Iterator[Batch]:
            for batch in epoch(batches, number):
                self._count()
                yield batch

        def counted_build(space: SearchSpace, genotype: Genotype) -> nn.Module:
            self._count()
            return build(space, genotype)

        monkeypatch.setattr(SyntheticBatches, "epoch", counted_epoch)
        monkeypatch.setattr(type(space), "build", counted_build)

    def _count(self) -> None:
        if self.done == self.stop_after:
            raise _Stop
        self.done += 1
