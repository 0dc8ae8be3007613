"""A learned ranker: a random forest that guesses from genotypes which candidates are worth measuring.

Source: Zheng et al. 2022, CVPR (RMI-NAS), where a forest, grown on measured architectures, finds the region of the good
ones. There it classifies; here it predicts ranks, so that no threshold between good and bad has to be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.limits import MANY, SEVERAL
from dfnas_ray.search_spaces.base import Genotype

Array = np.ndarray[Any, np.dtype[np.float64]]


class SurrogateConfig(BaseModel):
    """The random forest that proposes candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trees: int = Field(100, gt=0, le=SEVERAL, description="Of the forest.")
    min_samples_leaf: int = Field(1, gt=0, le=MANY, description="Measured candidates in each leaf of a tree.")
    pool: int = Field(
        1_000, gt=0, le=MANY, description="Candidates drawn within the limit, of which the best are proposed."
    )
    quantile: float | None = Field(
        None, gt=0, lt=1, description="Of the trees' guesses, by which proposals are ordered; null takes their mean."
    )
    exploration: float = Field(0.2, ge=0, le=1, description="Share of each round that is drawn at random instead.")


class ForestSurrogate:
    """Predicts where a candidate stands among all.

    It is grown anew from what was measured whenever it is needed, and the same each time: a search that resumes has
    nothing to load.

    Args:
        num_choices: Options of each decision of the space.
        config: Size and taste of the forest.
        seed: Of its draws.
    """

    def __init__(self, num_choices: Sequence[int], config: SurrogateConfig, seed: int):
        from sklearn.ensemble import RandomForestRegressor  # half a second, in every search process

        self.num_choices, self.config = tuple(num_choices), config
        self.forest = RandomForestRegressor(
            config.trees, min_samples_leaf=config.min_samples_leaf, random_state=seed % 2**32
        )

    def fit(self, genotypes: Sequence[Genotype], scores: Sequence[float]) -> None:
        """Learn the ranks of these scores, higher is better; NaN is worst."""
        from scipy.stats import rankdata

        known = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        self.forest.fit(self._one_hot(genotypes), rankdata(known) / len(known))

    def predict(self, genotypes: Sequence[Genotype]) -> Array:
        """Return the expected rank in (0, 1] of each genotype, 1 is best; or the quantile of the trees' guesses."""
        encoded = self._one_hot(genotypes)
        guesses = np.stack([tree.predict(encoded) for tree in self.forest.estimators_])
        if self.config.quantile is None:
            return guesses.mean(axis=0)
        return np.quantile(guesses, self.config.quantile, axis=0)

    def propose(self, pool: Sequence[Genotype], count: int) -> list[Genotype]:
        """Return the ``count`` most promising genotypes of the pool, the best first; the first of equals wins."""
        if not pool:
            return []
        order = np.argsort(-self.predict(pool), kind="stable")
        return [pool[position] for position in order[:count]]

    def _one_hot(self, genotypes: Sequence[Genotype]) -> Array:
        """Return one column per option of each decision: options have no order."""
        choices = np.asarray(genotypes)
        return np.concatenate(
            [np.eye(count)[choices[:, position]] for position, count in enumerate(self.num_choices)], axis=1
        )
