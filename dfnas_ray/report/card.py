"""The model card: what the network is, what it was made from, and how to load it, as Markdown beside the report."""

from __future__ import annotations

import json
import re

from dfnas_ray.report.artefacts import Artefacts, read_artefacts
from dfnas_ray.report.benchmark_section import benchmark_section
from dfnas_ray.report.classes_section import classes_section
from dfnas_ray.report.network_section import larger_input, load_lines, preparation
from dfnas_ray.report.page import commands, is_data_free, remarks
from dfnas_ray.report.results import compare, verdict
from dfnas_ray.report.search_section import network_roles
from dfnas_ray.report.templates import template
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir
from dfnas_ray.teachers.facts import TeacherDescription
from dfnas_ray.training.export import NetworkDescription
from dfnas_ray.version import __version__
from dfnas_ray.workflow.evaluation import Evaluation
from dfnas_ray.workflow.retraining import Retraining
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.synthesis import Synthesis

_FILE = "model-card.md"


def write_card(run_dir: RunDir, folder: Location | None = None) -> Location | None:
    """Write ``model-card.md`` from the run directory, and return its location; None if no network is trained.

    Args:
        run_dir: The run directory.
        folder: Another folder for the card, which then tells how to load the network from there.

    Raises:
        StorageError: no stage is finished yet, or the directory cannot be read or written.
    """
    artefacts = read_artefacts(run_dir)
    place = folder or run_dir.location
    text = render_card(artefacts, place)
    if text is None:
        return None
    (place / _FILE).write_bytes(text.encode())
    return place / _FILE


def render_card(artefacts: Artefacts, place: Location) -> str | None:
    """Return the card, or None if no network is trained.

    Args:
        artefacts: What the run directory holds.
        place: The location from which the network will be loaded.
    """
    found, record = artefacts[Retraining], artefacts[Retraining].record
    described = found.read(NetworkDescription.find)
    if record is None or described is None:
        return None
    own = artefacts.problems.read(NetworkDescription.find, place)
    described = own or described  # an export may take other pixels, and have other class names
    search = artefacts[Search].record
    roles, evaluation, synthesis = network_roles(artefacts), artefacts[Evaluation].record, artefacts[Synthesis].record
    comparison, benchmark = compare(evaluation, roles) if evaluation else None, benchmark_section(artefacts)
    machine = {"dfnas-ray": __version__, **record.machine}
    return template("card.md.j2", md=escaped, code=_as_code, tojson_plain=json.dumps).render(
        name=str(artefacts.config.get("name") or artefacts.run_dir.location.name),
        teacher=artefacts.teacher or _unknown_teacher(described),
        described=described,
        names=described.class_names,
        load=load_lines(place.shown, described),
        larger=larger_input(described),
        prepared=preparation(described),
        commands=commands(artefacts, artefacts.run_dir.location.shown),
        comparison=comparison,
        verdict=verdict(comparison) if comparison else "",
        images=synthesis.remarks if synthesis else (),
        remarks=remarks(artefacts),
        classes=classes_section(artefacts, roles),
        uses_real=benchmark is not None and benchmark.uses_real,
        trained=record,
        is_data_free=is_data_free(artefacts),
        search_data_free=search is None or search.data_free,
        search=search,
        num_images=synthesis.images if synthesis else None,
        facts=synthesis.teacher if synthesis else None,
        seed=artefacts.config.get("seed", found.inputs.get("seed", "–")),
        finished_at=record.finished_at,
        versions=[(name, value) for name, value in machine.items() if name in ("dfnas-ray", "python", "torch", "ray")],
        has_config=bool(artefacts.config_text),
    )  # fmt: skip


def _unknown_teacher(described: NetworkDescription) -> TeacherDescription:
    """Return a teacher's description from that of its network, for runs of older versions."""
    return TeacherDescription(
        name=described.teacher or "teacher",
        sha256=described.teacher_sha256 or "–",
        image_shape=described.image_shape,
        num_classes=described.num_classes,
        mean=described.mean,
        std=described.std,
        class_names=described.class_names,
    )


def _as_code(text: object) -> str:
    """Return text that can stand between backticks, also in a table."""
    return " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")


def escaped(text: object) -> str:
    """Return text that Markdown shows as it is, in one line, also in a table and with HTML in it."""
    line = " ".join(str(text).split())
    line = re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
