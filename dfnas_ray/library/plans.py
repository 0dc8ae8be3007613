"""Plan the unfinished stages of an experiment, and how long they will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dfnas_ray.planning.estimate import ExperimentPlan, StageEstimate, estimate, is_brief, rounded
from dfnas_ray.workflow.search import Search
from dfnas_ray.workflow.session import Session
from dfnas_ray.workflow.synthesis import Synthesis

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
    if is_brief(session.config, session.teacher) or Search(session).dir.is_done:
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


def _line(parts: Sequence[StageEstimate], rest: Sequence[StageEstimate]) -> str:
    works = "; ".join(part.work for part in parts)
    more = f" and {', '.join(part.stage for part in rest)}" if rest else ""
    seconds = sum(part.seconds for part in (*parts, *rest))
    took = f"about {rounded(seconds)}" if seconds else "done already"
    return f"{parts[0].stage}{more}: {works}, {took}."


def _finished(stage: StageEstimate) -> StageEstimate:
    return replace(stage, seconds=0.0)
