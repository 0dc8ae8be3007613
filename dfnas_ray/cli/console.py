"""What the terminal shows: progress with rates and remaining time on stderr, results on stdout."""

from __future__ import annotations

import threading
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
    """A `dfnas_ray.progress.Listener` that writes to stderr with rich. Bars may overlap, in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None  # while a bar is shown
        self._shown = 0

    def say(self, message: str) -> None:
        """Print one line."""
        err.print(Text.assemble(("· ", "dim"), message))

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[_Bar]:
        """Show a bar with rate, elapsed and remaining time."""
        progress = self._open()
        try:
            task = progress.add_task(description, total=total, unit=unit, note="")
            yield _Bar(progress, task)
            progress.update(task, completed=total, note="")
        finally:
            self._close()

    def _open(self) -> Progress:
        with self._lock:
            if self._progress is None:
                self._progress = self._make()
                self._progress.start()
            self._shown += 1
            return self._progress

    def _close(self) -> None:
        with self._lock:
            self._shown -= 1
            if self._shown == 0 and self._progress is not None:
                self._progress.stop()
                self._progress = None

    def _make(self) -> Progress:
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
        return Progress(*columns, console=err)
