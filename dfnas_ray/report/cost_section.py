"""What the page shows of time: each stage's, and the machines that it was spent on."""

from __future__ import annotations

from dataclasses import dataclass

from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.synthesis import Synthesis


@dataclass(frozen=True)
class CostRow:
    """One stage's time.

    Attributes:
        share: Of the time of all.
        detail: How much work it was.
    """

    title: str
    seconds: float
    share: float
    finished_at: float | None
    detail: str


@dataclass(frozen=True)
class CostSection:
    """What the template needs of time.

    Attributes:
        total: Of all, what two stages share counted once.
        machines: By a stage's title.
    """

    rows: list[CostRow]
    total: float
    machines: list[tuple[str, str]]


def cost_section(artefacts: Artefacts) -> CostSection:
    """Return what the template needs of time."""
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
    """Return how long everything took; while synthesis and search went on side by side, both count the time."""
    seconds = sum(record.seconds for _, record, _ in artefacts.finished)
    synthesis, search = artefacts[Synthesis].record, artefacts[Search].record
    return seconds - ((synthesis.seconds_beside_search or 0.0) if synthesis and search else 0.0)
