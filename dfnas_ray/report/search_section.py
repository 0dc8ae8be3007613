"""The sections of the search: its course, its trials, and the architecture found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from dfnas_ray.algorithms.selection import ComparedTrial, ComparedTrials, HistoryPoint, TrialSummary
from dfnas_ray.formatting import capitalised
from dfnas_ray.ops.mixed import SKIP_NAMES
from dfnas_ray.report import figures
from dfnas_ray.report.architecture import layers_of, macs_of, main_network, sibling
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.report.cells import draw_cell
from dfnas_ray.report.drawing import draw_architecture, draw_compact, operation_colour, operations_of
from dfnas_ray.search_spaces.base import Edge, Layer, SearchSpace
from dfnas_ray.storage.location import section
from dfnas_ray.workflow.evaluation import ROLES, Role
from dfnas_ray.workflow.retraining import Baseline, Retraining
from dfnas_ray.workflow.search import Search, SearchRecord

_MAX_TRIALS_DRAWN = 8
_MAX_DOTS = 6_000  # in the panel of scores against MACs

History: TypeAlias = Mapping[str, Sequence[HistoryPoint]]
"""The history of each trial, by its short name."""


@dataclass(frozen=True)
class TrialRow:
    """One line of the table of trials."""

    name: str
    genotype: str
    score: float | None
    macs: int
    params: int
    chosen: bool


@dataclass(frozen=True)
class SearchSection:
    """The values that the template shows of the search.

    Attributes:
        max_macs_setting: The limit as it stands in the experiment.
        scored: Number of candidates that got a score.
        is_compared: Whether finalists were trained alone.
        has_candidates: Whether scores are drawn against MACs.
    """

    record: SearchRecord
    max_macs_setting: object
    scored: int
    is_compared: bool
    trials: list[TrialRow]
    panels: figures.Panels
    has_candidates: bool
    trials_left_out: int


@dataclass(frozen=True)
class DrawnNetwork:
    """An architecture with its pictures; ``cells`` holds names of cells with their graphs."""

    genotype: str
    macs: int
    params: int
    svg: Markup
    cells: list[tuple[str, Markup]]


@dataclass(frozen=True)
class ArchitectureSection:
    """The values that the template shows of the architecture and of the random one beside it.

    Attributes:
        legend: Operations and their colours.
        costly_skip: An operation that skips a layer and yet has parameters.
    """

    title: str
    main: DrawnNetwork
    baseline: DrawnNetwork | None
    legend: list[tuple[str, str]]
    costly_skip: str | None


def search_section(artefacts: Artefacts, space: SearchSpace | None) -> SearchSection | None:
    """Return the section of the search, or None if it is not finished."""
    found = artefacts[Search]
    record = found.record
    if record is None:
        return None
    compared = found.read(ComparedTrials.read) or ()
    trials: Sequence[TrialSummary] = compared or record.trials
    names = _names(trials)
    histories: dict[str, Sequence[HistoryPoint]] = {names[trial.trial]: () for trial in trials}
    histories |= {names[trial.trial]: trial.history for trial in compared}
    drawn = dict(list(histories.items())[:_MAX_TRIALS_DRAWN])
    training, sampling = _phase(drawn, "training"), _phase(drawn, "sampling")
    panels: list[str] = []
    if any(training.values()):
        panels += figures.training_panels(training)
    panels += figures.sampling_panels(sampling, {names[trial.trial]: trial.algorithm for trial in trials})
    candidates = _candidates(compared, names, drawn, space)
    if candidates:
        chosen = _last_score(histories[names[record.trial]], record.genotype)
        panels.append(figures.macs_panel(candidates, record.max_macs, (record.macs, chosen)))
    scored = sum(len({text for point in points for text in point.genotypes or ()}) for points in histories.values())
    return SearchSection(
        record=record,
        max_macs_setting=section(found.inputs, "search").get("max_macs"),
        scored=scored,
        is_compared=any(trial.score is not None for trial in trials),
        trials=[
            TrialRow(
                names[trial.trial], trial.genotype, trial.score, trial.macs, trial.params, trial.trial == record.trial
            )
            for trial in trials
        ],
        panels=figures.Panels.of(panels, figures.keys_of(list(drawn))),
        has_candidates=bool(candidates),
        trials_left_out=max(0, len(histories) - _MAX_TRIALS_DRAWN),
    )


def architecture_section(artefacts: Artefacts, space: SearchSpace | None) -> ArchitectureSection | None:
    """Return the section of the architecture and the random one beside it, or None if it cannot be drawn."""
    main, baseline = main_network(artefacts), artefacts[Baseline].record
    layers = layers_of(space, main.genotype if main else None)
    if space is None or main is None or not layers:
        return None
    other = layers_of(space, baseline.genotype if baseline else None)
    cells = space.cells(space.decode(main.genotype))
    other_cells = space.cells(space.decode(baseline.genotype)) if baseline and other else {}
    operations = operations_of(layers, other)
    in_cells = [e.operation for graph in (*cells.values(), *other_cells.values()) for e in graph if e.operation]
    operations += [name for name in dict.fromkeys(in_cells) if name not in operations]

    def draw_cells(graphs: Mapping[str, Sequence[Edge]]) -> list[tuple[str, Markup]]:
        return [(name, Markup(draw_cell(name, edges, operations))) for name, edges in graphs.items()]

    whole, drawn_baseline = Markup(draw_architecture(layers, operations)), None
    if baseline and other:
        compact = Markup(draw_compact(other, operations))
        drawn_baseline = DrawnNetwork(
            baseline.genotype, baseline.macs, baseline.params, compact, draw_cells(other_cells)
        )
    return ArchitectureSection(
        title=capitalised(network_roles(artefacts)[Retraining.name].title),
        main=DrawnNetwork(main.genotype, main.macs, main.params, whole, draw_cells(cells)),
        baseline=drawn_baseline,
        legend=[(name, operation_colour(name, operations)) for name in operations],
        costly_skip=next((layer.operation for layer in (*layers, *other) if _is_costly_skip(layer)), None),
    )


def _is_costly_skip(layer: Layer) -> bool:
    """Return whether a layer that the search skipped has parameters, because its shape changes."""
    return layer.operation in SKIP_NAMES and layer.cost.params > 0


def network_roles(artefacts: Artefacts) -> dict[str, Role]:
    """Return the names of the networks by role; one that was given with --genotype is not called searched."""
    searched, retrained = artefacts[Search].record, artefacts[Retraining].record
    is_given = retrained is not None and searched is not None and retrained.genotype != searched.genotype
    return ROLES | ({Retraining.name: Role("given", "given")} if is_given else {})


def _phase(histories: History, phase: str) -> dict[str, list[HistoryPoint]]:
    """Return the history of the trials in one phase."""
    return {name: [point for point in points if point.phase == phase] for name, points in histories.items()}


def _last_score(points: Sequence[HistoryPoint], genotype: str) -> float | None:
    """Return the last score of a candidate in a trial, or None if it was none of its candidates."""
    scores = [dict(zip(point.genotypes or (), point.scores or (), strict=False)) for point in points]
    return next((found[genotype] for found in reversed(scores) if genotype in found), None)


def _names(trials: Sequence[TrialSummary]) -> dict[str, str]:
    """Return short names of the trials: only their seeds if they differ in nothing else."""
    pairs = {(trial.algorithm, trial.space) for trial in trials}
    alone = len({trial.trial.rpartition("-seed-")[0] for trial in trials}) == 1 and len(pairs) == 1
    return {trial.trial: f"seed {trial.seed}" if alone else trial.trial for trial in trials}


def _candidates(
    trials: Sequence[ComparedTrial], names: Mapping[str, str], drawn: History, space: SearchSpace | None
) -> dict[str, list[tuple[int, float]]]:
    """Return (MACs, score) of the scored candidates by trial; empty if several algorithms make scores incomparable.

    If a candidate was scored several times, its last score counts.
    """
    if space is None or len({trial.algorithm for trial in trials}) > 1:
        return {}
    found: dict[str, list[tuple[int, float]]] = {}
    num_dots = 0
    for trial in trials:
        name = names[trial.trial]
        own = sibling(space, trial.space_config) if name in drawn else None
        scores: dict[str, float] = {}
        for point in drawn.get(name, ()):
            scores.update(zip(point.genotypes or (), point.scores or (), strict=False))
        macs = {text: macs_of(own, text) for text in scores} if own is not None else {}
        pairs = [(m, scores[text]) for text, m in macs.items() if m is not None]
        if drawn_pairs := pairs[: _MAX_DOTS - num_dots]:
            found[name] = drawn_pairs
            num_dots += len(drawn_pairs)
    return found
