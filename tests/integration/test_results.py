"""What leaves a run directory: the network and the images, for Python and for other tools, with what classes are called."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import dfnas_ray
from dfnas_ray.errors import ConfigError, DatasetError, StorageError
from dfnas_ray.storage.shards import decode_shard, read_info
from dfnas_ray.workflow import run as order
from dfnas_ray.workflow.session import Session

pytestmark = pytest.mark.timeout(240)

DIGITS = tuple("0123456789")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture
def copy(tiny_inline_run, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(tiny_inline_run.folder, tmp_path / "run")


@pytest.fixture
def config(tiny_experiment, copy):
    """The experiment of the copy, with other settings."""
    return lambda *overrides: tiny_experiment(copy, "cluster.address=inline", *overrides)


def only(folder, pattern) -> Path:
    (file,) = folder.glob(pattern)
    return file


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def program_of(folder):
    return torch.export.load(only(folder, "network.pt2")).module()


# The network


def test_the_network_of_a_run_is_loaded_with_its_preprocessing(tiny_inline_run):
    before = contents(tiny_inline_run.folder)
    network = dfnas_ray.load_network(tiny_inline_run.folder)
    assert not any(module.training for module in network.modules())
    assert network.class_names == DIGITS
    assert network.architecture.text == tiny_inline_run.outcomes["retraining"].record.genotype
    images = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = network.network(tiny_inline_run.session.teacher.normalize(images))
        assert torch.allclose(network(images), expected, atol=1e-5)
        assert torch.allclose(network(images / 255), expected, atol=1e-5)
    assert contents(tiny_inline_run.folder) == before


def test_the_random_network_is_another_one(tiny_inline_run):
    random = dfnas_ray.load_network(tiny_inline_run.folder, "random")
    assert random.architecture.text == tiny_inline_run.outcomes["baseline"].record.genotype
    with pytest.raises(ConfigError, match=r"which \('best'\) must be searched or random"):
        dfnas_ray.load_network(tiny_inline_run.folder, "best")


def test_a_stored_canvas_goes_through_network_and_program_alike(tiny_inline_run):
    canvases = torch.from_numpy(dfnas_ray.load_images(tiny_inline_run.folder).data.images[:20])
    assert canvases.shape == (20, 1, 18, 18)
    network = dfnas_ray.load_network(tiny_inline_run.folder)
    program = program_of(Path(tiny_inline_run.outcomes["retraining"].location.path))
    with torch.no_grad():
        assert torch.allclose(program(canvases), network(canvases), atol=1e-5)
        assert torch.equal(network(canvases), network(canvases[:, :, 1:17, 1:17]))
    with pytest.raises(ConfigError, match="takes a batch of 1 x 16 x 16 to 1 x 18 x 18"):
        network(torch.zeros(1, 1, 28, 28))


def test_a_picture_is_prepared_as_for_the_evaluation(tiny_inline_run, tmp_path):
    network = dfnas_ray.load_network(tiny_inline_run.folder)
    picture = Image.fromarray(np.arange(40 * 60, dtype=np.uint8).reshape(40, 60))
    picture.save(tmp_path / "picture.png")
    prepared = network.prepare(tmp_path / "picture.png")
    assert (prepared.shape, prepared.dtype) == ((1, 1, 16, 16), torch.uint8)
    assert torch.equal(prepared, network.prepare(picture))
    assert network(prepared).shape == (1, 10)
    (tmp_path / "no.png").write_bytes(b"<svg/>")
    with pytest.raises(ConfigError, match=r"no\.png cannot be read: it is damaged or none of"):
        network.prepare(tmp_path / "no.png")
    with pytest.raises(DatasetError, match="The picture: "):
        network.prepare(Image.new("RGB", (20, 20), (255, 0, 0)))


@pytest.mark.parametrize("name", ["weights.safetensors", "network.json"])
def test_a_network_that_was_altered_is_not_loaded_and_nothing_is_removed(copy, name):
    file = only(copy, f"retraining/*/{name}")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))
    before = contents(copy)
    with pytest.raises(StorageError, match=rf"{name} was altered or lost since it was made"):
        dfnas_ray.load_network(copy)
    assert contents(copy) == before


def test_weights_of_another_network_are_refused_without_digests_too(copy):
    only(copy, "retraining/*/digests.json").unlink()
    file = only(copy, "retraining/*/weights.safetensors")
    file.write_bytes(only(copy, "baseline/*/weights.safetensors").read_bytes())
    with pytest.raises(StorageError, match=r"weights\.safetensors is not the one that .*network\.json describes"):
        dfnas_ray.load_network(copy)


def test_where_no_network_is_trained_an_error_says_what_to_run(copy, tmp_path):
    only(copy, "retraining/*/done.json").unlink()
    for place in (copy, tmp_path / "nowhere"):
        with pytest.raises(StorageError, match=rf"{place} holds no trained network\. Run `dfnas run FILE"):
            dfnas_ray.load_network(place)


# What it says of itself


def as_an_older_version_left_it(folder):
    """Take away what older versions did not write into a network's folder."""
    description = json.loads((folder / "network.json").read_text())
    known = ("space", "genotype", "image_shape", "num_classes", "mean", "std")
    (folder / "network.json").write_text(json.dumps({name: description[name] for name in known}))
    (folder / "network.pt2").write_bytes(b"of an older version")
    (folder / "digests.json").unlink()


def test_a_network_of_an_older_version_is_loaded_and_its_program_is_written_again(copy, config, recorder):
    folders = [only(copy, f"{name}/*") for name in ("retraining", "baseline")]
    expected = [(folder / "network.pt2").read_bytes() for folder in folders]
    for folder in folders:
        as_an_older_version_left_it(folder)
    network = dfnas_ray.load_network(copy)
    assert network.class_names is None
    assert network(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    outcomes = dfnas_ray.run(config(), recorder)
    assert all(outcome.reused for outcome in outcomes.values())
    assert [line for line in recorder.said if "written again" in line] == [
        f"{name}: network.pt2 and network.json are written again; the weights stay."
        for name in ("retraining", "baseline")
    ]
    assert [(folder / "network.pt2").read_bytes() for folder in folders] == expected
    assert dfnas_ray.load_network(copy).class_names == DIGITS


def test_other_class_names_are_written_into_the_network_and_nothing_is_trained(copy, config, recorder):
    names = config(f"teacher.class_names=[{', '.join(NAMES)}]")
    weights = only(copy, "retraining/*/weights.safetensors")
    before = weights.stat().st_mtime_ns
    outcomes = dfnas_ray.run(names, recorder)
    assert all(outcome.reused for outcome in outcomes.values())
    assert weights.stat().st_mtime_ns == before
    assert dfnas_ray.load_network(copy).class_names == NAMES
    extra = {"dfnas.json": ""}
    torch.export.load(only(copy, "retraining/*/network.pt2"), extra_files=extra)
    assert json.loads(extra["dfnas.json"])["class_names"] == list(NAMES)
    for page in ("report.html", "model-card.md"):
        assert all(name in (copy / page).read_text() for name in NAMES)
    said = len(recorder.said)
    dfnas_ray.run(names, recorder)
    assert len(recorder.said) == said, "once is enough"


def test_another_crop_is_written_into_the_network_and_only_real_images_are_looked_at_again(copy, config, export):
    outcomes = dfnas_ray.run(config("teacher.crop=1"))
    assert [name for name, outcome in outcomes.items() if not outcome.reused] == ["evaluation"]
    assert dfnas_ray.load_network(copy).resizing.crop == 1
    code, _, err = export("--set", "teacher.crop=0.5")
    assert code == 0, err
    assert dfnas_ray.load_network(copy / "export").resizing.crop == 0.5


def test_a_command_that_is_broken_off_while_it_writes_names_trains_nothing_again(copy, config, recorder, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dfnas_ray.workflow.retraining.write_network", stop)
        with pytest.raises(KeyboardInterrupt):
            dfnas_ray.run(config(f"teacher.class_names=[{', '.join(NAMES)}]"))
    outcomes = dfnas_ray.run(config(f"teacher.class_names=[{', '.join(NAMES)}]"), recorder)
    assert all(outcome.reused for outcome in outcomes.values())
    assert dfnas_ray.load_network(copy).class_names == NAMES


def test_a_network_that_cannot_be_exported_is_kept_and_the_command_says_so(copy, config, recorder, monkeypatch):
    from dfnas_ray.errors import ExportError

    def refuse(*_, **__):
        raise ExportError("The network cannot be exported: why not.")

    only(copy, "retraining/*/done.json").unlink()
    monkeypatch.setattr("dfnas_ray.training.export.to_pt2", refuse)
    with Session(config(), recorder).opened() as session:
        order.retrain(session)
    assert "retraining: there is no network.pt2. The network cannot be exported: why not." in recorder.said
    assert dfnas_ray.load_network(copy).class_names == DIGITS


# Single classes


def test_the_evaluation_counts_every_class(tiny_inline_run):
    record = tiny_inline_run.outcomes["evaluation"].record
    assert sum(record.images_of_class) == 540
    for network in record.networks.values():
        assert sum(network.correct) / 540 == pytest.approx(network.accuracy)
    folder = Path(tiny_inline_run.outcomes["evaluation"].location.path)
    table = pq.read_table(folder / "confusion.parquet").to_pandas()
    for name, network in record.networks.items():
        of_network = table[table["network"] == name]
        assert of_network["images"].sum() == 540
        assert of_network[of_network["label"] == of_network["named"]]["images"].sum() == sum(network.correct)
    assert set(table["label_name"]) == set(DIGITS)


def test_other_class_counts_than_the_accuracy_are_an_altered_record(copy, config, recorder):
    file = only(copy, "evaluation/*/done.json")
    record = json.loads(file.read_text())
    record["networks"]["teacher"]["correct"][0] = 10_000
    file.write_text(json.dumps(record))
    with Session(config(), recorder).opened() as session:
        assert not order.evaluate(session).reused
    assert any("networks.teacher.correct does not fit images_of_class" in line for line in recorder.said)


# The command


@pytest.fixture
def export(dfnas, tiny_yaml, copy):
    """Return a function that runs `dfnas export` on the copy."""
    return lambda *arguments: dfnas("export", tiny_yaml, "--run-dir", copy, *arguments)


def test_a_folder_that_is_exported_needs_no_run_directory(export, copy, tmp_path):
    code, out, err = export("--format", "pt2", "--format", "safetensors", "--out", tmp_path / "out")
    assert code == 0, err
    names = {"network.pt2", "weights.safetensors", "network.json", "model-card.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert all(name in out for name in names)
    network = dfnas_ray.load_network(copy)
    shutil.rmtree(copy)
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    moved = shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    with torch.no_grad():
        assert torch.equal(dfnas_ray.load_network(moved)(images), network(images))
        assert torch.allclose(program_of(moved)(images), network(images), atol=1e-5)
    card = (moved / "model-card.md").read_text()
    assert 'load_network("out")' in card


@pytest.mark.slow
def test_by_default_everything_is_exported_that_can_be(export, copy):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    code, _, err = export("--input", "float32", "--network", "random")
    assert code == 0, err
    names = {path.name for path in (copy / "export").iterdir()}
    assert names == {"network.onnx", "network.pt2", "weights.safetensors", "network.json"}, "no card of another network"
    session = onnxruntime.InferenceSession(copy / "export" / "network.onnx")
    images = torch.rand(3, 1, 18, 18)
    network = dfnas_ray.load_network(copy, "random")
    with torch.no_grad():
        (found,) = session.run(None, {"images": images.numpy()})
        assert np.allclose(found, network(images), atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list(DIGITS)


def test_without_the_extra_onnx_is_left_out_with_a_word_and_so_are_files_of_another_network(export, copy, monkeypatch):
    (copy / "export").mkdir()
    for name in ("network.json", "weights.safetensors"):
        shutil.copy(only(copy, f"baseline/*/{name}"), copy / "export")
    (copy / "export" / "network.onnx").write_bytes(b"of the random network")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, out, err = export("--set", f"teacher.class_names=[{', '.join(NAMES)}]")
    assert code == 0, err
    assert "network.onnx is left out. ONNX needs onnxscript" in err
    assert "network.onnx" not in out
    assert not (copy / "export" / "network.onnx").exists(), "it was of another network"
    assert dfnas_ray.load_network(copy / "export").class_names == NAMES


ONNX = ("--format", "onnx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (ONNX, r"ONNX needs onnxscript.*pip install -e '\.\[onnx\]'"),
        (("--set", "teacher.class_names=[a, b]"), r"teacher\.class_names names 2 classes, and the teacher has 10"),
        (("--format", "tflite"), "'tflite' is not one of"),
        (("--out", "nowhere://x"), r"--out nowhere://x cannot be opened"),
    ],
)
def test_what_cannot_be_exported_is_one_error_and_nothing_is_written(export, copy, monkeypatch, arguments, words):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    before = contents(copy)
    code, _, err = export(*arguments)
    assert code == 2
    assert re.search(words, err), err
    assert contents(copy) == before


def test_an_unfinished_run_is_not_exported(export, copy):
    only(copy, "retraining/*/done.json").unlink()
    before = contents(copy)
    code, _, err = export()
    assert code == 2
    assert f"{copy} holds no trained network. Run `dfnas run FILE --run-dir {copy}` to its end" in err
    assert contents(copy) == before


# The images


def test_a_data_loader_takes_the_images_cropped_to_what_the_teacher_labelled(tiny_inline_run):
    images = dfnas_ray.load_images(tiny_inline_run.folder)
    assert (len(images), images.image_shape, images.class_names) == (120, (1, 16, 16), DIGITS)
    batch = next(iter(DataLoader(images, batch_size=120)))
    assert (batch.image.shape, batch.image.dtype) == ((120, 1, 16, 16), torch.uint8)
    assert batch.label.bincount().tolist() == [12] * 10
    teacher = tiny_inline_run.session.teacher
    with torch.no_grad():
        assert torch.allclose(teacher.model(teacher.normalize(batch.image)), batch.logits, atol=1e-4)


def test_where_no_images_are_finished_an_error_says_what_to_run(tmp_path):
    with pytest.raises(StorageError, match=r"holds no finished synthetic images\. Run `dfnas synthesize FILE"):
        dfnas_ray.load_images(tmp_path)


def test_hugging_face_datasets_reads_images_and_named_classes(tiny_inline_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    folder = Path(tiny_inline_run.outcomes["synthesis"].location.path)
    files = sorted(str(file) for file in folder.glob("*.parquet"))
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert loaded.features["label"] == datasets.ClassLabel(names=list(DIGITS))
    assert isinstance(loaded.features["image"], datasets.Image)
    own = dfnas_ray.load_images(tiny_inline_run.folder)
    assert len(loaded) == len(own)
    for row in (0, 119):
        assert np.array_equal(np.asarray(loaded[row]["image"]), own.data.images[row, 0])
        assert loaded[row]["label"] == own[row].label
        assert np.allclose(loaded[row]["logits"], own[row].logits)


def as_an_older_version_made_it(data: bytes) -> bytes:
    """Take away what older versions did not write into a shard."""
    import pyarrow as pa

    table = pq.read_table(pa.BufferReader(data))
    metadata = dict(table.schema.metadata)
    about = json.loads(metadata[b"dfnas"])
    del about["image_shape"]
    features = json.loads(metadata[b"huggingface"])
    features["info"]["features"]["label"] = {"dtype": "int64", "_type": "Value"}
    metadata |= {b"dfnas": json.dumps(about).encode(), b"huggingface": json.dumps(features).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return bytes(memoryview(sink.getvalue()))


def test_shards_of_an_older_version_are_read(copy, config):
    from dfnas_ray.storage.location import Location
    from dfnas_ray.storage.shards import sha256

    folder = only(copy, "synthesis/*")
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["shards"]:
        data = as_an_older_version_made_it((folder / entry["file"]).read_bytes())
        (folder / entry["file"]).write_bytes(data)
        entry |= {"bytes": len(data), "sha256": sha256(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    info, images = decode_shard(data, manifest["key"], "here")
    assert (info.image_shape, len(images)) == (None, 40)
    assert read_info(Location.parse(folder) / entry["file"]) == info
    outcomes = dfnas_ray.run(config())
    assert all(outcome.reused for outcome in outcomes.values())
    loaded = dfnas_ray.load_images(copy)  # the run directory says how large an image is
    assert (loaded.image_shape, loaded.class_names) == ((1, 16, 16), None)
    (copy / "teacher.json").unlink()
    with pytest.raises(StorageError, match=r"does not say how large its images are.*Images\.load\(folder, teacher\)"):
        dfnas_ray.load_images(copy)


def test_real_images_in_another_order_than_the_teachers_classes_stop_the_run_before_it_begins(
    tiny_experiment, tmp_path, recorder
):
    folder = tmp_path / "photos"
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(folder / name / "0.png")
    dataset = f"evaluation.dataset={{kind: image_folder, path: {folder}}}"
    names = f"teacher.class_names=[{', '.join(NAMES)}]"
    config = tiny_experiment(tmp_path / "run", "cluster.address=inline", dataset, names)
    with pytest.raises(DatasetError, match=r"same classes in another order: class 0 is eight there, and zero for"):
        dfnas_ray.run(config, recorder)
    assert not (tmp_path / "run" / "synthesis").exists()
