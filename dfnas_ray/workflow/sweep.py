"""`dfnas sweep`: from an experiment with a ``sweep`` section to its best settings, with what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import qmc

from dfnas_ray.config.experiment import ExperimentConfig, dump_experiment, make_experiment
from dfnas_ray.errors import ConfigError, DfnasError, TeacherError
from dfnas_ray.seeding import derive_seed
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import StageDir
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.sweeps.checks import check_effects, check_objectives, check_settings
from dfnas_ray.sweeps.config import SweepConfig
from dfnas_ray.sweeps.measure import Examination, Judge, proxy_architecture
from dfnas_ray.sweeps.ranges import Parameter
from dfnas_ray.sweeps.record import SweepRecord, trial_folder
from dfnas_ray.synthesis.config import SynthesisConfig
from dfnas_ray.teachers import Teacher
from dfnas_ray.workflow.pipeline import Outcome, Pipeline

STAGE = "sweep"
_BETWEEN = 0.38  # of a range: no whole number where only whole numbers will do


def sweep(pipeline: Pipeline) -> Outcome:
    """Run the sweep, or go on with it, and write the best settings and the report.

    Raises:
        ConfigError: the experiment has no sweep section, it is to run through Ray Client, or a range's end does not suit
            the teacher.
        DfnasError: no trial could be finished.
    """
    config = sweep_config(pipeline.config)
    check_address(pipeline.config)
    check_ranges(pipeline.teacher, pipeline.config, config)
    stage = pipeline.run_dir.stage(STAGE, sweep_inputs(pipeline))
    if stage.is_done and stage.summary()["asked"] < config.num_trials:
        pipeline.check_fits("synthesis")
        stage.reopen()
    outcome = pipeline.finish_on_cluster("synthesis", stage, lambda: _sweep(pipeline, stage, config))

    from dfnas_ray.report.sweep_page import write_sweep_report

    write_sweep_report(outcome.location, pipeline.config.name)
    return outcome


def sweep_config(config: ExperimentConfig) -> SweepConfig:
    """Return the sweep section, or say how one looks."""
    if config.sweep is None:
        raise ConfigError(
            "The experiment has no sweep section. Add one, for instance\n"
            "sweep:\n  settings:\n    synthesis.regularizers.bn_statistics.weight: {log_uniform: [0.01, 100]}\n  trials: 20"
        )
    return config.sweep


def check_address(config: ExperimentConfig) -> None:
    """Refuse Ray Client beside an object store: Tune and its searcher work on the head, and the study's copy is here.

    In a file system that the head shares with this machine, both open the same study.

    Raises:
        ConfigError: names the address.
    """
    if config.cluster.ray_client is not None and not Location.parse(config.run_directory).is_local:
        raise ConfigError(
            f"cluster.address ({config.cluster.ray_client}) is Ray Client's, through which a sweep cannot work in an object "
            f"store ({config.run_directory}): its study would be a file on this machine, which the cluster's head cannot "
            "open. Let the cluster run it: dfnas submit FILE --command sweep."
        )


def check_ranges(teacher: Teacher, config: ExperimentConfig, sweep: SweepConfig) -> None:
    """Try each range's ends, and a point between them, on the teacher: no hours are spent before a wrong one is met.

    Raises:
        ConfigError: names the setting and its value.
    """
    settings = sweep.synthesis(config.synthesis, {}, fixed=True)
    check_effects(sweep, settings)
    check_objectives(teacher, sweep, settings)
    for path, range_ in sweep.settings.items():
        for value in range_.categories or (*range_.limits, range_.at(_BETWEEN)):
            try:
                settings = check_settings(teacher, config.synthesis, sweep, {path: value})
                check_objectives(teacher, sweep, settings)
                _experiment_with(config, sweep.synthesis(config.synthesis, {path: value}, fixed=False))
            except DfnasError as error:
                raise ConfigError(f"sweep.settings.{path} at {value!r}: {error}") from error


def sweep_inputs(pipeline: Pipeline) -> dict[str, Any]:
    """Return what a sweep's trials depend on; more of them can be added later."""
    config = pipeline.config
    sweep = sweep_config(config).model_dump(mode="json", exclude={"trials", "concurrency"})
    labelled = sweep_config(config).labelled
    return {
        **({} if labelled is None else {"files": labelled.open("sweep.labelled").fingerprint}),
        "teacher": pipeline.teacher.fingerprint,
        "seed": config.seed,
        "synthesis": config.synthesis.model_dump(mode="json"),
        "sweep": sweep,
        "space": config.search.space[0].model_dump(mode="json"),
        "max_macs": pipeline.max_macs,
        "distillation": config.retraining.distillation.model_dump(mode="json"),
        "threads": config.cluster.synthesis.cpus,
    }


def reference_settings(sweep: SweepConfig, seed: int) -> list[dict[str, Parameter]]:
    """Return settings that cover the ranges evenly: a scrambled Latin hypercube (McKay et al. 1979)."""
    sampler = qmc.LatinHypercube(len(sweep.settings), rng=derive_seed(seed, "sweep-reference") % 2**32)
    points = sampler.random(sweep.reference.settings)
    return [
        {path: range_.at(float(u)) for (path, range_), u in zip(sweep.settings.items(), point, strict=True)}
        for point in points
    ]


def _sweep(pipeline: Pipeline, stage: StageDir, config: SweepConfig) -> dict[str, Any]:
    from dfnas_ray.execution.ray.board import ProgressBoard
    from dfnas_ray.execution.ray.sweep import SweepJob, recover, run_sweep

    experiment, resources = pipeline.config, pipeline.config.cluster.synthesis
    job = SweepJob(config, experiment.synthesis, resources, experiment.seed, stage.location)
    judge = _judge(pipeline, stage, config)
    board = ProgressBoard()
    with SweepRecord.opened(config, stage.location) as record:
        recover(job, record)
        todo = record.num_open()
        if 0 < todo < config.num_trials:
            pipeline.listener.say(
                f"sweep: {config.num_trials - todo} of {config.num_trials} trials are finished already."
            )
        total = todo * job.steps_of_a_trial
        with pipeline.listener.task("Sweeping", total, "image step") as task, board.shown_on(task):
            run_sweep(job, record, judge, board)
        trials = [_describe(trial, config, stage.location) for trial in record.trials()]
    (stage.location / "trials.json").write_json(trials)
    return {"asked": config.num_trials, **_write_best(experiment, config, trials, stage.location)}


def _judge(pipeline: Pipeline, stage: StageDir, config: SweepConfig) -> Judge:
    experiment, teacher = pipeline.config, pipeline.teacher
    space = pipeline.spaces[0]
    verifier = None
    if config.verifier is not None:
        verifier = config.verifier.load(pipeline.teacher_cache)
        if (verifier.image_shape, verifier.num_classes) != (teacher.image_shape, teacher.num_classes):
            raise TeacherError(
                f"sweep.verifier ({verifier.name}) takes {verifier.image_shape} and knows {verifier.num_classes} classes, "
                f"but the teacher takes {teacher.image_shape} and knows {teacher.num_classes}. They must be the same."
            )
    judge = Judge(
        config,
        teacher,
        space,
        proxy_architecture(space, pipeline.max_macs, experiment.seed),
        experiment.retraining.distillation,
        Examination(torch.empty(0), torch.empty(0)),
        experiment.seed,
        verifier,
        config.labelled.open("sweep.labelled") if config.labelled is not None else None,
    )
    if not judge.needs_student:
        return judge
    images = _reference_images(pipeline, stage, config)
    return replace(judge, examination=Examination.of(images, teacher, config.reference.share))


def _reference_images(pipeline: Pipeline, stage: StageDir, config: SweepConfig) -> list[SyntheticImages]:
    """Make the images on which students are examined; settings that do not go together are left out."""
    from dfnas_ray.execution.ray.sweep import make_reference, shard_job

    experiment, resources = pipeline.config, pipeline.config.cluster.synthesis
    # Of a seed of its own: no trial's images are among them, even if its settings are.
    seed = derive_seed(experiment.seed, "sweep-reference")
    jobs = []
    for number, parameters in enumerate(reference_settings(config, experiment.seed)):
        try:
            settings = config.synthesis(experiment.synthesis, parameters, fixed=True)
        except ConfigError as error:
            pipeline.listener.say(f"Reference setting {number} is left out. {error}")
            continue
        batch = min(settings.batch_size, config.reference.images)
        images = -(-config.reference.images // batch) * batch
        settings = settings.model_copy(update={"num_shards": 1, "images_per_shard": images, "batch_size": batch})
        jobs.append(shard_job(pipeline.teacher, settings, seed, stage.location / f"reference-{number:03d}"))
    with pipeline.listener.task("Making reference images", len(jobs), "setting") as task:
        made, failed = make_reference(jobs, pipeline.teacher, resources, task.advance_to)
    for reason in failed:
        pipeline.listener.say(f"A reference setting is left out. {reason}")
    if not made:
        raise DfnasError(
            f"None of the sweep's {config.reference.settings} reference settings gives images. {' '.join(failed[:1])}"
        )
    return made


def _describe(trial: Any, config: SweepConfig, folder: Location) -> dict[str, Any]:
    file = trial_folder(folder, trial.number) / "result.json"
    result = file.read_json() if file.exists() else {}
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "parameters": trial.params,
        "settings": {path: config.settings[path].value(value) for path, value in trial.params.items()},
        "values": list(trial.values) if trial.state.name == "COMPLETE" else None,
        "figures": {**trial.user_attrs, **result.get("figures", {})},
        "seconds": result.get("seconds"),
        "error": result.get("error"),
    }


def pareto_front(values: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Return the indices of the points that no other point beats in every objective."""
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    points = [[sign * value for sign, value in zip(signs, point, strict=True)] for point in values]

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and list(a) != list(b)

    return [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]


def best_of(trials: Sequence[Mapping[str, Any]], directions: Sequence[str]) -> tuple[Mapping[str, Any], list[int]]:
    """Return the best finished trial, and the numbers of those that none beats, in order of merit.

    With several objectives, the best of the Pareto front is the one nearest to the ideal point: the best value of each
    objective, all scaled to the front's range.

    Raises:
        DfnasError: no trial is finished.
    """
    finished = [trial for trial in trials if trial["values"] is not None]
    if not finished:
        reasons = [trial["error"] for trial in trials if trial["error"]]
        raise DfnasError(
            f"No trial of the sweep could be finished. The first failed with: {(reasons or ['nothing'])[0]}"
        )
    front = [finished[index] for index in pareto_front([trial["values"] for trial in finished], directions)]
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    points = signs * np.array([trial["values"] for trial in front], dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    distance = np.linalg.norm((points - low) / np.where(high > low, high - low, 1.0), axis=1)
    order = sorted(range(len(front)), key=lambda index: (distance[index], front[index]["number"]))
    shown = order if len(directions) > 1 else order[:1]  # with one objective, a front is nothing but ties
    return front[order[0]], [front[index]["number"] for index in shown]


def _write_best(
    experiment: ExperimentConfig, config: SweepConfig, trials: Sequence[Mapping[str, Any]], folder: Location
) -> dict[str, Any]:
    best, front = best_of(trials, config.directions)
    by_number = {trial["number"]: trial for trial in trials}
    for number in front:
        text = _best_experiment(experiment, config, by_number[number])
        if number == best["number"]:
            (folder / "best.yaml").write_bytes(text.encode())
        if len(front) > 1:
            (folder / f"pareto-{number:05d}.yaml").write_bytes(text.encode())
    states = [trial["state"] for trial in trials]
    return {
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "objectives": list(config.objectives),
        "best": {name: best[name] for name in ("number", "settings", "values", "figures")},
        "pareto_front": front,
        "data_free": config.is_data_free,
    }


def _best_experiment(experiment: ExperimentConfig, config: SweepConfig, trial: Mapping[str, Any]) -> str:
    """Return the experiment with a trial's settings, as `dfnas run` takes it: without what was fixed to save time."""
    synthesis = config.synthesis(experiment.synthesis, trial["parameters"], fixed=False)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in zip(config.objectives, trial["values"], strict=True))
    source = "without real data" if config.is_data_free else "NOT data-free: a real model or real labels decided"
    header = f"# Trial {trial['number']} of the sweep of {experiment.name}: {figures} ({source}).\n"
    return header + dump_experiment(_experiment_with(experiment, synthesis))


def _experiment_with(experiment: ExperimentConfig, synthesis: SynthesisConfig) -> ExperimentConfig:
    """Return the experiment with other settings of synthesis, and without the sweep.

    Raises:
        ConfigError: they do not go together with its other settings.
    """
    values = {"synthesis": synthesis.model_dump(mode="json"), "sweep": None}
    return make_experiment({**experiment.model_dump(mode="json"), **values})
