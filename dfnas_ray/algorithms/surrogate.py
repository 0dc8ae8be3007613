"""A learned ranker: a random forest that predicts from genotypes which candidates are worth measuring.

Source: Zheng et al. 2022, CVPR (RMI-NAS). There a forest is trained on measured architectures and finds the region of
the good ones by classification. Here it predicts ranks, so that no threshold between good and bad has to be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its modules are imported when they are first used
from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.limits import MANY, SEVERAL
from dfnas_ray.search_spaces.base import Genotype

Array = np.ndarray[Any, np.dtype[np.float64]]


class SurrogateConfig(BaseModel):
    """The random forest that proposes candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trees: int = Field(100, gt=0, le=SEVERAL, description="Number of trees in the forest.")
    min_samples_leaf: int = Field(1, gt=0, le=MANY, description="Fewest measured candidates in each leaf of a tree.")
    pool: int = Field(
        1_000, gt=0, le=MANY, description="Candidates drawn within the limits; the forest proposes the best of them."
    )
    quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Order proposals by this quantile of the trees' predictions; null uses their mean.",
    )
    exploration: float = Field(0.2, ge=0, le=1, description="Share of each round that is drawn at random.")


class ForestSurrogate:
    """Predicts the rank of a candidate among all candidates.

    The forest is trained from all measurements whenever it is needed. The same measurements give the same forest, so a
    search that resumes has nothing to load.

    Args:
        num_choices: Number of options of each decision of the space.
        config: Settings of the forest.
        seed: The seed of its random draws.
    """

    def __init__(self, num_choices: Sequence[int], config: SurrogateConfig, seed: int):
        from sklearn.ensemble import RandomForestRegressor  # imported late: it takes half a second in every process

        self.num_choices, self.config = tuple(num_choices), config
        self.forest = RandomForestRegressor(
            config.trees, min_samples_leaf=config.min_samples_leaf, random_state=seed % 2**32
        )

    def fit(self, genotypes: Sequence[Genotype], scores: Sequence[float]) -> None:
        """Train the forest on the ranks of these scores; higher is better, NaN is worst."""
        known = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        self.forest.fit(self._one_hot(genotypes), scipy.stats.rankdata(known) / len(known))

    def predict(self, genotypes: Sequence[Genotype]) -> Array:
        """Return the predicted rank in (0, 1] of each genotype, or a quantile of the trees' predictions; 1 is best."""
        encoded = self._one_hot(genotypes)
        guesses = np.stack([tree.predict(encoded) for tree in self.forest.estimators_])
        if self.config.quantile is None:
            return guesses.mean(axis=0)
        return np.quantile(guesses, self.config.quantile, axis=0)

    def propose(self, pool: Sequence[Genotype], count: int) -> list[Genotype]:
        """Return the ``count`` most promising genotypes of the pool, best first; the first one wins a tie."""
        if not pool:
            return []
        order = np.argsort(-self.predict(pool), kind="stable")
        return [pool[position] for position in order[:count]]

    def _one_hot(self, genotypes: Sequence[Genotype]) -> Array:
        """Return the genotypes with one column per option of each decision, because options have no order."""
        choices = np.asarray(genotypes)
        return np.concatenate(
            [np.eye(count)[choices[:, position]] for position, count in enumerate(self.num_choices)], axis=1
        )
