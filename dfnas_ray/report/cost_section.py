"""The section of times: the time of each stage, and the machines that it ran on."""

from __future__ import annotations

from dataclasses import dataclass

from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.synthesis import Synthesis


@dataclass(frozen=True)
class CostRow:
    """One stage's time.

    Attributes:
        share: Its share of the time of all stages.
        detail: The amount of work, in a few words.
    """

    title: str
    seconds: float
    share: float
    finished_at: float | None
    detail: str


@dataclass(frozen=True)
class CostSection:
    """The values that the template shows of times.

    Attributes:
        rows: One row per finished stage.
        total: The time of all stages; time in which two of them ran side by side counts once.
        machines: Titles of stages with their machines.
    """

    rows: list[CostRow]
    total: float
    machines: list[tuple[str, str]]


def cost_section(artefacts: Artefacts) -> CostSection:
    """Return the section of times."""
    total = sum(record.seconds for _, record, _ in artefacts.finished)
    return CostSection(
        rows=[
            CostRow(
                stage.title,
                record.seconds,
                record.seconds / total if total else 0.0,
                record.finished_at,
                found.read(record.detail) or "",
            )
            for stage, record, found in artefacts.finished
        ],
        total=total_seconds(artefacts),
        machines=[
            (stage.title, ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in known.items()))
            for stage, record, _ in artefacts.finished
            if (known := {name: value for name, value in record.machine.items() if value is not None})
        ],
    )


def total_seconds(artefacts: Artefacts) -> float:
    """Return the time of all stages; time in which synthesis and search ran side by side counts once."""
    seconds = sum(record.seconds for _, record, _ in artefacts.finished)
    synthesis, search = artefacts[Synthesis].record, artefacts[Search].record
    return seconds - ((synthesis.seconds_beside_search or 0.0) if synthesis and search else 0.0)
