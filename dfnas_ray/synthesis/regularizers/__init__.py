"""Regularisers of model inversion: one module each, a pure function and a config with its weight.

Add one: a module with the function and a config that has ``weight`` and ``loss()``, and one field below. ``loss()``
returns a plain function of an `Observation`, which torch.compile can trace. A term of weight 0 is not computed.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dfnas_ray.synthesis.regularizers.base import BatchNormInput, Observation, Regularizer
from dfnas_ray.synthesis.regularizers.bn_statistics import BNStatisticsConfig
from dfnas_ray.synthesis.regularizers.l2 import L2Config
from dfnas_ray.synthesis.regularizers.total_variation import TotalVariationConfig


class RegularizersConfig(BaseModel):
    """The terms that keep synthetic images close to what the teacher was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bn_statistics: BNStatisticsConfig = BNStatisticsConfig()
    total_variation: TotalVariationConfig = TotalVariationConfig()
    l2: L2Config = L2Config()

    def active(self) -> dict[str, tuple[float, Regularizer]]:
        """Return (weight, unweighted term) by name, those of weight 0 left out."""
        terms = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: (term.weight, term.loss()) for name, term in terms.items() if term.weight > 0}


__all__ = ["BatchNormInput", "Observation", "Regularizer", "RegularizersConfig"]
