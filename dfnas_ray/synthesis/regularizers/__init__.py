"""Regularisers of synthesis: one module each, with a pure function and a config with its weight.

To add one, write a module with the function and a config that has ``kind``, ``weight`` and ``loss()``. Then add a line
to `REGULARIZERS` and a field below, or an entry point in a package of your own. ``loss()`` returns a plain function of
an `Observation`, which torch.compile can trace. A term of weight 0 is not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from dfnas_ray.config.registry import Family, SettingValues, kind_of
from dfnas_ray.synthesis.regularizers.adversarial import AdversarialConfig
from dfnas_ray.synthesis.regularizers.base import (
    OBSERVABLE,
    BatchNormInput,
    Observation,
    Regularizer,
    RegularizerConfig,
    Statistics,
)
from dfnas_ray.synthesis.regularizers.bn_statistics import BNStatisticsConfig
from dfnas_ray.synthesis.regularizers.l2 import L2Config
from dfnas_ray.synthesis.regularizers.total_variation import TotalVariationConfig

REGULARIZERS: Family[RegularizerConfig] = Family(
    "regulariser",
    RegularizerConfig,  # type: ignore[type-abstract]  # only its members are made
    {
        "bn_statistics": "dfnas_ray.synthesis.regularizers.bn_statistics:BNStatisticsConfig",
        "total_variation": "dfnas_ray.synthesis.regularizers.total_variation:TotalVariationConfig",
        "l2": "dfnas_ray.synthesis.regularizers.l2:L2Config",
        "adversarial": "dfnas_ray.synthesis.regularizers.adversarial:AdversarialConfig",
    },
)
"""Every regulariser by its kind."""


class RegularizersConfig(BaseModel):
    """The terms that keep synthetic images close to what the teacher was trained on.

    Terms of other packages can be added, by their kind, ``entropy: {weight: 0.1}``, or by their class under any name,
    ``sharp: {kind: my_package.module:EntropyConfig, weight: 0.1}``.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    __pydantic_extra__: dict[str, Annotated[RegularizerConfig, REGULARIZERS]]
    extra_members: ClassVar[Family[RegularizerConfig]] = REGULARIZERS

    bn_statistics: BNStatisticsConfig = BNStatisticsConfig()
    total_variation: TotalVariationConfig = TotalVariationConfig()
    l2: L2Config = L2Config()
    adversarial: AdversarialConfig = AdversarialConfig()

    @model_validator(mode="before")
    @classmethod
    def _take_names_for_kinds(cls, values: Any) -> Any:
        """Take the name of an added term as its kind, if it does not give another kind."""
        if not isinstance(values, Mapping):
            return values
        return {name: value if name in cls.model_fields else _with_kind(name, value) for name, value in values.items()}

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> SettingValues:
        """Add the kinds of terms whose names differ from their kinds."""
        values: SettingValues = handler(self)
        for name, term in (self.model_extra or {}).items():
            if "kind" not in values.get(name, {"kind": ""}) and name != kind_of(type(term)):
                values[name] = {"kind": kind_of(type(term)), **values[name]}
        return values

    def terms(self) -> dict[str, RegularizerConfig]:
        """Return all terms by name, without those of weight 0."""
        terms = {name: getattr(self, name) for name in (*type(self).model_fields, *(self.model_extra or {}))}
        return {name: term for name, term in terms.items() if term.weight > 0}

    def active(self) -> dict[str, tuple[float, Regularizer]]:
        """Return (weight, unweighted term) by name, without terms of weight 0."""
        return {name: (term.weight, term.loss()) for name, term in self.terms().items()}

    @property
    def observes(self) -> frozenset[str]:
        """The names in `OBSERVABLE` that the terms use."""
        return frozenset[str]().union(*(term.observes for term in self.terms().values()))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return a schema that includes the terms of installed packages."""
        terms = handler.resolve_ref_schema(handler(schema))
        for member in REGULARIZERS.members():
            inner = core_schema.nullable_schema(member.code.__pydantic_core_schema__)  # its schema then is a reference
            terms["properties"].setdefault(member.kind, handler(inner)["anyOf"][0])
        of_other_names = {
            "kind": {"anyOf": REGULARIZERS.text_schemas([member.kind for member in REGULARIZERS.members()])}
        }
        terms["additionalProperties"] = {"type": "object", "properties": of_other_names, "required": ["kind"]}
        return terms


def _with_kind(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {"kind": name, **value}
    names_code = isinstance(value, RegularizerConfig) or (isinstance(value, str) and ":" in value)
    return value if names_code or REGULARIZERS.knows(name) else {"kind": name}


__all__ = [
    "OBSERVABLE",
    "REGULARIZERS",
    "BatchNormInput",
    "Observation",
    "Regularizer",
    "RegularizerConfig",
    "RegularizersConfig",
    "Statistics",
]
