"""Render the page of a sweep: its trials, which coefficients matter, and images of the best settings.

It reads only the folder of the sweep, so it can be rendered again anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from optuna import Study
from pydantic import ValidationError

from dfnas_ray import formatting
from dfnas_ray.errors import ShardError, StorageError
from dfnas_ray.report.samples import Strip, make_strip
from dfnas_ray.report.sweep_figures import sweep_figures
from dfnas_ray.report.templates import source, template
from dfnas_ray.storage.bounded import read_columns
from dfnas_ray.storage.location import Location, section
from dfnas_ray.storage.pictures import PictureError
from dfnas_ray.storage.run_dir import RecordedInputs
from dfnas_ray.storage.shards import shard_name
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.objectives import OBJECTIVES
from dfnas_ray.sweeps.record import trial_folder
from dfnas_ray.sweeps.result import TriedSettings, read_trials
from dfnas_ray.sweeps.study import PREFIX, study_from
from dfnas_ray.workflow.sweep import SweptRecord

_IMAGES = 20


def write_sweep_report(folder: Location, name: str) -> Location:
    """Write ``sweep.html`` into a finished sweep's folder."""
    page = folder / "sweep.html"
    page.write_bytes(render_sweep(folder, name).encode())
    return page


def render_sweep(folder: Location, name: str) -> str:
    """Return the page as self-contained HTML.

    Raises:
        StorageError: a file of the sweep is missing, of another version, or was altered.
    """
    config, trials = _config(folder), read_trials(folder)
    record = (folder / "done.json").read_model(SweptRecord)
    finished = _by_merit(trials, record, config)
    return template("sweep.html.j2").render(
        name=name,
        config=config,
        summary=record,
        paths={path: path.removeprefix(PREFIX) for path in config.settings},
        objectives=[(objective, OBJECTIVES.find(objective)) for objective in config.objectives],
        trials=finished,
        others=[trial for trial in trials if trial.values is None],
        figures=sweep_figures(_study(folder, trials, config), config),
        grids=_grids(folder, finished),
        text=_text,
        how=partial(_how_it_ended, config),
        style=source("style.css"),
    )


def _config(folder: Location) -> SweepConfig:
    """Return the recorded settings of a sweep."""
    inputs = RecordedInputs.read(folder)
    try:
        return SweepConfig.model_validate(section(inputs, "sweep"))
    except ValidationError as error:
        raise StorageError(f"{folder / 'inputs.json'} holds no sweep that this version knows: {error}") from error


def _study(folder: Location, trials: Sequence[TriedSettings], config: SweepConfig) -> Study:
    try:
        return study_from(trials, config)
    except ValueError as error:
        raise StorageError(f"{folder / 'trials.json'} does not fit its sweep: {error}") from error


def _by_merit(trials: Sequence[TriedSettings], record: SweptRecord, config: SweepConfig) -> list[TriedSettings]:
    """Return the finished trials, the Pareto front first, then by the first objective."""
    front = record.pareto_front
    sign = -1 if config.directions[0] == "maximize" else 1

    def merit(trial: TriedSettings) -> tuple[int, float]:
        assert trial.values is not None, "the trial is finished"
        return front.index(trial.number) if trial.number in front else len(front), sign * trial.values[0]

    return sorted((trial for trial in trials if trial.values is not None), key=merit)


def _grids(folder: Location, finished: Sequence[TriedSettings]) -> list[tuple[str, TriedSettings, Strip]]:
    """Return images of the best, the median and the worst trial."""
    places = {"Best": 0, "Median": len(finished) // 2, "Worst": len(finished) - 1}
    chosen: dict[int, str] = {}
    for title, place in places.items():
        chosen.setdefault(place, title)
    grids = []
    for place, title in chosen.items():
        trial = finished[place]
        pngs = _last_round(trial_folder(folder, trial.number) / shard_name(0))
        if pngs:
            try:
                grids.append((title, trial, make_strip(pngs, f"Images of trial {trial.number}")))
            except PictureError as error:
                raise ShardError(
                    f"Shard 0 of trial {trial.number} holds an image that cannot be shown: {error}"
                ) from error
    return grids


def _last_round(shard: Location) -> list[bytes]:
    """Return a few PNGs of a shard's last round, evenly spread over it; none if the shard was removed."""
    if not shard.exists():
        return []
    try:
        data = shard.read_bytes()
        file = pq.ParquetFile(pa.BufferReader(data))
        table = pa.Table.from_batches(read_columns(file, ["image", "round"], len(data)))
    except (OSError, ValueError) as error:
        raise ShardError(f"Shard {shard} cannot be read: {error}") from error
    last = table.filter(pc.equal(table["round"], pc.max(table["round"])))
    rows = np.linspace(0, len(last) - 1, min(_IMAGES, len(last))).round().astype(int)
    return [last["image"][int(row)].as_py()["bytes"] for row in rows]


def _how_it_ended(config: SweepConfig, trial: TriedSettings) -> str:
    """Return a few words on why a trial has no figure."""
    if trial.error:
        return f"{trial.state}: {trial.error}"
    objective = config.objectives[0]
    rounds, shown = trial.figures.get("rounds"), trial.figures.get(objective)
    if trial.state != "pruned" or rounds is None or shown is None:
        return trial.state
    return f"pruned after {formatting.plural(int(rounds), 'round')} with {objective} {formatting.number(shown)}"


def _text(value: object) -> str:
    return formatting.number(value) if isinstance(value, float) else str(value)
