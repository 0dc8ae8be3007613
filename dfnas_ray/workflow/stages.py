"""How each stage is done: a function that works in the stage's folder and returns the stage's summary.

When it is done, and whether it has to be, is decided in pipeline.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors.torch import load

from dfnas_ray.datasets import ImageDataset
from dfnas_ray.errors import DfnasError, ShardError
from dfnas_ray.ops.cost import Cost
from dfnas_ray.progress import shorten
from dfnas_ray.search_spaces.architecture import Architecture
from dfnas_ray.storage.arrivals import ShardFolder
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import StageDir, fingerprint
from dfnas_ray.storage.shards import decode_shard, manifest_entry, shard_name
from dfnas_ray.synthesis.checks import check_synthesis
from dfnas_ray.training.evaluation import evaluate_networks
from dfnas_ray.training.export import export_network
from dfnas_ray.workflow.session import Session

if TYPE_CHECKING:
    from dfnas_ray.execution.ray.images import ImagesRef
    from dfnas_ray.execution.ray.search_trials import SearchJob


Entries: TypeAlias = dict[int, dict[str, Any]]
"""Lines of the manifest, by the number of the shard."""


def intact_shards(session: Session, stage: StageDir) -> Entries:
    """Return the manifest entries of the shards that are committed and intact; say which are not."""
    file = stage.location / "manifest.json"
    expected = {entry["shard"]: entry for entry in file.read_json()["shards"]} if file.exists() else {}
    kept = {}
    for shard in range(session.config.synthesis.num_shards):
        location = stage.location / shard_name(shard)
        if not location.exists():
            continue
        data = location.read_bytes()
        try:
            info, images = decode_shard(data, stage.key, str(location))
        except ShardError as error:
            session.listener.say(str(error))
            continue
        entry = manifest_entry(shard, data, len(images))
        if info.shard != shard or expected.get(shard, entry) != entry:
            session.listener.say(f"Shard {location} is not the one that was made. It is replaced.")
            continue
        kept[shard] = entry
    return kept


def synthesize(session: Session, stage: StageDir, kept: Entries) -> dict[str, Any]:
    """Make the shards that are not ``kept``, and measure the quality of all.

    Args:
        session: The command.
        stage: Where the shards go.
        kept: Manifest entries of the shards that are there, by number.
    """
    resources, todo = session.config.cluster.synthesis, missing_shards(session, kept)
    entries, num_actors = dict(kept), 0
    if todo:
        num_actors = min(len(todo), resources.actors or session.runtime.room_for(resources))
        make_shards(session, stage, kept, num_actors, lambda entry: entries.__setitem__(entry["shard"], entry))
    return describe_images(session, stage, entries, len(todo), num_actors)


def missing_shards(session: Session, kept: Entries) -> list[int]:
    """Return the numbers of the shards that are still to be made."""
    return [shard for shard in range(session.config.synthesis.num_shards) if shard not in kept]


def make_shards(
    session: Session,
    stage: StageDir,
    kept: Entries,
    num_actors: int,
    on_made: Callable[[dict[str, Any]], None],
    on_started: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Make the shards that are not ``kept``; the callbacks are those of `run_pool`.

    Raises:
        SynthesisError: some shards cannot be made; names them. The others are committed.
    """
    from dfnas_ray.execution.ray.board import ProgressBoard
    from dfnas_ray.execution.ray.synthesis_pool import ShardJob, synthesize_shards

    config, todo = session.config.synthesis, missing_shards(session, kept)
    check_synthesis(session.teacher, config)
    if kept:
        session.listener.say(f"synthesis: {len(kept)} of {config.num_shards} shards are there already.")
    job = ShardJob(config, stage.inputs["seed"], stage.key, session.teacher.fingerprint, stage.location)
    board = ProgressBoard()
    total = len(todo) * config.image_steps_per_shard
    with session.listener.task("Synthesizing", total, "image step") as task, board.shown_on(task):
        synthesize_shards(
            session.teacher,
            job,
            todo,
            session.config.cluster.synthesis,
            num_actors,
            board,
            on_made,
            on_started,
            should_stop,
        )


def describe_images(
    session: Session, stage: StageDir, entries: Entries, made_now: int, num_actors: int
) -> dict[str, Any]:
    """Write the finished set's manifest, measure its quality on the cluster, and return the stage's summary.

    Args:
        session: The command.
        stage: Where the shards are.
        entries: Manifest entries of all shards, by number.
        made_now: How many of them this command made.
        num_actors: By so many actors.
    """
    from dfnas_ray.execution.ray.images import measure_images

    config, resources = session.config.synthesis, session.config.cluster.synthesis
    manifest: dict[str, Any] = {"key": stage.key, "shards": [entries[shard] for shard in range(config.num_shards)]}
    (stage.location / "manifest.json").write_json(manifest)
    quality = measure_images(session.teacher, session.images(stage.location), resources)
    (stage.location / "quality.json").write_json(quality)
    summary: dict[str, Any] = {
        "images": sum(entry["rows"] for entry in manifest["shards"]),
        "shards": config.num_shards,
        "made_now": made_now,
        "actors": num_actors,
        "bytes": sum(entry["bytes"] for entry in manifest["shards"]),
        "quality": quality["overall"],
        "teacher": {
            "name": session.teacher.name,
            "params": session.teacher.cost.params,
            "macs": session.teacher.cost.macs,
            "image_shape": session.teacher.image_shape,
            "num_classes": session.teacher.num_classes,
        },
    }
    return summary


def search(session: Session, stage: StageDir, images: Location) -> dict[str, Any]:
    """Run every trial on the images of a folder, and choose among all finalists by training each one alone."""
    from dfnas_ray.execution.ray.search_trials import compare_architectures, read_results

    job = _run_trials(session, stage, session.images(images))
    trials = read_results(job)
    found = {
        _name(trial, text): session.architecture(trial["space_config"], text)
        for trial in trials
        for text in trial["finalists"]
    }
    if len(found) > 1:
        networks = {name: (architecture.space, architecture.genotype) for name, architecture in found.items()}
        with session.listener.task("Training each finalist alone", len(found), "architecture") as task:
            scores = compare_architectures(job, networks, session.teacher, session.images(images), task.advance_to)
        check_some_trained(scores, session.config.search.selection.optimizer.lr)
        for trial in trials:
            _choose_finalist(trial, found, scores)
    best = max(trials, key=lambda trial: _merit(trial.get("score", trial["own_score"])))
    (stage.location / "trials.json").write_json(trials)
    left_out = ("history", "space_config", "arrivals")
    return {
        **{name: value for name, value in best.items() if name not in ("history", "arrivals")},
        "max_macs": session.max_macs,
        "trials": [{name: trial[name] for name in trial if name not in left_out} for trial in trials],
    }


def search_beside_synthesis(session: Session, stage: StageDir, images: ShardFolder) -> None:
    """Let every trial go as far as it can while its images are being made; `search` goes on from there."""
    _run_trials(session, stage, images)


def _run_trials(session: Session, stage: StageDir, images: ImagesRef | ShardFolder) -> SearchJob:
    from dfnas_ray.execution.ray import multi_fidelity
    from dfnas_ray.execution.ray.board import ProgressBoard
    from dfnas_ray.execution.ray.search_trials import SearchJob, run_trials

    config = session.config.search
    job = SearchJob(config, session.config.cluster.search, session.config.seed, session.max_macs, stage.location)
    board = ProgressBoard()
    total = sum(trial.algorithm.steps_to_show for trial in config.trials)
    with session.listener.task("Searching", total, "epoch") as task, board.shown_on(task):
        run_trials(job, session.teacher, images, board)
        if not isinstance(images, ShardFolder):
            room = session.runtime.room_for(job.resources)
            multi_fidelity.run_searches(job, session.teacher, images, board, room)
    return job


def _choose_finalist(trial: dict[str, Any], found: dict[str, Architecture], scores: dict[str, float]) -> None:
    """Make the trial's best finalist its result."""
    names = [_name(trial, text) for text in trial["finalists"]]
    trial["finalists"] = [
        {"genotype": found[name].text, "macs": found[name].cost.macs, "score": scores[name]} for name in names
    ]
    best = max(names, key=lambda name: _merit(scores[name]))
    cost = found[best].cost
    trial.update(genotype=found[best].text, macs=cost.macs, params=cost.params, score=scores[best])


def check_some_trained(scores: dict[str, float], lr: float) -> None:
    """Make sure that not every architecture's training alone has diverged, which a score of NaN says.

    Args:
        scores: By architecture.
        lr: That they were trained with, for the message.

    Raises:
        DfnasError: every one has.
    """
    if all(map(math.isnan, scores.values())):
        raise DfnasError(
            f"The training alone of all {len(scores)} architectures found diverged, so none can be chosen. Lower "
            f"search.selection.optimizer.lr ({lr:g})."
        )


def _merit(score: float) -> float:
    """Return a score to compare by: an architecture whose training diverged (NaN) is below every other."""
    return -math.inf if math.isnan(score) else score


def _name(trial: dict[str, Any], genotype: str) -> str:
    """Return a name that two trials share if they found the same architecture in the same space."""
    return f"{trial['space']} {genotype} {fingerprint(trial['space_config'])[:8]}"


def retrain(session: Session, stage: StageDir, architecture: Architecture, images: Location) -> dict[str, Any]:
    """Train the architecture from scratch on the images of a folder, and export it."""
    from dfnas_ray.execution.ray import retraining
    from dfnas_ray.execution.ray.board import ProgressBoard

    config, resources = session.config.retraining, session.config.cluster.retraining
    job = retraining.RetrainingJob(
        config,
        resources,
        session.config.seed,
        architecture.space,
        architecture.genotype,
        session.config.search.validation_fraction,
        stage.location,
    )
    board = ProgressBoard()
    what = "Retraining" if stage.stage == "retraining" else "Baseline"
    with (
        session.listener.task(f"{what} {shorten(architecture.text, 24)}", config.epochs, "epoch") as task,
        board.shown_on(task),
    ):
        retrained = retraining.retrain(job, session.teacher, session.images(images), board)
    export_network(retrained.network, session.teacher.image_shape, stage.location)
    (stage.location / "history.json").write_json(retrained.history)
    cost = architecture.cost
    description = {
        "space": architecture.config,
        "genotype": architecture.text,
        "image_shape": session.teacher.image_shape,
        "num_classes": session.teacher.num_classes,
        "mean": session.teacher.mean,
        "std": session.teacher.std,
    }
    (stage.location / "network.json").write_json(description)
    return {
        "space_config": architecture.config,
        "genotype": architecture.text,
        "macs": cost.macs,
        "params": cost.params,
        **retrained.history[-1],
    }


def evaluate(session: Session, networks: Mapping[str, Location], dataset: ImageDataset) -> dict[str, Any]:
    """Measure the teacher and the networks of these folders on real images."""
    loaded: dict[str, torch.nn.Module] = {"teacher": session.teacher.model}
    costs: dict[str, tuple[str, Cost]] = {"teacher": (session.teacher.name, session.teacher.cost)}
    for name, folder in networks.items():
        description = (folder / "network.json").read_json()
        architecture = session.architecture(description["space"], description["genotype"])
        network = architecture.space.build(architecture.genotype)
        network.load_state_dict(load((folder / "weights.safetensors").read_bytes()))
        loaded[name] = network
        costs[name] = (architecture.text, architecture.cost)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with session.listener.task("Evaluating on real images", len(dataset), "image") as task:
        seen = 0

        def on_images(count: int) -> None:
            nonlocal seen
            seen += count
            task.advance_to(seen)

        accuracy = evaluate_networks(loaded, session.teacher, dataset, device, on_images)
    rows = {
        name: {"architecture": text, "accuracy": accuracy[name], "params": cost.params, "macs": cost.macs}
        for name, (text, cost) in costs.items()
    }
    return {"dataset": dataset.description, "images": len(dataset), "networks": rows}
