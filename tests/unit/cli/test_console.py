"""Bars of the terminal: one after the other, and side by side."""

from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from dfnas_ray.cli import console


def test_bars_of_two_threads_are_shown_together_and_end_in_any_order(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=written, force_terminal=True, width=200))
    terminal = console.Terminal()
    both_open, first_closed = threading.Barrier(2), threading.Event()

    def background() -> None:
        with terminal.task("Synthesizing", 10, "image") as bar:
            both_open.wait(5)
            bar.advance_to(4)
            first_closed.wait(5)

    thread = threading.Thread(target=background)
    thread.start()
    with terminal.task("Searching", 2, "epoch") as bar:
        both_open.wait(5)
        bar.advance_to(1, "seed 0")
        terminal.say("a line between the bars")
    first_closed.set()
    thread.join(5)
    text = written.getvalue()
    assert all(words in text for words in ("Synthesizing", "Searching", "a line between the bars"))
    written.truncate(0)
    with terminal.task("Retraining", 1, "epoch"):
        pass
    assert "Retraining" in written.getvalue()
    assert "Searching" not in written.getvalue(), "what has ended is not shown again"


@pytest.mark.parametrize("width", [80, 110])
def test_a_long_note_leaves_percentage_and_remaining_time_on_the_line(monkeypatch, width):
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=written, force_terminal=True, width=width, color_system=None))
    terminal = console.Terminal()
    with terminal.task("Training each finalist alone", 8, "architecture") as bar:
        bar.advance_to(
            2, "spos-nasbench_macro-seed-0: training 12, loss 0.123  spos-nasbench_macro-seed-1: training 11"
        )
        terminal._progress.refresh()
    lines = [line for line in written.getvalue().replace("\r", "\n").splitlines() if " 25%" in line]
    assert lines
    assert all("left" in line and "Training" in line for line in lines)


def test_without_a_terminal_a_plain_line_says_now_and_then_how_far_it_is(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=written, force_terminal=False, width=80))
    monkeypatch.setattr(console, "EVERY_SECONDS", 0.02)
    with console.Terminal().task("Searching", 8, "epoch") as line:
        line.advance_to(4)
        line.advance_to(6, "loss 0.5")
        limit = time.monotonic() + 5
        while written.getvalue().count("75%") < 2 and time.monotonic() < limit:
            time.sleep(0.01)
    first, *_, last = written.getvalue().splitlines()
    assert first.startswith("Searching: 75% after ")
    assert "epoch" in first  # the rate: of the two steps that this command made
    assert first.endswith(" left; loss 0.5")
    assert last.startswith("Searching: done after ")


def test_what_is_over_at_once_says_nothing_where_there_is_no_terminal(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=written, force_terminal=False))
    with console.Terminal().task("Searching", 8, "epoch") as line:
        line.advance_to(8)
    assert written.getvalue() == ""


@pytest.mark.parametrize(
    ("size", "is_kept"),
    [
        ("80", True),
        ("1", True),
        ("0", False),
        ("-5", False),
        ("²", False),
        ("", False),
        ("9" * 9, False),
        ("abc", False),
    ],
)
def test_a_size_that_is_none_is_forgotten(size, is_kept):
    environment = {"COLUMNS": size, "LINES": size, "TERM": "xterm"}
    console.forget_odd_sizes(environment)
    assert environment == ({"COLUMNS": size, "LINES": size, "TERM": "xterm"} if is_kept else {"TERM": "xterm"})
