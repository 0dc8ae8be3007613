"""The page of a sweep: every trial with its figures, and an error that names what cannot be read."""

from io import StringIO

import pytest
from rich.console import Console

from dfnas_ray.cli import sweep as sweep_command
from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import StorageError
from dfnas_ray.report import sweep_page
from dfnas_ray.report.sweep_page import render_sweep
from dfnas_ray.storage.location import Location
from dfnas_ray.sweeps.result import TriedSettings, TriedTrials, read_trials
from dfnas_ray.workflow.stage import Outcome
from dfnas_ray.workflow.sweep import BestSettings, SweptRecord

TAU = "synthesis.method.tau"


def tried(number, value, **facts):
    known = {
        "state": "complete", "parameters": {TAU: 1}, "settings": {TAU: 1}, "figures": {}, "seconds": 2.5, "error": None,
    }  # fmt: skip
    return TriedSettings(number=number, values=None if value is None else (value,), **known | facts)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A finished sweep without images, whose figures are not drawn."""
    monkeypatch.setattr(sweep_page, "sweep_figures", lambda study, config: [("Figure", f"{len(study.trials)}", "svg")])
    experiment = make_experiment({"teacher": "digits", "sweep": {"settings": {TAU: {"choice": [1, 2]}}}})
    folder = Location.parse(tmp_path)
    (folder / "inputs.json").write_json({"sweep": experiment.sweep.model_dump(mode="json")})
    trials = (
        tried(0, 0.25),
        tried(1, 0.75),
        tried(2, None, state="pruned", figures={"rounds": 2, "student_proxy": 0.125}),
        tried(3, None, state="fail", error="<b>loss</b> is NaN"),
        tried(4, None, state="pruned"),
    )
    (folder / "trials.json").write_model(TriedTrials(trials))
    best = BestSettings(number=1, settings={TAU: 1}, values=(0.75,), figures={})
    record = SweptRecord(
        asked=5, trials={"complete": 2}, objectives=("student_proxy",), best=best, pareto_front=(1,), data_free=True
    )
    (folder / "done.json").write_model(record)
    return folder


def test_the_best_trial_comes_first_and_how_others_ended_is_said(folder):
    page = render_sweep(folder, "a sweep")
    assert page.index("<td>1</td>") < page.index("<td>0</td>") < page.index("<td>2</td>")
    assert (
        '<tr class="main"><td>1</td><td class="num">0.750</td><td class="num">1</td><td class="num">2.50</td>' in page
    )
    assert "pruned after 2 rounds with student_proxy 0.125" in page
    assert "fail: &lt;b&gt;loss&lt;/b&gt; is NaN" in page
    assert '<td>4</td><td colspan="1">pruned</td>' in page
    assert '<p class="note">5</p>' in page, "every trial goes into the figures"


def test_trials_are_read_as_they_were_written(folder):
    assert read_trials(folder)[1] == tried(1, 0.75)


@pytest.mark.parametrize("name", ["trials.json", "done.json", "inputs.json"])
@pytest.mark.parametrize("content", ["null", "5", '{"a": 1}', "[5]", "[" * 5000, ""])
def test_a_file_that_was_altered_is_named(folder, name, content):
    (folder / name).write_bytes(content.encode())
    with pytest.raises(StorageError, match=name.replace(".", r"\.")):
        render_sweep(folder, "a sweep")


@pytest.mark.parametrize(
    "facts",
    [{"parameters": {TAU: "three"}}, {"parameters": {TAU: 3}}, {"values": (0.1, 0.2)}, {"values": (float("nan"),)}],
)
def test_trials_that_do_not_fit_their_sweep_are_named(folder, facts):
    (folder / "trials.json").write_model(TriedTrials((tried(0, 0.5).model_copy(update=facts),)))
    with pytest.raises(StorageError, match=r"trials\.json does not fit its sweep"):
        render_sweep(folder, "a sweep")


def test_the_command_prints_the_best_trials_and_what_to_run_next(folder, monkeypatch):
    written = StringIO()
    monkeypatch.setattr(sweep_command, "out", Console(file=written, width=300))
    record = (folder / "done.json").read_model(SweptRecord)
    sweep_command.show_trials(Outcome("sweep", folder, record, reused=False))
    lines = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert " ".join(lines).startswith("The best of 5 trials (2 complete)")
    assert [line for line in lines if line.startswith("│")] == ["│ 1 │ 0.75 │ 1 │", "│ 0 │ 0.25 │ 1 │"]
    assert lines[-1] == f"Next: dfnas run {folder}/best.yaml"
