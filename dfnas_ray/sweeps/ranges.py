"""The ranges of swept settings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dfnas_ray.limits import MAX_CHOICES

Whole: TypeAlias = Annotated[int, Field(gt=-(2**53), lt=2**53)]
"""A whole number that is exact in Optuna, which computes with floating-point numbers."""

Parameter: TypeAlias = bool | int | float | str | None
"""The value that Optuna stores for a setting: a number or a category."""

_FORMS = ("uniform", "log_uniform", "integer", "log_integer", "choice")


class Range(BaseModel):
    """The range of one swept setting; exactly one form must be given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uniform: tuple[float, float] | None = Field(None, description="Any number from the first to the second.")
    log_uniform: tuple[float, float] | None = Field(None, description="The same, but uniform on a logarithmic scale.")
    integer: tuple[Whole, Whole] | None = Field(None, description="A whole number, both ends included.")
    log_integer: tuple[Whole, Whole] | None = Field(
        None, description="The same, but small numbers are tried more often."
    )
    choice: tuple[Any, ...] | None = Field(
        None, max_length=MAX_CHOICES, description="One of these values, which may be lists or mappings."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in _FORMS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(_FORMS)} must be given, such as log_uniform: [0.01, 100]")
        form, values = given[0], getattr(self, given[0])
        if form == "choice":
            if len(values) < 2:
                raise ValueError(f"choice ({list(values)}) needs at least two values")
            if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
                raise ValueError(f"choice ({list(values)}) names a value twice")
            return self
        low, high = values
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{form} ({[low, high]}) must have finite ends")
        if low >= high:
            raise ValueError(f"{form} ({[low, high]}) is empty: the first value must be below the second")
        if form.startswith("log") and low <= 0:
            raise ValueError(f"{form} ({[low, high]}) must begin above 0, because its scale is logarithmic")
        return self

    @property
    def form(self) -> str:
        """The name of the given field."""
        return next(name for name in _FORMS if getattr(self, name) is not None)

    @property
    def limits(self) -> tuple[Any, ...]:
        """The ends of the range, or all choices. If they are valid settings, so are the values between them."""
        values: tuple[Any, ...] = getattr(self, self.form)
        return values

    @property
    def is_log(self) -> bool:
        """Whether the scale is logarithmic."""
        return self.form.startswith("log")

    @property
    def is_integer(self) -> bool:
        """Whether values are whole numbers."""
        return self.form.endswith("integer")

    @property
    def categories(self) -> Sequence[Parameter] | None:
        """The choices as Optuna stores them (values other than scalars as JSON), or None for a range of numbers."""
        return None if self.choice is None else [_category(value) for value in self.choice]

    @property
    def grid_size(self) -> int | None:
        """The number of values, or None if they cannot be listed."""
        if self.choice is not None:
            return len(self.choice)
        return self.limits[1] - self.limits[0] + 1 if self.form == "integer" else None

    @property
    def grid(self) -> Sequence[Parameter] | None:
        """All values, or None if they cannot be listed."""
        if self.categories is not None:
            return self.categories
        return list(range(self.limits[0], self.limits[1] + 1)) if self.form == "integer" else None

    def value(self, parameter: Parameter) -> Any:
        """Return the value of the setting for a parameter that Optuna stores."""
        if self.choice is None:
            return parameter
        return next(value for value in self.choice if _category(value) == parameter)

    def at(self, quantile: float) -> Parameter:
        """Return the parameter at a quantile in [0, 1) of this range."""
        if self.categories is not None:
            return self.categories[int(quantile * len(self.categories))]
        low, high = self.limits
        width = 1 if self.is_integer else 0
        if self.is_log:
            value = math.exp(math.log(low) + quantile * (math.log(high + width) - math.log(low)))
        else:
            value = low + quantile * (high + width - low)
        return min(math.floor(value), high) if self.is_integer else value


def _category(value: Any) -> Parameter:
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, sort_keys=True)
