"""What the terminal shows: progress with rates and remaining time on stderr, results on stdout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.text import Text

out = Console()
err = Console(stderr=True)


class _RateColumn(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        if speed is None:
            return Text(f"{unit}s", style="dim", no_wrap=True)
        rate = f"{_si(speed)} {unit}s/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"
        return Text(rate, style="dim", no_wrap=True)


def _si(number: float) -> str:
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{suffix}"
    return f"{number:.1f}"


class _Bar:
    def __init__(self, progress: Progress, task: TaskID):
        self._progress, self._task = progress, task

    def advance_to(self, done: float, note: str = "") -> None:
        self._progress.update(self._task, completed=done, note=note)


class Terminal:
    """A `dfnas_ray.progress.Listener` that writes to stderr with rich."""

    def say(self, message: str) -> None:
        """Print one line."""
        err.print(Text.assemble(("· ", "dim"), message))

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[_Bar]:
        """Show a bar with rate, elapsed and remaining time."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            TextColumn("[dim]{task.fields[note]}"),
        )
        with Progress(*columns, console=err) as progress:
            task = progress.add_task(description, total=total, unit=unit, note="")
            yield _Bar(progress, task)
            progress.update(task, completed=total, note="")
