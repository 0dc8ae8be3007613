"""Teacher alignment: a forest proposes candidates, which are trained briefly and judged by how they follow the teacher.

In the spirit of Zheng et al. 2022, CVPR (RMI-NAS): an architecture that soon represents images like a good network is
itself a good one. RMI-NAS uses one real batch; this search uses synthetic batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import compress
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from dfnas_ray.algorithms.alignment_scorer import AlignmentScorer, AlignmentSettings, make_scorer
from dfnas_ray.algorithms.base import Measurement, SearchAlgorithm, SearchProblem, StateDict
from dfnas_ray.algorithms.ranks import add_up_ranks
from dfnas_ray.algorithms.surrogate import ForestSurrogate, SurrogateConfig
from dfnas_ray.errors import GenotypeError
from dfnas_ray.limits import MANY
from dfnas_ray.search_spaces.base import Genotype
from dfnas_ray.seeding import derive_seed, numpy_generator

Figure = Literal["alignment", "stages", "train_alignment", "loss", "agreement", "train_loss"]
"""The figures of a candidate; ``stages`` means the alignment of every stage, each with its own rank."""

_MAX_MISSES = 200  # draws in a row without a new candidate; a small space may have no more


class AlignmentConfig(AlignmentSettings):
    """Candidates judged by how well they follow the teacher after very short training."""

    kind: Literal["alignment"] = "alignment"
    candidates: int = Field(200, gt=0, le=MANY, description="Number of architectures measured, all different.")
    initial: int = Field(
        60, gt=0, le=MANY, description="Number of candidates drawn at random before the forest proposes any."
    )
    round_size: int = Field(20, gt=0, le=MANY, description="Candidates measured between two checkpoints.")
    criterion: Figure | Literal["rank_sum"] = Field(
        "train_alignment",
        description="Score of a candidate: one figure, or the sum of the logarithms of its ranks by several figures.",
    )
    rank_sum_of: tuple[Figure, ...] = Field(
        ("alignment", "loss", "train_loss"), min_length=1, description="The figures that criterion: rank_sum uses."
    )
    surrogate: SurrogateConfig = SurrogateConfig()

    search_settings: ClassVar[frozenset[str]] = frozenset(
        {"candidates", "initial", "round_size", "criterion", "rank_sum_of", "surrogate"}
    )
    keeps_min_macs: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.initial > self.candidates:
            raise ValueError(
                f"initial ({self.initial}) must not be above candidates ({self.candidates}). Lower it, or raise candidates."
            )
        judged_by = self.rank_sum_of if self.criterion == "rank_sum" else (self.criterion,)
        if self.steps == 0 and (trained := [name for name in judged_by if name.startswith("train_")]):
            raise ValueError(
                f"criterion ({' + '.join(trained)}) is measured during training, but steps is 0. Raise steps, or set "
                "criterion: alignment."
            )
        return self

    @property
    def figures(self) -> tuple[str, ...]:
        """See `RankingFeatures`; one more for each stage is measured."""
        return tuple(name for name in get_args(Figure) if name != "stages")

    @property
    def steps_to_show(self) -> int:
        """The length of the progress bar, in rounds."""
        later = self.candidates - self.initial
        return -(-self.initial // self.round_size) + -(-later // self.round_size)

    @property
    def num_candidates(self) -> int:
        """See `PlanningFeatures`."""
        return self.candidates

    def algorithm(self, problem: SearchProblem) -> AlignmentSearch:
        """Return the algorithm, ready to run."""
        return AlignmentSearch(self, problem)


class AlignmentSearch(SearchAlgorithm):
    """Measures random candidates first, then mostly the best ones by a forest trained on all measurements so far.

    It never measures a candidate twice, or one outside the limits.
    """

    def __init__(self, config: AlignmentConfig, problem: SearchProblem):
        problem.space.check_limit(problem.max_macs, problem.min_macs)
        self.config, self.problem, self.space = config, problem, problem.space
        self.rng = numpy_generator(problem.seed, "alignment")
        self.measurements: dict[Genotype, Measurement] = {}
        self._asked: list[Genotype] = []
        self._is_exhausted = False

    @property
    def is_finished(self) -> bool:
        """Whether all candidates were measured, or no new one can be found."""
        return len(self.measurements) >= self.config.candidates or self._is_exhausted

    def ask(self) -> list[Genotype]:
        """Return the next round of candidates; a second call before `tell` returns the same round."""
        if not self._asked and not self.is_finished:
            measured, config = len(self.measurements), self.config
            end = config.initial if measured < config.initial else config.candidates
            count = min(config.round_size, end - measured)
            self._asked = self._draw(count) if measured < config.initial else self._propose(count)
        return list(self._asked)

    def tell(self, measurements: Sequence[Measurement]) -> list[float]:
        """Receive the round's measurements, and return its scores among all candidates so far."""
        self._is_exhausted = not self._asked
        self.measurements |= zip(self._asked, measurements, strict=True)
        self._asked = []
        return self.rank(list(self.measurements.values()))[len(self.measurements) - len(measurements) :]

    def scorer(self) -> AlignmentScorer:
        """Return a scorer that trains each candidate for a few steps and compares it with the teacher."""
        return make_scorer(self.config, self.problem)

    def rank(self, measurements: Sequence[Measurement]) -> list[float]:
        """Return the criterion of each candidate; higher is better, NaN where its training diverged."""
        if not measurements:
            return []
        figures = self.config.rank_sum_of if self.config.criterion == "rank_sum" else (self.config.criterion,)
        names = [name for figure in figures for name in _names(figure, measurements[0])]
        valued = [{name: _higher_is_better(found, name) for name in names} for found in measurements]
        if len(names) == 1:
            return [found[names[0]] for found in valued]
        valid = [all(map(math.isfinite, found.values())) for found in valued]
        ranked = iter(add_up_ranks(list(compress(valued, valid)), names) if any(valid) else ())
        return [next(ranked) if is_valid else math.nan for is_valid in valid]

    def best(self) -> tuple[Genotype, float]:
        """Return the best candidate and its score; the first found wins a tie."""
        if not self.measurements:
            raise GenotypeError("No candidate has been measured yet.")
        return next(iter(self._ranked().items()))

    def finalists(self, count: int) -> list[Genotype]:
        """Return the candidates with the highest scores."""
        return list(self._ranked())[:count]

    def state_dict(self) -> StateDict:
        """Return the state as numbers and text only."""
        return {
            "measurements": [[self.space.encode(genotype), found] for genotype, found in self.measurements.items()],
            "asked": [self.space.encode(genotype) for genotype in self._asked],
            "is_exhausted": self._is_exhausted,
            "rng": json.dumps(self.rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Resume exactly where ``state_dict`` was called."""
        self.measurements = {self.space.decode(text): found for text, found in state["measurements"]}
        self._asked = [self.space.decode(text) for text in state["asked"]]
        self._is_exhausted = state["is_exhausted"]
        self.rng.bit_generator.state = json.loads(state["rng"])

    def _ranked(self) -> dict[Genotype, float]:
        """Return all measured candidates and their scores, the best first; NaN counts as worst."""
        scores = self.rank(list(self.measurements.values()))
        valued = [-math.inf if math.isnan(score) else score for score in scores]
        pairs = zip(self.measurements, valued, strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    def _propose(self, count: int) -> list[Genotype]:
        """Return a round of candidates: a share drawn at random, and the rest the best of a pool by the forest."""
        settings = self.config.surrogate
        forest = ForestSurrogate(
            self.space.num_choices, settings, derive_seed(self.problem.seed, "forest", len(self.measurements))
        )
        forest.fit(list(self.measurements), self.rank(list(self.measurements.values())))
        promising = forest.propose(self._draw(settings.pool), count - round(settings.exploration * count))
        return promising + self._draw(count - len(promising), promising)

    def _draw(self, count: int, taken: Sequence[Genotype] = ()) -> list[Genotype]:
        """Return up to ``count`` new candidates, drawn uniformly; fewer if the space is nearly exhausted."""
        known = {*self.measurements, *taken}
        found: list[Genotype] = []
        misses = 0
        while len(found) < count and misses < _MAX_MISSES:
            genotype = self.space.sample_within(self.rng, self.problem.max_macs, self.problem.min_macs)
            if genotype in known:
                misses += 1
                continue
            known.add(genotype)
            found.append(genotype)
            misses = 0
        return found


def _names(figure: Figure, measurement: Measurement) -> list[str]:
    return [name for name in measurement if name.startswith("alignment_")] if figure == "stages" else [figure]


def _higher_is_better(measurement: Measurement, name: str) -> float:
    return -measurement[name] if name in ("loss", "train_loss") else measurement[name]
