"""What a run directory holds: its finished stages, and whether they belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import yaml

from dfnas_ray.errors import StorageError
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import RunDir

STAGES = ("synthesis", "search", "retraining", "baseline", "evaluation", "benchmark")
Status = Literal["finished", "missing", "outdated", "off"]


@dataclass(frozen=True)
class ReportedStage:
    """One stage as the report sees it.

    Attributes:
        status: ``outdated``: finished, but made from something that a later command replaced; ``off``: the experiment
            does not ask for it.
        location: Its folder, if it is finished.
        summary: Its done.json.
        inputs: Its inputs.json.
        changed: Whether experiment.yaml has since been given other settings for it.
    """

    name: str
    status: Status
    location: Location | None = None
    summary: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    changed: bool = False

    def file(self, name: str) -> Any:
        """Return the parsed JSON file of a finished stage, or None if it is not there."""
        if self.status != "finished" or self.location is None:
            return None
        file = self.location / name
        return file.read_json() if file.exists() else None

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry of the summary of a finished stage."""
        return (self.summary or {}).get(name, default) if self.status == "finished" else default

    @property
    def finished(self) -> bool:
        """Whether there is something to show."""
        return self.status == "finished"


@dataclass(frozen=True)
class Artefacts:
    """Everything that the report reads, but for the shards.

    Attributes:
        config: experiment.yaml as nested mappings; empty if there is none.
        config_text: The file as it is.
    """

    run_dir: RunDir
    config: dict[str, Any]
    config_text: str
    stages: dict[str, ReportedStage]

    def __getitem__(self, stage: str) -> ReportedStage:
        return self.stages[stage]

    def setting(self, *keys: str) -> Any:
        """Return a setting of experiment.yaml by its path, or None."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_artefacts(run_dir: RunDir) -> Artefacts:
    """Read the run directory.

    Raises:
        StorageError: no stage is finished, or a file cannot be read.
    """
    config, text = _read_config(run_dir)
    latest = run_dir.latest()
    stages: dict[str, ReportedStage] = {}
    for name in STAGES:
        stages[name] = _read_stage(run_dir, name, latest, stages, config)
    if not any(stage.finished for stage in stages.values()):
        raise StorageError(
            f"{run_dir.location} holds no finished stage, so there is nothing to report. Run `dfnas run` or "
            "`dfnas synthesize` with this run directory first."
        )
    return Artefacts(run_dir, config, text, stages)


def _read_config(run_dir: RunDir) -> tuple[dict[str, Any], str]:
    file = run_dir.location / "experiment.yaml"
    if not file.exists():
        return {}, ""
    text = file.read_bytes().decode(errors="replace")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        config = None
    return (config if isinstance(config, dict) else {}), text


def _read_stage(
    run_dir: RunDir, name: str, latest: dict[str, str], before: dict[str, ReportedStage], config: dict[str, Any]
) -> ReportedStage:
    location = run_dir.latest_stage(name)
    wanted = _is_wanted(name, config)
    if location is None or (name == "baseline" and not wanted):
        return ReportedStage(name, "missing" if wanted else "off")
    inputs_file = location / "inputs.json"
    inputs = inputs_file.read_json() if inputs_file.exists() else {}
    summary = (location / "done.json").read_json()
    status: Status = "finished" if _belongs(name, inputs, latest, before) else "outdated"
    return ReportedStage(name, status, location, summary, inputs, _is_changed(name, inputs, config))


def _is_wanted(name: str, config: dict[str, Any]) -> bool:
    if name == "baseline":
        return bool(_section(config, "retraining").get("baseline", True))
    if name == "evaluation":
        return _section(config, "evaluation").get("dataset") is not None
    return name != "benchmark"  # a command of its own: nothing is missing without it


def _belongs(name: str, inputs: dict[str, Any], latest: dict[str, str], before: dict[str, ReportedStage]) -> bool:
    """Return whether a stage was made from those that the report shows."""
    if name == "evaluation":
        networks = inputs.get("networks", {})
        return all(latest.get(network) == folder for network, folder in networks.items()) and not any(
            before[network].status == "outdated" for network in networks if network in before
        )
    synthesis_key = inputs.get("upstream", {}).get("synthesis")
    folder = latest.get("synthesis")
    return synthesis_key is None or folder is None or str(synthesis_key).startswith(folder)


def _is_changed(name: str, inputs: dict[str, Any], config: dict[str, Any]) -> bool:
    """Return whether experiment.yaml now says something else than what a stage was made with."""
    section = {"baseline": "retraining"}.get(name, name)
    made, now = inputs.get(section), config.get(section)
    if not isinstance(made, dict) or not isinstance(now, dict):
        return False
    return any(now.get(key) != value for key, value in made.items())


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}
