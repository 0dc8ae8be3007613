"""What the page shows of the search: its course, its trials, and the architecture found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dfnas_ray.report import figures
from dfnas_ray.report.architecture import layers_of, macs_of, sibling
from dfnas_ray.report.artefacts import Artefacts
from dfnas_ray.report.cells import draw_cell
from dfnas_ray.report.drawing import draw_architecture, draw_compact, operation_colour, operations_of
from dfnas_ray.report.results import TITLES

if TYPE_CHECKING:
    from dfnas_ray.search_spaces.base import Layer, SearchSpace

_MAX_TRIALS_DRAWN = 8
_MAX_DOTS = 6_000  # of the panel of scores against MACs

History = dict[str, list[dict[str, Any]]]


def search_section(artefacts: Artefacts, space: SearchSpace | None) -> dict[str, Any] | None:
    """Return what the template needs of the search, or None if it is not finished."""
    stage = artefacts["search"]
    if not stage.finished:
        return None
    trials = stage.file("trials.json") or stage.get("trials", [])
    names = _names(trials)
    histories: History = {names[trial["trial"]]: trial.get("history", []) for trial in trials}
    drawn = dict(list(histories.items())[:_MAX_TRIALS_DRAWN])
    training = {name: [e for e in h if e.get("phase") == "training"] for name, h in drawn.items()}
    sampling = {name: [e for e in h if e.get("phase") == "sampling"] for name, h in drawn.items()}
    panels: list[str] = []
    if any(training.values()):
        panels += figures.training_panels(training)
    panels += figures.sampling_panels(sampling)
    candidates = _candidates(trials, names, drawn, space)
    if candidates:
        best: dict[str, Any] = next((t for t in trials if t["trial"] == stage.get("trial")), {})
        panels.append(figures.macs_panel(candidates, stage.get("max_macs"), (stage.get("macs"), best.get("own_score"))))
    scored = sum(
        len({text for entry in history for text in entry.get("genotypes", [])}) for history in histories.values()
    )
    return {
        "space": stage.get("space"),
        "genotype": stage.get("genotype"),
        "seed": stage.get("seed"),
        "max_macs": stage.get("max_macs"),
        "max_macs_setting": ((stage.inputs or {}).get("search") or {}).get("max_macs"),
        "algorithm": stage.get("algorithm"),
        "scored": scored,
        "is_compared": any("score" in trial for trial in trials),
        "trials": [
            {
                "name": names[trial["trial"]],
                "genotype": str(trial["genotype"]),
                "score": trial.get("score"),
                "macs": trial.get("macs"),
                "params": trial.get("params"),
                "chosen": trial["trial"] == stage.get("trial"),
            }
            for trial in trials
        ],
        "panels": panels_for_page(figures.Panels(panels, figures.keys_of(list(drawn)))),
        "has_candidates": bool(candidates),
        "trials_left_out": max(0, len(histories) - _MAX_TRIALS_DRAWN),
    }


def architecture_section(artefacts: Artefacts, space: SearchSpace | None, title: str) -> dict[str, Any] | None:
    """Return what the template needs of the architecture and its random neighbour, or None if it cannot be drawn."""
    main = artefacts["retraining"] if artefacts["retraining"].finished else artefacts["search"]
    layers = layers_of(space, main.get("genotype"))
    if space is None or not layers:
        return None
    baseline = artefacts["baseline"]
    other = layers_of(space, baseline.get("genotype"))
    cells = space.cells(space.decode(main.get("genotype")))
    other_cells = space.cells(space.decode(baseline.get("genotype"))) if other else {}
    operations = operations_of(layers, other)
    in_cells = [e.operation for graph in (*cells.values(), *other_cells.values()) for e in graph if e.operation]
    operations += [name for name in dict.fromkeys(in_cells) if name not in operations]
    return {
        "title": title,
        "genotype": str(main.get("genotype")),
        "macs": main.get("macs"),
        "params": main.get("params"),
        "svg": Markup(draw_architecture(layers, operations)),
        "cells": [(name, Markup(draw_cell(name, edges, operations))) for name, edges in cells.items()],
        "legend": [(name, operation_colour(name, operations)) for name in operations],
        "costly_skip": next((layer.operation for layer in (*layers, *other) if _is_costly_skip(layer)), None),
        "baseline": {
            "genotype": str(baseline.get("genotype")),
            "macs": baseline.get("macs"),
            "params": baseline.get("params"),
            "svg": Markup(draw_compact(other, operations)),
            "cells": [(name, Markup(draw_cell(name, edges, operations))) for name, edges in other_cells.items()],
        }
        if other
        else None,
    }


def _is_costly_skip(layer: Layer) -> bool:
    """Return whether a layer that the search skipped has parameters, because its shape changes."""
    from dfnas_ray.search_spaces.base import SKIP_NAMES

    return layer.operation in SKIP_NAMES and layer.cost.params > 0


def network_titles(artefacts: Artefacts) -> dict[str, str]:
    """Return the networks' titles; one that was given with --genotype was not searched."""
    searched, retrained = artefacts["search"].get("genotype"), artefacts["retraining"].get("genotype")
    given = retrained is not None and searched is not None and retrained != searched
    return {**TITLES, **({"retraining": "Given"} if given else {})}


def panels_for_page(panels: figures.Panels) -> dict[str, Any]:
    """Return panels and legend as the template takes them."""
    return {"svgs": [Markup(svg) for svg in panels.svgs], "keys": panels.keys}


def _names(trials: list[dict[str, Any]]) -> dict[str, str]:
    """Return short names of the trials: without what all of them share."""
    pairs = {(trial["algorithm"], trial["space"]) for trial in trials}
    alone = len({trial["trial"].rpartition("-seed-")[0] for trial in trials}) == 1 and len(pairs) == 1
    return {trial["trial"]: f"seed {trial['seed']}" if alone else trial["trial"] for trial in trials}


def _candidates(
    trials: list[dict[str, Any]], names: dict[str, str], drawn: History, space: SearchSpace | None
) -> dict[str, list[tuple[int, float]]]:
    """Return (MACs, score) of the scored candidates by trial, if all trials searched in one way and scores compare.

    Of a candidate that was scored several times, the last score counts.
    """
    if space is None or len({trial["algorithm"] for trial in trials}) > 1:
        return {}
    found: dict[str, list[tuple[int, float]]] = {}
    num_dots = 0
    for trial in trials:
        name = names[trial["trial"]]
        own = sibling(space, trial["space_config"]) if name in drawn else None
        scores: dict[str, float] = {}
        for entry in drawn.get(name, []):
            scores.update(zip(entry.get("genotypes", []), entry.get("scores", []), strict=False))
        macs = {text: macs_of(own, text) for text in scores} if own is not None else {}
        pairs = [(int(m), scores[text]) for text, m in macs.items() if m is not None]
        if drawn_pairs := pairs[: _MAX_DOTS - num_dots]:
            found[name] = drawn_pairs
            num_dots += len(drawn_pairs)
    return found
