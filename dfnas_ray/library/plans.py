"""Plan the unfinished stages of an experiment, and how long they will take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dfnas_ray.planning.estimate import (
    BRIEF,
    ExperimentPlan,
    StageEstimate,
    estimate,
    machine_of,
    rough_work,
    rounded,
)
from dfnas_ray.planning.studies import (
    estimate_comparison,
    estimate_sweep,
    estimate_truth,
    rough_work_of_comparison,
    rough_work_of_sweep,
    rough_work_of_truth,
)
from dfnas_ray.workflow.comparison import VariantComparison
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.sweep import Sweep
from dfnas_ray.workflow.synthesis import Synthesis
from dfnas_ray.workflow.truth import Truth

_LEAD = ("synthesis", "search", "retraining")


def plan(session: Session) -> ExperimentPlan:
    """Time a few steps of each stage, and return the plan; finished stages take no time in it.

    Raises:
        DfnasError: a stage cannot begin.
    """
    synthesis = Synthesis(session)
    synthesis.check()
    search = Search(session)
    search.check()
    whole = estimate(session.config, session.teacher)
    done = {stage.name for stage in (synthesis, search) if stage.dir.is_done}
    return replace(whole, stages=tuple(_finished(stage) if stage.stage in done else stage for stage in whole.stages))


def announce(session: Session) -> None:
    """Print in three lines what a run will do and how long it will take, unless it takes only seconds."""
    if Search(session).dir.is_done or rough_work(session.config, session.teacher) < BRIEF:
        return
    session.listener.say("Timing a few steps ...")
    found = plan(session)
    for name in _LEAD:
        parts = [stage for stage in found.stages if stage.stage == name]
        if not parts:  # synthesis, where nothing looks at its images
            continue
        rest = [stage for stage in found.stages if stage.stage not in _LEAD] if name == _LEAD[-1] else []
        end = f" In all about {rounded(found.seconds)} on {found.where}." if name == _LEAD[-1] else ""
        session.listener.say(_line(parts, rest) + end)


def announce_truth(stage: Truth) -> None:
    """Say how long it takes to train the architectures that are not trained yet."""
    session = stage.session
    missing = stage.num_missing
    work = rough_work_of_truth(session.config, session.teacher, missing)
    _say(session, stage.is_done, work, lambda: estimate_truth(session.config, session.teacher, missing))


def announce_sweep(stage: Sweep) -> None:
    """Say how long a sweep takes that begins; what is left of one that was broken off, nobody knows before its study is read."""
    session = stage.session
    is_known = stage.location.exists()
    work = rough_work_of_sweep(session.config, session.teacher)
    _say(session, is_known, work, lambda: estimate_sweep(session.config, session.teacher))


def announce_comparison(stage: VariantComparison) -> None:
    """Say how long a comparison takes that begins."""
    session, seeds = stage.session, len(stage.config.seeds)
    variants = {name: stage.session_of((name, stage.config.seeds[0])).config for name in stage.config.variants}
    work = rough_work_of_comparison(variants, session.teacher, seeds)

    def found() -> StageEstimate:
        looked_up = stage.table is not None
        return estimate_comparison(
            variants,
            session.teacher,
            seeds,
            None if looked_up else stage.config.random,
            stage.num_ranked,
            "search" in stage.measures,
        )

    _say(session, stage.location.exists(), work, found)


def _say(session: Session, is_known: bool, work: float, found: Callable[[], StageEstimate]) -> None:
    if is_known or work < BRIEF:
        return
    session.listener.say("Timing a few steps ...")
    stage = found()
    where = machine_of(session.config.cluster)
    session.listener.say(f"{stage.stage}: {stage.work}, about {rounded(stage.seconds)} on {where}.")


def _line(parts: Sequence[StageEstimate], rest: Sequence[StageEstimate]) -> str:
    works = "; ".join(part.work for part in parts)
    more = f" and {', '.join(part.stage for part in rest)}" if rest else ""
    seconds = sum(part.seconds for part in (*parts, *rest))
    took = f"about {rounded(seconds)}" if seconds else "done already"
    return f"{parts[0].stage}{more}: {works}, {took}."


def _finished(stage: StageEstimate) -> StageEstimate:
    return replace(stage, seconds=0.0)
