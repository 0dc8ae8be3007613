"""Sweeps, in one process and on Ray: one goes on where it was cut off, grows, and its choice is an experiment that runs."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import optuna
import pytest

from dfnas_ray.config.experiment import load_experiment, make_experiment
from dfnas_ray.errors import DfnasError
from dfnas_ray.library import sweep

pytestmark = pytest.mark.timeout(300)

WEIGHT = "synthesis.regularizers.bn_statistics.weight"
COEFFICIENT = {WEIGHT: {"log_uniform": [0.03, 30]}}
SWEEP = {
    "settings": {WEIGHT: {"log_uniform": [0.03, 30]}, "synthesis.method.rounds": {"integer": [1, 2]}},
    "fixed": {"synthesis.num_shards": 2},
    "trials": 3,
    "student": {"steps": 6, "batch_size": 16},
    "reference": {"settings": 2, "images": 20},
}


@pytest.fixture
def values(tiny_values, address, request):
    """The tiny experiment at an executor's address."""
    values = tiny_values()
    values["cluster"]["address"] = address
    return values


def run(values, folder, listener=None, **changes):
    config = make_experiment({**values, "run_dir": str(folder), "sweep": {**SWEEP, **changes}})
    return sweep(config, listener)


def study(outcome):
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{outcome.location.path}/study.db")


def test_a_sweep_from_first_trial_to_best_settings(values, tmp_path, recorder):
    outcome = run(values, tmp_path)
    folder = outcome.location
    trials = (folder / "trials.json").read_json()
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    assert all(-1 <= trial["figures"]["student_proxy"] <= 1 for trial in trials)
    assert len({trial["figures"]["domain_gap"] for trial in trials}) == 3, "settings change the images"
    best = max(trials, key=lambda trial: (trial["values"][0], -trial["number"]))
    chosen = load_experiment(tmp_path / "sweep" / folder.name / "best.yaml")
    assert chosen.synthesis.regularizers.bn_statistics.weight == best["settings"][WEIGHT]
    assert chosen.synthesis.num_shards == 3, "what was fixed to save time is not part of the choice"
    assert chosen.sweep is None
    page = (folder / "sweep.html").read_bytes().decode()
    assert page.count("data:image/png") >= 3, "images of the best, the median and the worst trial"
    assert page.count("<svg") >= 3, "history, importances, slices"
    assert "regularizers.bn_statistics.weight" in page

    # Cut off: one trial was running without a result, one had its result written but not told.
    with sqlite3.connect(folder.path + "/study.db") as database:
        database.execute("UPDATE trials SET state = 'RUNNING' WHERE number IN (1, 2)")
        database.execute(
            "DELETE FROM trial_values WHERE trial_id IN (SELECT trial_id FROM trials WHERE number IN (1, 2))"
        )
    (folder / "done.json").delete_file()
    (folder / "trial-00001" / "result.json").delete_file()
    again = run(values, tmp_path, recorder)
    assert "sweep: 2 of 3 trials are finished already." in recorder.said
    after = (again.location / "trials.json").read_json()
    for before, now in zip(trials, after, strict=True):
        assert before["settings"] == now["settings"]
        assert before["values"] == now["values"]

    # The result of a finished trial was altered: it is named, and the trial described by what the study knows.
    (folder / "done.json").delete_file()
    (folder / "trial-00002" / "result.json").write_bytes(b"null")
    altered = run(values, tmp_path, recorder)
    assert sum("trial-00002/result.json" in message for message in recorder.said) == 1
    described = (altered.location / "trials.json").read_json()
    assert [trial["values"] for trial in described] == [trial["values"] for trial in trials]

    # More trials are added to those that are there.
    more = run(values, tmp_path, trials=4)
    assert more.location == again.location
    assert [(t.number, t.state.name) for t in study(more).trials] == [(n, "COMPLETE") for n in range(4)]
    assert study(more).metric_names == ["student_proxy"]


@pytest.mark.ray
@pytest.mark.parametrize("address", ["local"], indirect=True)
@pytest.mark.slow
def test_a_sweep_on_ray_finds_what_one_process_finds(values, tmp_path):
    inline = {**values, "cluster": {**values["cluster"], "address": "inline"}}
    ours, theirs = (
        [{**trial, "seconds": 0} for trial in (run(given, tmp_path / name).location / "trials.json").read_json()]
        for name, given in (("inline", inline), ("ray", values))
    )
    assert ours == theirs, "one after the other or two at once: the first trials are drawn before any is over"


IMPOSSIBLE = {  # one of the four pairs: 20 images do not fill batches of 40
    "synthesis.method.batch_size": {"choice": [20, 40]}, "synthesis.images_per_shard": {"choice": [20, 40]},
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"objectives": ["diversity", "domain_gap"]},
        {"objectives": ["domain_gap"], "pruning": {"min_rounds": 1, "reduction_factor": 2}},
    ],
    ids=["two-objectives", "pruning"],
)
def test_a_grid_with_a_setting_that_cannot_be(values, tmp_path, changes):
    fixed = {"synthesis.num_shards": 1}
    values["synthesis"]["images_per_shard"] = 40
    outcome = run(values, tmp_path, settings=IMPOSSIBLE, sampler="grid", fixed=fixed, **changes)
    trials = (outcome.location / "trials.json").read_json()
    points = {tuple(trial["settings"].values()): trial for trial in trials}  # images, batch
    assert sorted(points) == [(20, 20), (20, 40), (40, 20), (40, 40)]
    assert points[20, 40]["state"] == "fail"
    assert "do not go together" in points[20, 40]["error"]
    assert {trial["state"] for pair, trial in points.items() if pair != (20, 40)} <= {"complete", "pruned"}
    for number in outcome.summary["pareto_front"]:
        assert trials[number]["state"] == "complete"
    page = (outcome.location / "sweep.html").read_bytes().decode()
    assert ("Pareto front" in page) == ("pruning" not in changes)
    assert "fail: These settings do not go together" in page


def test_pruned_trials_end_between_the_rounds_of_a_shard(values, tmp_path):
    outcome = run(
        values, tmp_path, settings=COEFFICIENT, sampler="random", objectives=["domain_gap"], trials=5, concurrency=1,
        fixed={"synthesis.num_shards": 2, "synthesis.method.rounds": 3}, pruning={"min_rounds": 1, "reduction_factor": 2},
    )  # fmt: skip
    trials = study(outcome).trials
    states = [trial.state.name for trial in trials]
    assert states.count("PRUNED") >= 1
    assert states.count("COMPLETE") + states.count("PRUNED") == 5
    rungs = [1, 2, 4, 6]  # the last one is the end
    for trial in trials:
        reached = trial.user_attrs["rounds"]
        assert list(trial.intermediate_values) == rungs[: rungs.index(reached) + 1]
        assert (reached == 6) == (trial.state.name == "COMPLETE")
        shards = list((outcome.location / f"trial-{trial.number:05d}").file_names())
        assert sum(name.endswith(".parquet") for name in shards) == reached // 3
    assert "pruned after" in (outcome.location / "sweep.html").read_bytes().decode()


def test_a_sweep_in_parts_is_the_sweep_as_a_whole(values, tmp_path):
    def trials_of(folder, *parts):
        for trials in parts:
            outcome = run(
                values, tmp_path / folder, settings=COEFFICIENT, objectives=["domain_gap"], trials=trials,
                fixed={"synthesis.num_shards": 1}, pruning={"min_rounds": 1, "reduction_factor": 2}, concurrency=1,
            )  # fmt: skip
        return [(trial.params, trial.state.name, trial.intermediate_values) for trial in study(outcome).trials]

    whole = trials_of("whole", 7)
    assert len({json.dumps(params) for params, _, _ in whole}) == 7
    states = [state for _, state, _ in whole]
    assert set(states) == {"COMPLETE", "PRUNED"}
    # The first trial of the second command is pruned by those of the first.
    assert trials_of("in-parts", states.index("PRUNED"), 7) == whole


@pytest.fixture(scope="module")
def found_undisturbed():
    return {}


@pytest.fixture
def undisturbed(found_undisturbed, address, tmp_path):
    """Return a function that gives what a sweep ends with on this executor, which is found out once."""

    def find(sweep_in):
        if address not in found_undisturbed:
            found_undisturbed[address] = sweep_in(tmp_path / "whole")
        return found_undisturbed[address]

    return find


@pytest.mark.parametrize(
    "moment",
    [
        "asked",
        "decided",
        pytest.param("proposed", marks=pytest.mark.slow),
        pytest.param("in the next shard", marks=pytest.mark.slow),
        pytest.param("finished", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_that_was_killed_ends_as_the_undisturbed_one(values, undisturbed, tmp_path, moment):
    settings = {
        "settings": COEFFICIENT, "objectives": ["domain_gap"], "sampler": "random", "concurrency": 1,
        "fixed": {"synthesis.num_shards": 2, "synthesis.method.rounds": 2}, "pruning": {"min_rounds": 1, "reduction_factor": 3},
    }  # fmt: skip

    def trials_of(outcome):
        return [(trial.params, trial.state.name, trial.intermediate_values) for trial in study(outcome).trials]

    whole = undisturbed(lambda folder: trials_of(run(values, folder, trials=6, **settings)))
    pruned = next(number for number, (_, state, _) in enumerate(whole) if state == "PRUNED")
    last = pruned if moment == "decided" else 0  # the trial that the killed command was at
    outcome = run(values, tmp_path / "killed", trials=last + 1, **settings)
    assert trials_of(outcome) == whole[: last + 1]

    # What the study and the folder are at that moment: Optuna's own storage takes no finished trial back.
    folder = Path(outcome.location.path)
    keep = {"proposed": 0, "asked": 0, "in the next shard": 2, "decided": 4, "finished": 3}[
        moment
    ]  # below so many rounds
    with sqlite3.connect(folder / "study.db") as database:
        (trial_id,) = database.execute("SELECT trial_id FROM trials WHERE number = ?", (last,)).fetchone()
        database.execute(
            "UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE trial_id = ?", (trial_id,)
        )
        database.execute("DELETE FROM trial_values WHERE trial_id = ?", (trial_id,))
        database.execute("DELETE FROM trial_intermediate_values WHERE trial_id = ? AND step > ?", (trial_id, keep))
        if moment == "asked":  # not even its settings are there
            database.execute("DELETE FROM trial_params WHERE trial_id = ?", (trial_id,))
    trial = folder / f"trial-{last:05d}"
    if moment != "finished":
        (trial / "result.json").unlink(missing_ok=True)
        (trial / "shard-00001.parquet").unlink(missing_ok=True)
    if moment in ("proposed", "asked"):
        (trial / "shard-00000.parquet").unlink()
    (folder / "done.json").unlink()

    assert trials_of(run(values, tmp_path / "killed", trials=6, **settings)) == whole


@pytest.mark.slow
def test_a_trial_whose_process_keeps_dying_is_gone_on_with_by_the_next_command(ray_cluster, tiny_values, tmp_path):
    settings = {"settings": COEFFICIENT, "objectives": ["domain_gap"], "concurrency": 1, "trials": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfnas_ray.execution.ray.sweep._trial", lambda *given, **shared: os._exit(1))
        once = {**tiny_values(), "cluster": {**tiny_values()["cluster"], "synthesis": {"attempts": 1}}}
        with pytest.raises(DfnasError, match=r"2 of the sweep's trials failed 1 times.*run the same command again"):
            run(once, tmp_path, **settings)
    outcome = run(tiny_values(), tmp_path, **settings)
    assert [(trial.number, trial.state.name) for trial in study(outcome).trials] == [(0, "COMPLETE"), (1, "COMPLETE")]


def test_a_command_without_a_sweep_section_shows_one(dfnas, tiny_yaml):
    code, _, text = dfnas("sweep", tiny_yaml)
    assert code == 2
    assert "The experiment has no sweep section" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("command", ["synthesize", "sweep"])
def test_settings_of_a_search_stop_nothing_that_does_not_search(dfnas, tiny_yaml, tmp_path, command):
    sweep_settings = f"sweep={{settings: {{{WEIGHT}: {{choice: [1, 2]}}}}, trials: 1, objectives: [semantics]}}"
    arguments = ["--address", "inline", "--set", "search.max_macs=2", "--set", sweep_settings]
    code, out, err = dfnas(command, tiny_yaml, "--run-dir", tmp_path / "run", *arguments, "--json")
    assert code == 0, err
    assert list(json.loads(out)["stages"]) == ["synthesis" if command == "synthesize" else "sweep"]
    code, _, err = dfnas("search", tiny_yaml, "--run-dir", tmp_path / "run", *arguments)
    assert (code, "search.max_macs (2) is below the smallest architecture" in err) == (2, True)
