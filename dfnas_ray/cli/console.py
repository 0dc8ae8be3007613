"""What the terminal shows: progress with rates and remaining time on stderr, results on stdout."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, MutableMapping
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
from rich.table import Column
from rich.text import Text

from dfnas_ray import formatting
from dfnas_ray.progress import Task

_LARGEST_SIZE = 10_000


def forget_odd_sizes(environment: MutableMapping[str, str]) -> None:
    """Remove impossible terminal sizes: with 0 columns Rich prints nothing, with a billion it fills the memory."""
    for name in ("COLUMNS", "LINES"):
        text = environment.get(name, "1")
        if not (text.isdecimal() and len(text) < 9 and 0 < int(text) <= _LARGEST_SIZE):
            del environment[name]


forget_odd_sizes(os.environ)
out = Console()
err = Console(stderr=True)


EVERY_SECONDS = 30.0
"""Time between two lines of progress where stderr is not a terminal."""


class _RateColumn(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        if speed is None:
            return Text(f"{unit}s", style="dim", no_wrap=True)
        return Text(_rate(speed, unit), style="dim", no_wrap=True)


def _rate(speed: float, unit: str) -> str:
    return f"{_si(speed)} {unit}s/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"


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


class _Line:
    """Progress without a terminal, as in a log file: a plain line every half minute, and one at the end."""

    def __init__(self, description: str, total: float, unit: str):
        self._description, self._total, self._unit = description, total, unit
        self._began, self._done, self._note = time.monotonic(), 0.0, ""
        self._first: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)
        self._thread.start()

    def advance_to(self, done: float, note: str = "") -> None:
        if self._first is None:
            self._first = done  # an earlier command may have done a part of the work
        self._done, self._note = done, note or self._note

    def finish(self) -> None:
        """Stop printing. Work that took less than the time between two lines prints nothing."""
        self._over.set()
        self._thread.join()
        took = time.monotonic() - self._began
        if took >= EVERY_SECONDS:
            err.print(Text(f"{self._description}: done after {formatting.duration(took)}."), soft_wrap=True)

    def line(self) -> str:
        """Return one line of progress: share done, rate and remaining time."""
        took, done = time.monotonic() - self._began, self._done
        parts = [f"{self._description}: {done / self._total:.0%} after {formatting.duration(took)}"]
        grown = done - (self._first or 0.0)
        if grown > 0:
            speed = grown / took
            parts += [_rate(speed, self._unit), f"about {formatting.duration((self._total - done) / speed)} left"]
        return ", ".join(parts) + (f"; {self._note}" if self._note else "")

    def _print_lines(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            err.print(Text(self.line()), soft_wrap=True)


class Terminal:
    """A `dfnas_ray.progress.Listener` that writes to stderr with rich. Bars may overlap, in several threads.

    Where stderr is not a terminal, a plain line every half minute replaces the bar.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None  # while a bar is shown
        self._shown = 0

    def say(self, message: str) -> None:
        """Print one line."""
        err.print(Text.assemble(("· ", "dim"), message))

    @contextmanager
    def task(self, description: str, total: float, unit: str) -> Iterator[Task]:
        """Show a bar with rate, elapsed and remaining time."""
        if not err.is_terminal:
            line = _Line(description, total, unit)
            try:
                yield line
            finally:
                line.finish()
            return
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
        # In a narrow terminal the note is cut first, then the description.
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(ratio=3, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=12 if err.width < 100 else 16),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True)),
            *([_RateColumn()] if err.width >= 100 else []),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left", table_column=Column(no_wrap=True)),
            TextColumn("[dim]{task.fields[note]}", table_column=Column(ratio=4, no_wrap=True, overflow="ellipsis")),
        )
        return Progress(*columns, console=err, expand=True)
