"""The whole path, with a teacher of 4 channels and 120 images; in one process where nothing is about Ray."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ClusterError, DfnasError
from dfnas_ray.library import report
from dfnas_ray.storage.shards import SyntheticImages
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.retraining import History
from dfnas_ray.workflow.session import Session

pytestmark = pytest.mark.timeout(240)

ALWAYS_WRITTEN = {"run.log", "experiment.yaml", "latest.json", "teacher.json", "report.html", "model-card.md", ".lock"}


@pytest.fixture
def inline_copy(tiny_inline_run, tiny_experiment, tmp_path):
    """A copy of the finished run, and a function that makes the experiment in it, in one process, with other settings."""
    folder = shutil.copytree(tiny_inline_run.folder, tmp_path / "run")
    return folder, lambda *overrides: tiny_experiment(folder, "cluster.address=inline", *overrides)


def where(outcome) -> Path:
    return Path(outcome.location.path)


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.parquet"))}


def test_the_manifest_lists_every_shard_with_its_rows(tiny_inline_run):
    folder = where(tiny_inline_run.outcomes["synthesis"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [(entry["file"], entry["rows"]) for entry in manifest["shards"]] == [
        ("shard-00000.parquet", 40),
        ("shard-00001.parquet", 40),
        ("shard-00002.parquet", 40),
    ]
    assert [entry["bytes"] for entry in manifest["shards"]] == [len(data) for data in shard_bytes(folder).values()]


def test_the_shards_are_parquet_with_all_rounds_of_all_images(tiny_inline_run):
    table = pq.read_table(sorted(where(tiny_inline_run.outcomes["synthesis"]).glob("*.parquet")))
    assert table.num_rows == 3 * 20 * 2
    assert table.column_names[:4] == ["image", "label", "round", "logits"]
    assert np.bincount(table["round"].to_numpy()).tolist() == [60, 60]
    assert np.bincount(table["label"].to_numpy()).tolist() == [12] * 10  # balanced: 60 slots, twice


def test_stored_logits_are_the_teachers_on_the_stored_centres(tiny_inline_run):
    table = pq.read_table(where(tiny_inline_run.outcomes["synthesis"]) / "shard-00001.parquet")
    canvases = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()])
    assert canvases.shape == (40, 18, 18)  # a margin of 2 around 16x16
    teacher = tiny_inline_run.session.teacher
    pixels = torch.from_numpy(canvases[:, None, 1:17, 1:17].astype(np.float32)) / 255
    with torch.no_grad():
        expected = teacher.model((pixels - teacher.mean[0]) / teacher.std[0])
    assert torch.allclose(torch.tensor(table["logits"].to_pylist()), expected, atol=1e-4)


def test_the_search_finds_an_architecture_of_the_space(tiny_inline_run):
    summary = tiny_inline_run.outcomes["search"].summary
    assert len(summary["genotype"]) == 2
    assert set(summary["genotype"]) <= set("012")
    assert {trial["seed"] for trial in summary["trials"]} == {0, 1}
    assert summary["score"] == max(trial["score"] for trial in summary["trials"])


def test_the_trained_network_is_exported_as_weights_and_as_a_program(tiny_inline_run):
    for name in ("retraining", "baseline"):
        outcome = tiny_inline_run.outcomes[name]
        space = tiny_inline_run.session.spaces[0]
        network = space.build(space.decode(outcome.summary["genotype"]))
        network.load_state_dict(load_file(where(outcome) / "weights.safetensors"))
        program = torch.export.load(where(outcome) / "network.pt2").module()
        images = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = network.eval()(tiny_inline_run.session.teacher.normalize(images))
            assert torch.allclose(program(images), expected, atol=1e-5)
        assert len(json.loads((where(outcome) / "history.json").read_text())) == 2  # epochs
    assert (
        tiny_inline_run.outcomes["baseline"].summary["genotype"]
        != tiny_inline_run.outcomes["retraining"].summary["genotype"]
    )


def test_the_evaluation_compares_teacher_search_and_baseline_on_the_test_images(tiny_inline_run):
    summary = tiny_inline_run.outcomes["evaluation"].summary
    assert set(summary["networks"]) == {"teacher", "retraining", "baseline"}
    assert summary["images"] == 540
    assert all(0 <= row["accuracy"] <= 1 for row in summary["networks"].values())
    assert summary["networks"]["teacher"]["accuracy"] > 0.2  # three epochs: far above the 0.1 of guessing


def test_the_report_is_one_page_that_names_the_result(tiny_inline_run):
    page = (tiny_inline_run.folder / "report.html").read_text()
    assert tiny_inline_run.outcomes["search"].summary["genotype"] in page


def test_a_second_run_does_nothing_again(tiny_inline_run, recorder):
    def times() -> dict[str, int]:
        files = (
            file for file in tiny_inline_run.folder.rglob("*") if file.is_file() and file.name not in ALWAYS_WRITTEN
        )
        return {str(file): file.stat().st_mtime_ns for file in files}

    before = times()
    with Session(tiny_inline_run.config, recorder).opened() as session:
        outcomes = order.run(session)
    assert {name: outcome.reused for name, outcome in outcomes.items()} == dict.fromkeys(tiny_inline_run.outcomes, True)
    assert {name: outcome.summary for name, outcome in outcomes.items()} == {
        name: outcome.summary for name, outcome in tiny_inline_run.outcomes.items()
    }
    assert times() == before
    assert recorder.said == []


@pytest.mark.ray
@pytest.mark.slow
def test_one_actor_and_two_actors_give_the_same_bytes_and_the_same_genotype(tiny_run, tiny_experiment, tmp_path):
    for name in ("teacher", "search"):
        shutil.copytree(tiny_run.folder / name, tmp_path / name)
    with Session(tiny_experiment(tmp_path, "cluster.synthesis.actors=1")).opened() as session:
        synthesis, search = order.synthesize(session), order.search(session)
    assert (tiny_run.outcomes["synthesis"].summary["actors"], synthesis.summary["actors"]) == (2, 1)
    assert shard_bytes(where(synthesis)) == shard_bytes(where(tiny_run.outcomes["synthesis"]))
    assert search.reused, "actors are no input of a result"


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_a_cell_one_of_whose_operations_learns_nothing(tiny_run, tiny_experiment, tmp_path):
    run_dir = shutil.copytree(tiny_run.folder, tmp_path / "run")
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|nor_conv_3x3~0|none~1|nor_conv_3x3~2|"
    space = "search.space={kind: nasbench201, channels: 4, cells_per_stage: 1}"
    config = tiny_experiment(run_dir, space, "retraining.num_workers=2", "retraining.baseline=false")
    with Session(config).opened() as session:
        (outcome,) = order.retrain(session, cell)
    assert len(History.read(outcome.location)) == config.retraining.epochs


@pytest.mark.ray
def test_the_driver_measures_the_images_without_holding_them(tiny_run, tiny_experiment, tmp_path, monkeypatch):
    run_dir = shutil.copytree(tiny_run.folder, tmp_path / "run")
    folder = run_dir / "synthesis" / tiny_run.outcomes["synthesis"].location.name
    before = json.loads((folder / "quality.json").read_text())
    for name in ("done.json", "quality.json"):
        (folder / name).unlink()

    def refuse(parts):
        raise AssertionError("the whole set is in the driver")

    monkeypatch.setattr(SyntheticImages, "concatenate", refuse)  # of this process alone: workers import their own
    with Session(tiny_experiment(run_dir)).opened() as session:
        outcome = order.synthesize(session)
    assert (outcome.summary["images"], outcome.summary["made_now"]) == (120, 0)
    assert json.loads((folder / "quality.json").read_text()) == before


def test_a_truncated_shard_is_named_and_replaced_by_the_same_bytes(inline_copy, recorder):
    run_dir, make = inline_copy
    (folder,) = run_dir.glob("synthesis/*")
    intact = shard_bytes(folder)
    damaged = folder / "shard-00001.parquet"
    damaged.write_bytes(intact[damaged.name][:-100])
    others = {file: file.stat().st_mtime_ns for file in folder.glob("*.parquet") if file != damaged}
    with Session(make(), recorder).opened() as session:
        outcome = order.synthesize(session)
    assert any("shard-00001.parquet" in message for message in recorder.said)
    assert not outcome.reused
    assert outcome.summary["made_now"] == 1
    assert shard_bytes(folder) == intact
    assert {file: file.stat().st_mtime_ns for file in others} == others


@pytest.mark.parametrize("content", [None, b"", b"null", b'{"key": "k", "shards": [{"file": "../../x.parquet"}]}'])
def test_a_manifest_that_is_lost_or_altered_is_written_again_from_the_shards(inline_copy, recorder, content):
    run_dir, make = inline_copy
    (manifest,) = run_dir.glob("synthesis/*/manifest.json")
    before = manifest.read_bytes()
    manifest.unlink() if content is None else manifest.write_bytes(content)
    with Session(make(), recorder).opened() as session:
        outcome = order.synthesize(session)
    assert any("manifest.json is written again" in message for message in recorder.said)
    assert (outcome.reused, outcome.summary["made_now"]) == (False, 0)
    assert manifest.read_bytes() == before


def test_a_changed_search_setting_searches_again_within_it_on_the_same_images(inline_copy, recorder):
    _, make = inline_copy
    space = Session(make()).spaces[0]
    limit = space.cost(space.decode("10")).macs
    assert limit < space.cost(space.decode("22")).macs  # the limit does exclude something
    changed = make("search.algorithm.epochs=1", "search.seeds=[0]", f"search.max_macs={limit}")
    with Session(changed, recorder).opened() as session:
        search = order.search(session)
        synthesis = order.synthesize(session)
    assert (synthesis.reused, search.reused) == (True, False)
    said = " ".join(recorder.said)
    for change in (
        "search.algorithm.epochs: 2 -> 1",
        "search.seeds: [0, 1] -> [0]",
        f"search.max_macs: None -> {limit}",
    ):
        assert change in said
    assert space.cost(space.decode(search.summary["genotype"])).macs == search.summary["macs"] <= limit


def test_a_grid_of_algorithms_is_compared_and_the_best_is_chosen(inline_copy, recorder):
    _, make = inline_copy
    random_search = "{kind: random_search, candidates: 2, round_size: 1, epochs: 1, batch_size: 16}"
    darts = "{kind: darts, epochs: 2, batch_size: 16}"
    grid = make(f"search.algorithm=[{random_search}, {darts}]", "search.seeds=[0]", "search.selection.epochs=1")
    with Session(grid, recorder).opened() as session:
        search = order.search(session)
        page = report(session)
    trials = json.loads((where(search) / "trials.json").read_text())
    assert [trial["trial"] for trial in trials] == [
        "random_search-nasbench_macro-seed-0",
        "darts-nasbench_macro-seed-0",
    ]
    found = {trial["genotype"] for trial in trials}
    if len(found) > 1:  # else there is nothing to compare
        best = max(trials, key=lambda trial: trial["score"])
        assert (search.summary["trial"], search.summary["genotype"]) == (best["trial"], best["genotype"])
    page = page.read_bytes().decode()
    assert all(trial["trial"] in page for trial in trials)
    with Session(grid, recorder).opened() as session:
        assert order.search(session).reused


@pytest.mark.parametrize("name", ["weights.safetensors", "network.json", "history.json"])
@pytest.mark.parametrize("content", [None, b"", b"null"])
def test_a_network_with_a_lost_or_altered_file_is_named_and_made_anew(inline_copy, recorder, name, content):
    run_dir, make = inline_copy
    (file,) = run_dir.glob(f"retraining/*/{name}")
    before = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    with Session(make(), recorder).opened() as session:
        outcomes = order.run(session)
    assert any(str(file) in message and "\n" not in message for message in recorder.said)
    assert [stage for stage, outcome in outcomes.items() if not outcome.reused] == ["retraining"]
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"", b"null", b"[{}]"])
def test_lost_or_altered_trials_are_named_and_described_again(inline_copy, recorder, content):
    run_dir, make = inline_copy
    (file,) = run_dir.glob("search/*/trials.json")
    before = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    with Session(make(), recorder).opened() as session:
        outcome = order.search(session)
    assert any(str(file) in message for message in recorder.said)
    assert (outcome.reused, file.read_bytes()) == (False, before)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", {"macs": -1}, {"history": [{}]}, {"finalists": []}])
def test_an_altered_result_is_named_and_that_trial_is_run_again(inline_copy, recorder, content):
    run_dir, make = inline_copy
    altered, other = sorted(run_dir.glob("search/*/*/result.json"))
    before, (comparison,) = altered.read_bytes(), run_dir.glob("search/*/comparison.json")
    compared = comparison.read_bytes()
    comparison.write_bytes(b"null")
    (altered.parents[1] / "done.json").unlink()
    if isinstance(content, dict):
        content = json.dumps({**json.loads(before), **content}).encode()
    altered.write_bytes(content)
    written = other.stat().st_mtime_ns
    with Session(make(), recorder).opened() as session:
        order.search(session)
    for file in (altered, comparison):
        assert sum(str(file) in message for message in recorder.said) == 1
    assert altered.read_bytes() == before
    assert comparison.read_bytes() == compared
    assert other.stat().st_mtime_ns == written


def diverged_search(inline_copy, trained=()):
    """Architectures found, and a session that is to choose among them; only those ``trained`` have a score."""
    folder, make = inline_copy
    (done,) = folder.glob("search/*/done.json")
    done.unlink()
    comparison = done.with_name("comparison.json")
    names = list(json.loads(comparison.read_text()))
    comparison.write_text(json.dumps({name: -3.0 if n in trained else float("nan") for n, name in enumerate(names)}))
    return names, Session(make())


@pytest.mark.parametrize("trained", [0, 1])
def test_a_finalist_whose_training_diverged_is_not_chosen(inline_copy, trained):
    names, session = diverged_search(inline_copy, [trained])
    with session.opened():
        found = order.search(session).summary
    assert f" {found['genotype']} " in names[trained]
    assert found["score"] == -3.0


def test_a_search_whose_finalists_all_diverged_says_so(inline_copy):
    _, session = diverged_search(inline_copy)
    words = r"all \d finalists diverged.*search\.selection\.optimizer\.lr"
    with pytest.raises(DfnasError, match=words), session.opened():
        order.search(session)


def test_other_real_images_at_the_same_place_are_evaluated_anew(tiny_inline_run, tmp_path):
    folder = shutil.copytree(tiny_inline_run.folder, tmp_path / "run")
    for name in range(10):
        (tmp_path / "images" / str(name)).mkdir(parents=True)
        Image.new("L", (16, 16), 20 * name).save(tmp_path / "images" / str(name) / "0.png")
    dataset = {"kind": "image_folder", "path": str(tmp_path / "images")}
    values = {
        **tiny_inline_run.config.model_dump(mode="json"),
        "run_dir": str(folder),
        "evaluation": {"dataset": dataset},
    }

    def evaluated():
        with Session(make_experiment(values)).opened() as session:
            outcome = order.evaluate(session)
            assert session._executor is None, "nothing but the evaluation was done"
        return outcome.summary["images"], outcome.reused

    assert evaluated() == (10, False)
    assert evaluated() == (10, True)
    Image.new("L", (16, 16), 99).save(tmp_path / "images" / "3" / "1.png")
    assert evaluated() == (11, False)


@pytest.mark.ray
@pytest.mark.parametrize("change", [("search", "algorithm", "epochs"), ("retraining", "epochs")])
def test_a_command_that_cannot_begin_leaves_the_last_good_run_recorded(tiny_inline_run, tmp_path, change, monkeypatch):
    folder = shutil.copytree(tiny_inline_run.folder, tmp_path / "run")
    before = {name: (folder / name).read_bytes() for name in ("experiment.yaml", "latest.json")}
    values = tiny_inline_run.config.model_dump(mode="json")
    section = values
    for name in change[:-1]:
        section = section[name]
    section[change[-1]] = 99
    values |= {"run_dir": str(folder), "cluster": {"address": "127.0.0.1:1"}}
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have connected this process
    with (
        pytest.raises(ClusterError, match=r"127\.0\.0\.1:1"),
        Session(make_experiment(values)).opened() as session,
    ):
        order.run(session)
    assert {name: (folder / name).read_bytes() for name in before} == before
