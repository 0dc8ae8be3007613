"""The section of a comparison: the differences between its variants, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dfnas_ray.comparison.result import TITLES, ComparedRow, ComparisonResult
from dfnas_ray.formatting import capitalised
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.report.comparison_page import interval, number, panels, signed, titled
from dfnas_ray.workflow.comparison import VariantComparison


@dataclass(frozen=True)
class VariantLine:
    """One row of a table, as text."""

    algorithm: str
    variant: str
    value: str
    interval: str
    difference: str
    interval_of_difference: str
    verdict: str

    @classmethod
    def of(cls, row: ComparedRow) -> VariantLine:
        """Return a row with all values as text."""
        figure, difference = row.figure, row.difference
        return cls(
            row.algorithm,
            titled(row),
            number(row.value.mean, figure),
            interval(row.value, figure),
            signed(difference, figure),
            interval(difference, figure),
            row.verdict,
        )


@dataclass(frozen=True)
class VariantTable:
    """All rows of one figure, such as the accuracy, and their picture."""

    title: str
    rows: Sequence[VariantLine]
    svg: Markup


@dataclass(frozen=True)
class ComparisonSection:
    """The values that the template shows of the comparison.

    Attributes:
        result: The figures of the comparison.
        tables: One table per figure.
        settings: The settings that differ, by variant, in the order of the rows.
        uses_real: Whether some variant is not data-free.
    """

    result: ComparisonResult
    tables: Sequence[VariantTable]
    settings: dict[str, dict[str, object]]
    uses_real: bool


def comparison_section(artefacts: Artefacts) -> ComparisonSection | None:
    """Return the section of the comparison, or None if it is not finished."""
    result = artefacts[VariantComparison].read(ComparisonResult.read)
    if result is None:
        return None
    figures = dict.fromkeys(row.figure for row in result.rows)
    tables = [
        VariantTable(
            capitalised(TITLES[figure]),
            [VariantLine.of(row) for row in result.rows if row.figure == figure],
            Markup(svg),
        )
        for figure, (_, svg) in zip(figures, panels(result), strict=True)
    ]
    settings = {row.variant: result.variants[row.variant] for row in result.rows}
    return ComparisonSection(result, tables, settings, any(not row.data_free for row in result.rows))
