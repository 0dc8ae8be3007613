"""``run.log`` in the run directory."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dfnas_ray.errors import ConfigError
from dfnas_ray.progress import Silent
from dfnas_ray.storage.location import Location
from dfnas_ray.workflow.run_log import logged


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, message):
        self.lines.append(message)


def test_a_run_leaves_what_it_said_and_how_it_ended(tiny_inline_run):
    text = (Path(tiny_inline_run.folder) / "run.log").read_text()
    lines = text.splitlines()
    assert "begins." in lines[0]
    assert any("Searching: done after" in line for line in lines)
    assert lines[-1].endswith("The command has ended.")


def test_what_is_said_and_warned_stands_in_the_log_in_one_line_each(tmp_path):
    listener = Said()
    with logged(Location.parse(tmp_path), listener) as noted:
        noted.say("Hello\nworld.")
        assert not (tmp_path / "run.log").exists()  # work has not begun
        noted.begin()
        logging.getLogger("dfnas_ray.anything").warning("Mind the %s.", "gap")
    logging.getLogger("dfnas_ray.anything").warning("Afterwards.")
    assert listener.lines == ["Hello\nworld."]
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines[1:]] == [
        "INFO Hello world.", "WARNING Mind the gap.", "INFO The command has ended."
    ]  # fmt: skip


def test_an_error_is_the_last_line_and_the_next_command_goes_on_below(tmp_path):
    def fail():
        with logged(Location.parse(tmp_path), Silent()) as noted:
            noted.begin()
            raise ConfigError("seed (-1) is too small.")

    with pytest.raises(ConfigError):
        fail()
    with logged(Location.parse(tmp_path), Silent()) as noted:
        noted.begin()
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines[1].endswith("ERROR The command ended with an error: seed (-1) is too small.")
    assert len(lines) == 4


def test_a_command_that_fails_before_work_begins_leaves_no_log(tmp_path):
    with pytest.raises(ConfigError), logged(Location.parse(tmp_path), Silent()):
        raise ConfigError("seed (-1) is too small.")
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "run.log").mkdir()
    listener = Said()
    with logged(Location.parse(tmp_path), listener) as noted:
        noted.begin()
        noted.say("Hello.")
    assert listener.lines == ["Hello."]
