"""The page: what the run directory holds, put into the template."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dfnas_ray.report import figures, formatting
from dfnas_ray.report.architecture import rebuild_space
from dfnas_ray.report.artefacts import STAGES, Artefacts, read_artefacts
from dfnas_ray.report.benchmark_section import benchmark_section
from dfnas_ray.report.results import Comparison, compare, verdict
from dfnas_ray.report.samples import Samples, read_curves, read_samples
from dfnas_ray.report.search_section import (
    architecture_section,
    network_titles,
    panels_for_page,
    search_section,
)
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.version import __version__

_STAGE_TITLES = {
    "synthesis": "Synthesis",
    "search": "Search",
    "retraining": "Retraining",
    "baseline": "Random baseline",
    "evaluation": "Evaluation",
    "benchmark": "Benchmark",
}
_SHORT_TITLES = {"teacher": "teacher", "baseline": "random network"}

QUALITY_MEASURES = (
    ("confidence", "Confidence", "percent", "Semantics: mean of the teacher's highest probability. Higher is better."),
    (
        "entropy",
        "Entropy",
        "number",
        "Semantics: mean entropy of the teacher's probabilities, in nats. Lower is surer.",
    ),
    (
        "agreement",
        "Agreement",
        "percent",
        "Semantics: images that the teacher puts into the class asked for in round 0. Higher is better; "
        "later rounds ask for soft labels and may drift.",
    ),
    (
        "diversity_distance",
        "Distance",
        "number",
        "Diversity: mean cosine distance of the teacher's features within a class. Higher is better.",
    ),
    (
        "diversity_duplicates",
        "Duplicates",
        "percent",
        "Diversity: images with a neighbour of cosine similarity above 0.999 in their class. Lower is better.",
    ),
    (
        "domain_gap",
        "Domain gap",
        "number",
        "Distance of the images' BatchNorm statistics from the teacher's running statistics. Lower is better.",
    ),
)


def write_report(run_dir: RunDir) -> Location:
    """Write ``report.html``, one file that needs nothing else, from what the run directory holds, and return its place.

    Raises:
        StorageError: no stage is finished yet, or the directory cannot be read or written.
    """
    artefacts = read_artefacts(run_dir)
    target = run_dir.location / "report.html"
    target.write_bytes(render(artefacts).encode())
    return target


def render(artefacts: Artefacts) -> str:
    """Return the page."""
    folder = resources.files("dfnas_ray.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        {
            name: getattr(formatting, name)
            for name in ("count", "quantity", "number", "percent", "fixed", "duration", "size", "moment", "brief")
        }
    )
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    style = (folder / "style.css").read_text(encoding="utf-8")
    return template.render(style=Markup(style), **_context(artefacts))


def _context(artefacts: Artefacts) -> dict[str, Any]:
    synthesis, samples = _synthesis(artefacts)
    space = rebuild_space(artefacts, samples.image_shape if samples else None, samples.num_classes if samples else 0)
    comparison = _comparison(artefacts)
    return {
        "name": str(artefacts.setting("name") or artefacts.run_dir.location.name),
        "teacher": _teacher(artefacts, samples, comparison),
        "version": __version__,
        "tiles": [_accuracy_tiles(comparison), _other_tiles(artefacts, comparison)],
        "missing": _missing(artefacts),
        "changed": [_STAGE_TITLES[s.name] for s in artefacts.stages.values() if s.finished and s.changed],
        "comparison": comparison,
        "verdict": verdict(comparison) if comparison else "",
        "synthesis": synthesis,
        "search": search_section(artefacts, space),
        "architecture": architecture_section(artefacts, space, network_titles(artefacts)["retraining"]),
        "retraining": _retraining(artefacts),
        "benchmark": benchmark_section(artefacts),
        "cost": _cost(artefacts),
        "config_text": artefacts.config_text,
        "keys": _keys(artefacts),
        "commands": _commands(artefacts),
    }


def _comparison(artefacts: Artefacts) -> Comparison | None:
    evaluation = artefacts["evaluation"]
    if not evaluation.finished or not evaluation.get("networks") or not evaluation.get("images"):
        return None
    return compare(evaluation.summary or {}, network_titles(artefacts)["retraining"])


def _teacher(artefacts: Artefacts, samples: Samples | None, comparison: Comparison | None) -> dict[str, Any]:
    recorded = artefacts["synthesis"].get("teacher") or {}
    row = comparison.row("teacher") if comparison else None
    spec = artefacts.setting("teacher") or {}
    name = recorded.get("name") or (row.architecture if row else None)
    if name is None:
        name = spec.get("name") or spec.get("kind") if isinstance(spec, dict) else spec
    return {
        "name": str(name or "teacher"),
        "num_classes": recorded.get("num_classes") or (samples.num_classes if samples else None),
        "image_shape": recorded.get("image_shape"),
        "dataset": comparison.dataset if comparison else None,
    }


def _accuracy_tiles(comparison: Comparison | None) -> list[dict[str, str]]:
    tiles = []
    for row in comparison.rows if comparison else []:
        interval = f"real images; 95 %: {100 * row.low:.1f} – {100 * row.high:.1f}"
        tiles.append(
            {
                "label": f"Accuracy, {_SHORT_TITLES.get(row.role, row.title)}"
                if row.role != "retraining"
                else f"Accuracy, {row.title.lower()}",
                "value": formatting.percent(row.accuracy),
                "note": interval,
                "role": row.role,
            }
        )
    return sorted(tiles, key=lambda tile: tile["role"] != "retraining")  # the searched network first


def _other_tiles(artefacts: Artefacts, comparison: Comparison | None) -> list[dict[str, str]]:
    tiles = []
    found = comparison.row("retraining") if comparison else None
    network = artefacts["retraining"] if artefacts["retraining"].finished else artefacts["search"]
    macs = found.macs if found else network.get("macs")
    params = found.params if found else network.get("params")
    recorded = artefacts["synthesis"].get("teacher") or {}
    for label, value, relative in (
        ("MACs", macs, found.relative_macs if found else _ratio(macs, recorded.get("macs"))),
        ("Parameters", params, found.relative_params if found else _ratio(params, recorded.get("params"))),
    ):
        if value is not None:
            of_teacher = "of the teacher's" if relative is not None else "of the network found"
            shown = formatting.percent(relative, 0) if relative is not None else formatting.quantity(value)
            tiles.append({"label": label, "value": shown, "note": _note(of_teacher, value, relative), "role": ""})
    benchmark = artefacts["benchmark"]
    if benchmark.finished:
        tiles.append(
            {
                "label": "Kendall's tau",
                "value": f"{benchmark.get('tau'):.3f}",
                "note": f"best without data: {benchmark.get('best')}",
                "role": "",
            }
        )
    images = artefacts["synthesis"].get("images")
    if images is not None:
        shards = formatting.plural(artefacts["synthesis"].get("shards", 0), "shard")
        tiles.append(
            {"label": "Synthetic images", "value": formatting.count(images), "note": f"in {shards}", "role": ""}
        )
    seconds = [stage.get("seconds") for stage in artefacts.stages.values() if stage.get("seconds") is not None]
    if seconds:
        stages = formatting.plural(len(seconds), "stage")
        twice = _seconds_twice(artefacts)
        tiles.append(
            {"label": "Wall time", "value": formatting.duration(sum(seconds) - twice), "note": f"{stages}", "role": ""}
        )
    return tiles


def _note(text: str, value: float, relative: float | None) -> str:
    return f"{text} ({formatting.quantity(value)})" if relative is not None else text


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _missing(artefacts: Artefacts) -> list[dict[str, str]]:
    if artefacts["benchmark"].finished and artefacts["search"].status == "missing":
        return []  # rankings were all that was asked for
    why = {"missing": "not finished yet", "outdated": "outdated: made from what a later command replaced"}
    missing = [
        {"title": _STAGE_TITLES[stage.name], "why": why[stage.status]}
        for stage in artefacts.stages.values()
        if stage.status in why
    ]
    if artefacts["evaluation"].status == "off":
        missing.append({"title": _STAGE_TITLES["evaluation"], "why": "the experiment names no real images"})
    return missing


def _commands(artefacts: Artefacts) -> dict[str, str]:
    """Return the command lines that go on, that add the evaluation, and that do everything again elsewhere."""
    place = str(artefacts.run_dir.location)
    file = shlex.quote(f"{place}/experiment.yaml")
    same = f"{file} --run-dir {shlex.quote(place)}"
    return {
        "continue": f"dfnas run {same}",
        "evaluate": f"dfnas evaluate {same} --set 'evaluation.dataset={{kind: image_folder, path: PATH}}'",
        "reproduce": f"dfnas run {file} --run-dir {shlex.quote(f'{place}-again')}",
    }


def _synthesis(artefacts: Artefacts) -> tuple[dict[str, Any] | None, Samples | None]:
    stage = artefacts["synthesis"]
    manifest = stage.file("manifest.json")
    if stage.location is None or manifest is None:
        return None, None
    names = (stage.get("teacher") or {}).get("class_names")
    facts = read_curves(stage.location, manifest)
    samples = read_samples(stage.location, manifest, names, facts.problems)
    settings = (stage.inputs or {}).get("synthesis", {})
    steps = [entry.get("steps", 0) for entry in settings.get("stages", [])]
    quality = stage.file("quality.json") or {}
    rounds = sorted(quality.get("rounds", {}).items(), key=lambda item: int(item[0]))
    rows = [(f"round {name}", values) for name, values in rounds]
    if quality.get("overall") and len(rows) != 1:
        rows.append(("all", quality["overall"]))
    panels = figures.synthesis_panels(facts.curves, steps)
    return {
        "samples": samples,
        "measures": [m for m in QUALITY_MEASURES if any(m[0] in values for _, values in rows)],
        "quality": rows,
        "panels": panels_for_page(panels),
        "boundaries": list(_cumulative(steps))[:-1],
        "shards_averaged": facts.shards_averaged,
        "num_shards": len(manifest["shards"]),
        "problems": facts.problems,
    }, samples


def _cumulative(steps: Sequence[int]) -> list[int]:
    return [sum(steps[: index + 1]) for index in range(len(steps))]


def _retraining(artefacts: Artefacts) -> dict[str, Any] | None:
    titles = network_titles(artefacts)
    histories = {titles[name]: artefacts[name].file("history.json") or [] for name in ("retraining", "baseline")}
    histories = {name: history for name, history in histories.items() if history}
    if not histories:
        return None
    rows = [
        {"title": name, "epochs": len(history), **{key: history[-1].get(key) for key in _FINAL}}
        for name, history in histories.items()
    ]
    return {"panels": panels_for_page(figures.retraining_panels(histories)), "rows": rows}


_FINAL = ("loss", "validation_loss", "validation_agreement")


def _cost(artefacts: Artefacts) -> dict[str, Any]:
    rows = []
    timed = {name: stage.get("seconds") for name, stage in artefacts.stages.items() if stage.get("seconds") is not None}
    total = sum(timed.values())
    for name, seconds in timed.items():
        rows.append(
            {
                "title": _STAGE_TITLES[name],
                "seconds": seconds,
                "share": seconds / total if total else 0.0,
                "finished_at": artefacts[name].get("finished_at"),
                "detail": _detail(artefacts, name),
            }
        )
    machines = [(_STAGE_TITLES[name], stage.get("machine")) for name, stage in artefacts.stages.items()]
    return {
        "rows": rows,
        "total": total - _seconds_twice(artefacts),
        "machines": [(title, _machine(facts)) for title, facts in machines if isinstance(facts, dict)],
    }


def _seconds_twice(artefacts: Artefacts) -> float:
    """Return how long synthesis and search went on side by side: both count it."""
    both = artefacts["synthesis"].finished and artefacts["search"].finished
    return artefacts["synthesis"].get("seconds_beside_search", 0.0) if both else 0.0


def _detail(artefacts: Artefacts, name: str) -> str:
    stage = artefacts[name]
    parts = []
    if name == "synthesis":
        shards, made_now = stage.get("shards"), stage.get("made_now")
        if shards is not None:
            parts.append(f"{formatting.plural(shards, 'shard')}, {formatting.size(stage.get('bytes'))}")
        if stage.get("actors"):
            parts.append(formatting.plural(stage.get("actors"), "actor"))
        if made_now is not None and shards is not None and made_now < shards:
            parts.append(f"the time of the last {formatting.plural(made_now, 'shard')}; the others were there already")
        elif stage.get("images") and stage.get("seconds"):
            parts.append(f"{formatting.number(stage.get('images') / stage.get('seconds'))} images/s")
        if stage.get("seconds_beside_search"):
            parts.append(f"{formatting.duration(stage.get('seconds_beside_search'))} of it beside the search")
    elif name == "search":
        trials = stage.get("trials") or []
        parts.append(f"{formatting.plural(len(trials), 'trial')}")
    elif name in ("retraining", "baseline"):
        epochs = len(stage.file("history.json") or [])
        parts.append(formatting.plural(epochs, "epoch") if epochs else "")
    elif name == "evaluation":
        parts.append(formatting.plural(stage.get("images", 0), "real image"))
    elif name == "benchmark":
        parts.append(formatting.plural(stage.get("architectures", 0), "architecture"))
        parts.append(formatting.plural(stage.get("rankings", 0), "ranking"))
    return ", ".join(part for part in parts if part)


def _machine(facts: dict[str, Any]) -> str:
    return ", ".join(f"{str(name).replace('_', ' ')} {value}" for name, value in facts.items() if value is not None)


def _keys(artefacts: Artefacts) -> list[tuple[str, str]]:
    keys = [
        (_STAGE_TITLES[name], f"{name}/{stage.location.name}")
        for name in STAGES
        if (stage := artefacts[name]).finished and stage.location is not None
    ]
    for name in ("synthesis", "evaluation"):
        teacher = (artefacts[name].inputs or {}).get("teacher")
        if artefacts[name].finished and teacher:
            return [("Teacher, sha256", str(teacher)), *keys]
    return keys
