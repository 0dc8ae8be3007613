"""The page of a sweep: what was tried, which coefficients matter, and what the best settings' images look like.

It reads only the sweep's folder, so it can be written again anywhere.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined
from matplotlib import pyplot as plt
from optuna.trial import TrialState

from dfnas_ray.errors import ShardError
from dfnas_ray.report import formatting
from dfnas_ray.report.samples import Strip, make_strip
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import shard_name
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.sweeps.study import PREFIX, study_from

_IMAGES = 20
_ENOUGH_FOR_IMPORTANCE = 4


def write_sweep_report(folder: Location, name: str) -> Location:
    """Write ``sweep.html`` into a finished sweep's folder."""
    page = folder / "sweep.html"
    page.write_bytes(render_sweep(folder, name).encode())
    return page


def render_sweep(folder: Location, name: str) -> str:
    """Return the page as HTML that needs no other file."""
    config = SweepConfig.model_validate((folder / "inputs.json").read_json()["sweep"])
    summary = (folder / "done.json").read_json()
    trials = (folder / "trials.json").read_json()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=formatting.number, count=formatting.count)
    finished = _by_merit(trials, summary, config)
    return environment.from_string(_source("sweep.html.j2")).render(
        name=name,
        config=config,
        summary=summary,
        paths=[path.removeprefix(PREFIX) for path in config.settings],
        objectives=[(objective, OBJECTIVES[objective]) for objective in config.objectives],
        trials=finished,
        others=[trial for trial in trials if trial["values"] is None],
        figures=_figures(study_from(trials, config), config),
        grids=_grids(folder, finished),
        text=_text,
        style=_source("style.css"),
    )


def _source(name: str) -> str:
    return (files("dfnas_ray.report") / name).read_text(encoding="utf-8")


def _by_merit(
    trials: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], config: SweepConfig
) -> list[Mapping[str, Any]]:
    """Return the finished trials, the Pareto front first, then by the first objective."""
    front = summary["pareto_front"]
    sign = -1 if config.directions[0] == "maximize" else 1
    finished = [trial for trial in trials if trial["values"] is not None]
    return sorted(
        finished,
        key=lambda trial: (
            front.index(trial["number"]) if trial["number"] in front else len(front),
            sign * trial["values"][0],
        ),
    )


def _grids(folder: Location, finished: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], Strip]]:
    """Return images of the best, the median and the worst trial."""
    places = {"Best": 0, "Median": len(finished) // 2, "Worst": len(finished) - 1}
    chosen: dict[int, str] = {}
    for title, place in places.items():
        chosen.setdefault(place, title)
    grids = []
    for place, title in chosen.items():
        trial = finished[place]
        pngs = _last_round(folder / f"trial-{trial['number']:05d}" / shard_name(0))
        if pngs:
            grids.append((title, trial, make_strip(pngs, f"Images of trial {trial['number']}")))
    return grids


def _last_round(shard: Location) -> list[bytes]:
    """Return a few PNGs of a shard's last round, evenly spread over it; none if the shard was removed."""
    if not shard.exists():
        return []
    try:
        with shard.filesystem.open_input_file(shard.path) as source:
            table = pq.read_table(source, columns=["image", "round"])
    except (OSError, ValueError) as error:
        raise ShardError(f"Shard {shard} cannot be read: {error}") from error
    last = table.filter(pc.equal(table["round"], pc.max(table["round"])))
    rows = np.linspace(0, len(last) - 1, min(_IMAGES, len(last))).round().astype(int)
    return [last["image"][int(row)].as_py()["bytes"] for row in rows]


def _figures(study: optuna.Study, config: SweepConfig) -> list[tuple[str, str, str]]:
    """Return title, explanation and data URI of every figure that so many trials allow."""
    from optuna.visualization import matplotlib as plots

    drawings: list[tuple[str, str, Callable[[], Any]]] = []
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    for index, objective in enumerate(config.objectives):
        target = partial(_value, index) if len(config.objectives) > 1 else None
        shown: Any = {"target": target, "target_name": objective}
        drawings += [
            (
                f"History of {objective}",
                "Each point is a trial, in the order in which they were proposed.",
                partial(plots.plot_optimization_history, study, **shown),
            ),
            (
                f"{objective} along each coefficient",
                "Darker points came later.",
                partial(plots.plot_slice, study, **shown),
            ),
            (
                f"{objective}: parallel coordinates",
                "One line per trial, from its settings to its figure.",
                partial(plots.plot_parallel_coordinate, study, **shown),
            ),
        ]
        if len(complete) >= _ENOUGH_FOR_IMPORTANCE and len({trial.values[index] for trial in complete}) > 1:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            drawings.append(
                (
                    f"What decides {objective}",
                    "Share of the variance that each coefficient explains (fANOVA).",
                    partial(plots.plot_param_importances, study, **{**shown, "evaluator": evaluator}),
                )
            )
    if len(config.objectives) in (2, 3):
        note = "No trial beats those in red in every objective."
        drawings.append(("Pareto front", note, partial(plots.plot_pareto_front, study)))
    figures = []
    with mpl.rc_context({"font.size": 9, "figure.figsize": (8, 4.2)}), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for title, note, draw in drawings:
            draw()
            figures.append((title, note, _png()))
    return figures


def _value(index: int, trial: optuna.trial.FrozenTrial) -> float:
    value: float = trial.values[index]
    return value


def _png() -> str:
    buffer = BytesIO()
    figure = plt.gcf()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close("all")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _text(value: object) -> str:
    return formatting.number(value) if isinstance(value, float) else str(value)
