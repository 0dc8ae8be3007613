"""Write the text of a commented experiment file for a teacher and a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfnas_ray import formatting
from dfnas_ray.config.registry import SettingValues
from dfnas_ray.config.yaml_text import write_yaml
from dfnas_ray.planning.budget import Fitted
from dfnas_ray.planning.estimate import ExperimentPlan, rounded
from dfnas_ray.teachers.base import Teacher

_ORDER = ("name", "run_dir", "seed", "teacher", "synthesis", "search", "retraining", "evaluation", "cluster")


def draft(fitted: Fitted, teacher: Teacher, file: str, minutes: float) -> str:
    """Return the text of an experiment file.

    Args:
        fitted: The experiment.
        teacher: Its teacher.
        file: The path of the file, as a command line names it.
        minutes: The time that was given.
    """
    plan, values = fitted.plan, _written(fitted.values)
    notes = _notes(values, teacher, plan)
    lines = [
        f"# dfnas run {file}",
        "#",
        f"# About {rounded(plan.seconds)} on {plan.where}; {minutes:g} min were given. `dfnas plan {file}` shows the stages.",
    ]
    for name in _ORDER:
        if name in values:
            lines += ["", *(f"# {note}" for note in notes.get(name, ()))] if name in notes else []
            lines.append(write_yaml({name: values[name]}, is_compact=isinstance(values[name], dict)).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _written(values: SettingValues) -> SettingValues:
    """Return the settings with synthesis in reading order, and with the weight of bn_statistics as its only term."""
    synthesis = dict(values["synthesis"])
    terms = {name: term for name, term in synthesis.get("regularizers", {}).items() if name == "bn_statistics"}
    synthesis["regularizers"] = {name: {"weight": term["weight"]} for name, term in terms.items()}
    later = ("method", "regularizers", "precision", "compile")
    ordered = {
        name: synthesis[name] for name in [*(n for n in synthesis if n not in later), *later] if name in synthesis
    }
    return {**values, "synthesis": ordered}


def _notes(values: SettingValues, teacher: Teacher, plan: ExperimentPlan) -> dict[str, tuple[str, ...]]:
    """Return the comments above each section."""
    channels, height, width = teacher.image_shape
    seconds = {stage.stage: rounded(stage.seconds) for stage in plan.stages}
    limit = values["search"].get("max_macs", "90%")
    flips = _flips(values)
    notes: dict[str, tuple[str, ...]] = {
        "teacher": (
            f"{teacher.num_classes} classes, images {channels} x {height} x {width}, "
            f"{formatting.quantity(teacher.cost.params)} parameters, {formatting.quantity(teacher.cost.macs)} MACs.",
        ),
        "synthesis": (
            f"The synthetic images, about {seconds['synthesis']}. More images make better networks.",
            "Mirrored images are " + ("used." if flips else "not used: a mirrored image may have another class."),
        ),
        "search": (
            f"The search for a network, about {seconds['search']}: at most {_share(limit)} multiply-adds.",
            "The space has networks below and above that limit.",
        ),
        "retraining": (
            f"The network's training, about {seconds['retraining']}, and as long again for a random network of the same size.",
            "The random network shows what the search was worth; `baseline: false` leaves it out.",
        ),
    }
    if not teacher.batch_norms():
        notes["synthesis"] += (
            "The teacher has no BatchNorm statistics: expect images that differ more from the real ones.",
        )
    if "evaluation" in values:
        notes["evaluation"] = ("Real images: no earlier stage reads them.",)
    return notes


def _share(limit: Any) -> str:
    return f"{limit} of the teacher's" if isinstance(limit, str) else "any number of" if limit is None else f"{limit:,}"


def _flips(values: Mapping[str, Any]) -> bool:
    return bool(values["synthesis"].get("flip_probability", 0.5))
