"""Bars of the terminal: one after the other, and side by side."""

from __future__ import annotations

import io
import threading

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
