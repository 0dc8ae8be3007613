"""Files of the field, by the command and the library: checkpoints, tables, pictures, modules and settings."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import zipfile
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import dfnas_ray as dfnas
from dfnas_ray.config.experiment import load_experiment, make_experiment
from dfnas_ray.errors import ConfigError, DatasetError, TeacherError
from dfnas_ray.teachers.base import Teacher
from dfnas_ray.teachers.checkpoint import CheckpointTeacherConfig, build_model, load_weights

# Checkpoints


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )


def tied():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False))
    model[2].weight = model[1].weight
    return model


def on_the_meta_device():
    with torch.device("meta"):
        return network()


def wrapped():
    return nn.DataParallel(network(1))


def loaded(path, content, builder="network", weights=None):
    """Return the teacher of a checkpoint with this content."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    config = CheckpointTeacherConfig(
        kind="checkpoint", checkpoint=path, weights=weights, builder=f"{__name__}:{builder}",
        image_shape=(3, 2, 2) if builder == "tied" else (3, 6, 6), mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip
    return config.load(path.parent)


class OfTheUsers:
    def __init__(self):
        self.epoch = 3


def within(name, wrapper):
    first, rest = name.split(".", 1)
    return f"{first}.{wrapper}.{rest}"


WEIGHTS = network().state_dict()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=0.1)},
        {"state_dict": WEIGHTS, "best": np.float64(0.9)},
        {"state_dict": WEIGHTS, "folder": PurePosixPath("/x")},
        {"state_dict": WEIGHTS, "settings": OfTheUsers()},
        {**WEIGHTS, "epoch": 3},
        {within(name, "module"): value for name, value in WEIGHTS.items()},
        {within(name, "_orig_mod") if name[0] == "4" else name: value for name, value in WEIGHTS.items()},
        {f"_fsdp_wrapped_module.{within(n, '_checkpoint_wrapped_module')}": v for n, v in WEIGHTS.items()},
        {name: value.double() if value.is_floating_point() else value for name, value in WEIGHTS.items()},
    ],
    ids=["Namespace", "NumPy number", "path", "own class", "epoch", "parallel", "compiled", "sharded", "float64"],
)
@pytest.mark.parametrize("builder", ["network", "on_the_meta_device", "wrapped"])
def test_weights_are_found_whatever_lies_beside_them_and_wraps_them(tmp_path, content, builder):
    teacher, x = loaded(tmp_path / "x.pt", content, builder), torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(teacher.model(x), network().eval()(x))


def frozen():
    return nn.Sequential(nn.Conv2d(3, 4, 3), FrozenBatchNorm2d(4), *list(network())[2:])


def lazy():
    return nn.Sequential(*list(network())[:4], nn.LazyLinear(3))


def half():
    return network().half()


class Counting(nn.Linear):
    """Keeps something beside its tensors."""

    def get_extra_state(self):
        return {"seen": 7}

    def set_extra_state(self, extra):
        self.seen = extra["seen"]


def counting():
    return nn.Sequential(*list(network())[:4], Counting(4, 3))


@pytest.mark.parametrize("builder", ["frozen", "lazy", "half", "counting"])
def test_whatever_the_network_itself_takes_is_taken(tmp_path, builder):
    extra = {"4._extra_state": {"seen": 7}} if builder == "counting" else {}
    teacher, x = loaded(tmp_path / "x.pt", {**WEIGHTS, **extra}, builder), torch.randn(2, 3, 6, 6)
    close = {"rtol": 1e-2, "atol": 1e-2} if builder == "half" else {}
    torch.testing.assert_close(teacher.model(x), network().eval()(x), **close)
    assert len(teacher.fingerprint) == 64


def test_one_weight_of_two_names_is_stored_once(tmp_path):
    given = {"1.weight": torch.randn(12, 12)}
    save_file(given, tmp_path / "x.safetensors")
    teacher = loaded(tmp_path / "x.pt", (tmp_path / "x.safetensors").read_bytes(), "tied")
    assert torch.equal(teacher.model[2].weight, given["1.weight"])


def zipped(*names):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return buffer.getvalue()


def meta():
    return {name: value.to("meta") for name, value in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {**WEIGHTS, "4.weight": torch.ones(3, 4, dtype=torch.int8)},
            r"has int8 where the network .* float32: 4\.weight",
        ),
        (meta(), r"weights without values \(on the meta device\)"),
        ({f"{side}.{n}": v + i for i, side in enumerate("ab") for n, v in WEIGHTS.items()}, r"begin with a\., b\.\)"),
        (network(), "holds a whole .*Sequential object; loading it would run code"),
        (json.dumps({"metadata": {}, "weight_map": {}}).encode(), "index of a checkpoint in several files"),
        (b"\x08\x08\x12\x07pytorch" + bytes(99), "is an ONNX file"),
        (b"\x1c\0\0\0TFL3" + bytes(99), "is a TensorFlow Lite file"),
        (zipped("a.npy"), "is an archive of NumPy arrays"),
        (zipped("config.json", "model.weights.h5"), "is a Keras model"),
        (zipped("e/archive_format", "e/models/model.json"), r"is a torch\.export archive: a program, which is not run"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "is a Zstandard archive"),
    ],
    ids=[
        "int8",
        "meta",
        "two-sets",
        "module",
        "index",
        "onnx",
        "tflite",
        "npz",
        "keras",
        "pt2",
        "zstd",
    ],  # zips hold the time
)
def test_what_is_not_the_weights_of_this_network_is_told_as_what_it_is(tmp_path, content, said):
    with pytest.raises(TeacherError, match=said):
        loaded(tmp_path / "x.pt", content)


def test_of_two_sets_one_can_be_chosen(tmp_path):
    both = {f"{side}.{n}": v + i for i, side in enumerate("ba") for n, v in WEIGHTS.items() if "num" not in n}
    assert torch.equal(loaded(tmp_path / "x.pt", both, weights="b").model[4].weight, WEIGHTS["4.weight"])


def test_a_missing_name_is_missing_in_every_wrapper():
    given = {within(name, "module"): value for name, value in WEIGHTS.items() if name != "4.bias"}
    with pytest.raises(TeacherError, match=r"missing: .*4\.bias"):
        load_weights(network(), given, "x.pt")


# Modules of builders


BUILD = "\nfrom torch import nn\ndef build():\n    return nn.Linear(2, 2)\n"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (1, "import os; os.chdir('/')", "the working directory"),
        (2, "import torch; torch.set_default_dtype(torch.float64)", "torch's default type of numbers"),
        (3, "import torch; torch.set_grad_enabled(False)", "whether torch computes gradients"),
        (4, "import torch; torch.use_deterministic_algorithms(True)", "torch's deterministic algorithms"),
        (5, "import logging; logging.disable(logging.CRITICAL)", "which messages are logged"),
        (6, "import sys, io; sys.stdout = io.StringIO()", ""),
        (7, "print('Loading')", ""),
        (8, "import warnings; warnings.simplefilter('error')", ""),
        (9, "import random, torch, numpy; random.seed(0); torch.manual_seed(0); numpy.random.seed(0)", ""),
    ],
)
def test_what_a_module_changes_for_all_is_put_back(tmp_path, monkeypatch, capsys, caplog, number, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"field_module_{number}.py").write_text(code + BUILD)

    def state():
        numpy_state = np.random.get_state()[1].tolist()
        return (
            Path.cwd(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_rng_state().tolist(),
            numpy_state,
        )

    before = state()
    build_model(f"field_module_{number}:build", {})
    assert state() == before
    assert said in caplog.text
    sys.stdout.write("a result\n")
    assert capsys.readouterr().out == "a result\n"


# Labels and pictures


class ByBrightness(nn.Module):
    """Says class k for an image of grey level 10 k."""

    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("levels", torch.arange(num_classes) * 10 / 255)

    def forward(self, x):
        return -(x.mean((1, 2, 3))[:, None] - self.levels).abs()


def accuracy(dataset, channels=1, num_classes=3):
    """Return what `dfnas.evaluate` measures of a teacher that is always right."""
    teacher = Teacher.from_model(ByBrightness(num_classes), (channels, 4, 4), (0.0,) * channels, (1.0,) * channels)
    return dfnas.evaluate(teacher, {}, dataset)["teacher"]


def grey(level, mode="L"):
    return Image.new("L", (4, 4), level).convert(mode)


def folder(path, names=("ant", "bee", "cat"), image=lambda k: grey(10 * k), kind="png"):
    for number, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for index in range(2):
            image(number).save(path / name / f"{index}.{kind}")
    return {"kind": "image_folder", "path": str(path)}


def test_folders_are_the_classes_that_people_mean(tmp_path):
    assert accuracy(folder(tmp_path / "a", [str(number) for number in range(11)]), num_classes=11) == 1.0
    lacking = folder(tmp_path / "b", ["ant", "bee", "cat"])
    for file in (tmp_path / "b" / "bee").iterdir():
        file.unlink()
    (tmp_path / "b" / "bee").rmdir()
    with pytest.raises(DatasetError, match=r"has 2 classes \(ant, cat\), and the teacher 3"):
        accuracy(lacking)
    assert accuracy({**lacking, "classes": ["ant", "bee", "cat"]}) == 1.0


def test_a_data_folder_of_hugging_face_is_never_read_as_one_set(tmp_path):
    table(tmp_path / "train-00000-of-00001.parquet", [2, 1, 0])
    table(tmp_path / "test-00000-of-00001.parquet", [0, 1, 2])
    dataset = {"kind": "parquet", "path": str(tmp_path)}
    with pytest.raises(DatasetError, match=r"these splits: test \(1\), train \(1\)"):
        accuracy(dataset)
    assert accuracy({**dataset, "split": "test"}) == 1.0


def test_what_systems_and_editors_put_beside_images_is_no_data(tmp_path):
    dataset = folder(tmp_path)
    folder(tmp_path, [".thumbnails"])
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "ant" / "._0.png").write_bytes(b"\0\5\x16\7")
    folder(tmp_path / "bee", [".cache"])
    assert accuracy(dataset) == 1.0


def test_pictures_are_known_by_their_bytes_and_other_files_are_named(tmp_path, caplog):
    dataset = folder(tmp_path)
    for file in [*(tmp_path / "cat").iterdir()]:
        file.rename(file.with_suffix("" if file.stem == "0" else ".jfif"))
    (tmp_path / "ant" / "notes.txt").write_text("x")
    assert accuracy(dataset) == 1.0
    assert "files that are not images are left out: ant/notes.txt" in caplog.text
    assert accuracy(folder(tmp_path / "gif", kind="gif")) == 1.0


@pytest.mark.parametrize("mode", ["LA", "RGB", "P", "RGBA", "CMYK"])
def test_grey_is_grey_whatever_it_is_stored_as(tmp_path, mode):
    kind = "tif" if mode == "CMYK" else "png"
    image = (lambda k: grey(10 * k, "RGB").convert("CMYK")) if mode == "CMYK" else (lambda k: grey(10 * k, mode))
    assert accuracy(folder(tmp_path, image=image, kind=kind)) == 1.0


def test_colours_and_unknown_ranges_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="the image has colours, and the teacher takes 1 channel"):
        accuracy(folder(tmp_path / "a", image=lambda k: Image.new("RGB", (4, 4), (10 * k, 0, 0))))
    wide = folder(tmp_path / "b", image=lambda k: Image.fromarray(np.full((4, 4), k << 20, np.int32)), kind="tif")
    with pytest.raises(DatasetError, match="whole numbers from 1048576 to 1048576 have no known range"):
        accuracy(wide)


def test_a_class_is_given_once_and_may_be_a_number(tmp_path):
    dataset = folder(tmp_path, ["0", "1", "2"])
    assert accuracy({**dataset, "classes": [0, 1, 2]}) == 1.0
    with pytest.raises(ConfigError, match="1 is given twice"):
        accuracy({**dataset, "classes": [0, 1, 1, 2]})


def table(path, labels, levels=(0, 10, 20), is_bare=False):
    def png(level):
        buffer = BytesIO()
        grey(level).save(buffer, "PNG")
        return buffer.getvalue()

    images = [png(level) if is_bare else {"bytes": png(level), "path": None} for level in levels]
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    return {"kind": "parquet", "path": str(path)}


@pytest.mark.parametrize(
    "labels",
    [
        [0.0, 1.0, 2.0],
        ["ant", "bee", "cat"],
        pa.array(["ant", "bee", "cat"]).dictionary_encode(),
        ["0", "1", "2"],
        pa.array([0, 1, 2], pa.uint64()),
    ],
    ids=["floats", "names", "categories", "numbers as text", "uint64"],
)
def test_labels_of_any_type_are_the_classes_that_people_mean(tmp_path, labels):
    assert accuracy(table(tmp_path / "x.parquet", labels)) == 1.0


def test_labels_are_put_in_the_teachers_order_by_their_names_or_numbers(tmp_path):
    names = table(tmp_path / "a.parquet", ["zero", "one", "two"])
    assert accuracy({**names, "classes": ["zero", "one", "two"]}) == 1.0
    from_1 = table(tmp_path / "b.parquet", [1, 2, 3])
    with pytest.raises(DatasetError, match=r"label 3, but the teacher has 3 classes .* begin at 1, .* classes: \[1, 2"):
        accuracy(from_1)
    assert accuracy({**from_1, "classes": [1, 2, 3]}) == 1.0
    with pytest.raises(DatasetError, match=r"its label 1\.5 is not a whole number"):
        accuracy(table(tmp_path / "c.parquet", [0, 1.5, 2]))


def test_bare_bytes_are_pictures_and_other_files_are_no_tables(tmp_path, caplog):
    table(tmp_path / "x", [0, 1, 2], is_bare=True)  # without an extension
    (tmp_path / "README.md").write_text("# Data")
    (tmp_path / "._x.parquet").write_bytes(b"\0")
    assert accuracy({"kind": "parquet", "path": str(tmp_path)}) == 1.0
    assert "files that are not Parquet are left out: README.md" in caplog.text


# Settings


def read(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    return load_experiment(tmp_path / "x.yaml")


def test_a_section_whose_lines_are_all_comments_is_left_out(tmp_path):
    config = read(tmp_path, "teacher: digits\nsynthesis:\n  # num_shards: 3\nretraining:\n")
    assert config == make_experiment({"teacher": "digits"})
    with pytest.raises(ConfigError, match="bn_statistics"):  # which may be meant to be off
        read(tmp_path, "teacher: digits\nsynthesis: {regularizers: {bn_statistics: }}\n")


def test_keys_that_begin_with_x_are_places_for_anchors(tmp_path):
    text = "x-base: &base {lr: 0.3}\nteacher: digits\nretraining: {optimizer: {<<: *base, momentum: 0.5}}\n"
    optimizer = read(tmp_path, text).retraining.optimizer
    assert (optimizer.lr, optimizer.momentum) == (0.3, 0.5)


@pytest.mark.parametrize("folder", ["${HOME}/runs", "$HOME/runs"])
def test_a_variable_is_no_folder(folder):
    with pytest.raises(ConfigError, match="environment variables are not replaced here"):
        make_experiment({"teacher": "digits", "run_dir": folder})


def test_a_setting_of_the_command_line_has_no_comment_and_may_have_spaces():
    config = make_experiment({"teacher": "digits"}, ["run_dir=runs/exp #1", "synthesis.num_shards = 3"])
    assert (config.run_dir, config.synthesis.num_shards) == ("runs/exp #1", 3)
    with pytest.raises(ConfigError, match=r'name \(2024\) must be text: put it in quotes, "2024"'):
        make_experiment({"teacher": "digits"}, ["name=2024"])


def test_the_command_sees_what_the_library_sees(dfnas, tmp_path, monkeypatch):
    """One file of the field and all of its habits: ``dfnas teacher inspect`` measures 100 %."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "field_network.py").write_text(
        "import os, torch\nfrom torch import nn\nprint('Loading')\ntorch.set_default_dtype(torch.float64)\nos.chdir('/')\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.levels = nn.Parameter(torch.zeros(3))\n"
        "    def train(self, mode=True):\n"
        "        super().train(mode)\n"
        "    def forward(self, x):\n"
        "        x *= 255\n"
        "        return {'feature': x.mean((1, 2, 3)), 'logits': -(x.mean((1, 2, 3))[:, None] - self.levels).abs()}\n"
    )
    weights = {"model._orig_mod.levels": torch.tensor([0.0, 10.0, 20.0])}
    torch.save({"state_dict": weights, "args": argparse.Namespace()}, "x.ckpt")
    folder(tmp_path / "photos", ["0", "1", "2"], lambda k: grey(10 * k, "RGB"))
    (tmp_path / "x.yaml").write_text(
        "teacher: {kind: checkpoint, checkpoint: x.ckpt, builder: field_network:Net, "
        "image_shape: [1, 4, 4], mean: [0], std: [1]}\n"
        "evaluation: {dataset: {kind: image_folder, path: photos}}\nsynthesis:\n"
    )
    code, out, err = dfnas("teacher", "inspect", "x.yaml", "--run-dir", "runs/exp #1")
    assert code == 0, err
    assert "100.00% of 6 images" in out
    assert "Loading" not in out
    assert Path.cwd() == tmp_path


LEVELS = (
    "import torch\nfrom torch import nn\n"
    "class Net(nn.Module):\n"
    "    def __init__(self, dtype='float32'):\n"
    "        super().__init__()\n"
    "        self.levels = nn.Parameter(torch.zeros(3, dtype=getattr(torch, dtype)))\n"
    "    def forward(self, x):\n"
    "        return -(255 * x.mean((1, 2, 3))[:, None] - self.levels).abs()\n"
)


@pytest.fixture
def inspected(dfnas, tmp_path, monkeypatch, caplog):
    """Return a function that writes a checkpoint, inspects it by the command, and gives exit code and all that was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "field_levels", raising=False)
    (tmp_path / "field_levels.py").write_text(LEVELS)
    folder(tmp_path / "photos", ["0", "1", "2"], lambda k: grey(10 * k, "RGB"))

    def inspect(content, *overrides, checkpoint="x.pt"):
        if isinstance(content, torch.jit.ScriptModule):
            torch.jit.save(content, "x.pt")
        elif content is not None:
            torch.save(content, "x.pt")
        Path("x.yaml").write_text(
            f"teacher: {{kind: checkpoint, checkpoint: '{checkpoint}', builder: field_levels:Net, "
            "image_shape: [1, 4, 4], mean: [0], std: [1]}\n"
            "evaluation: {dataset: {kind: image_folder, path: photos}}\n"
        )
        caplog.clear()
        settings = [word for override in overrides for word in ("--set", override)]
        code, out, err = dfnas("teacher", "inspect", "x.yaml", "--run-dir", "run", *settings)
        return code, " ".join([out, err, caplog.text])

    return inspect


def levels(*values):
    return {"levels": torch.tensor(values, dtype=torch.float32)}


def test_the_command_says_which_of_two_sets_it_takes_and_lets_one_choose(inspected):
    both = {"state_dict": levels(0, 10, 20), "model_ema": levels(20, 10, 0)}
    code, said = inspected(both)
    assert (code, "100.00% of 6 images" in said) == (0, True)
    assert "weights under state_dict are taken; others are under model_ema (teacher.weights)" in said
    code, said = inspected(both, "teacher.weights=model_ema")
    assert (code, "33.33% of 6 images" in said) == (0, True)


@pytest.mark.parametrize("address", ["https://host/x.pt", "s3://bucket/x.pt"])
def test_the_command_downloads_no_checkpoint_and_says_what_to_do(inspected, address):
    code, said = inspected(None, checkpoint=address)
    assert code == 2
    assert address in said
    assert "weights_only=False" not in said


def test_the_command_names_a_torchscript_archive_and_takes_half_a_network(inspected):
    code, said = inspected(torch.jit.script(nn.Linear(1, 1)))
    assert (code, "is a TorchScript archive: a program" in said) == (2, True)
    assert "weights_only" not in said or "state_dict()" in said
    code, said = inspected(levels(0, 10, 20), "teacher.arguments.dtype=float16")
    assert (code, "100.00% of 6 images" in said) == (0, True)
    assert "computes in float32" in said


def test_the_command_says_when_another_numbering_would_be_right_far_more_often(inspected):
    for number in range(4):  # enough images of each class to mean something
        for level, name in ((0, "0"), (10, "1"), (20, "2")):
            Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(Path("photos") / name / f"more{number}.png")
    code, said = inspected(levels(20, 0, 10))
    assert code == 0
    assert "another numbering" in said or "numbered" in said


def test_the_command_sees_an_edited_forward(inspected):
    def fingerprint_of(source):
        sys.modules.pop("field_levels", None)
        Path("field_levels.py").write_text(source)
        importlib.invalidate_caches()
        code, said = inspected(levels(0, 10, 20))
        assert code == 0, said
        return said.partition("fingerprint")[2].split()[0]

    before = fingerprint_of(LEVELS)
    assert fingerprint_of(LEVELS.replace("-(255 *", "-2 * (255 *")) != before
    assert fingerprint_of(LEVELS + "# as ever, and longer\n") == before


@pytest.mark.parametrize("name", ["20240501", "exp #1", "a: b", "[x]"])
def test_a_run_directory_is_the_text_that_was_typed(dfnas, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("teacher: {kind: digits, width: 4, epochs: 1}\n")
    code, _, err = dfnas("teacher", "inspect", "x.yaml", "--run-dir", name)
    assert code == 0, err
    assert Path(name).is_dir()


def test_an_address_in_brackets_is_an_address(dfnas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("teacher: {kind: digits, width: 4, epochs: 1}\n")
    code, _, err = dfnas("synthesize", "x.yaml", "--address", "[::1]:6379", "--set", "synthesis.num_shards=zero")
    assert code == 2
    assert "synthesis.num_shards" in err  # the only thing that is wrong
    assert "--set cluster" not in err


def test_a_label_that_is_missing_is_named_with_its_row(tmp_path):
    buffer = BytesIO()
    grey(0).save(buffer, "png")
    table = pa.table({"image": [{"bytes": buffer.getvalue(), "path": None}] * 3, "label": [0, None, 0]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=r"label") as raised:
        accuracy({"kind": "parquet", "path": str(tmp_path / "x.parquet")})
    assert "row 1" in str(raised.value) or "row 2" in str(raised.value)


@pytest.mark.ray
@pytest.mark.slow
def test_a_temporary_directory_that_is_too_long_for_sockets_is_named(start_dfnas, tiny_yaml, tmp_path, monkeypatch):
    far = tmp_path / ("x" * 100)
    far.mkdir()
    monkeypatch.setenv("TMPDIR", str(far))
    log = tmp_path / "log.txt"
    process = start_dfnas("synthesize", tiny_yaml, "--run-dir", tmp_path / "run", "--address", "local", log=log)
    assert process.wait(120) == 2, log.read_text()
    said = "".join(log.read_text().split())
    assert "setTMPDIRtoashortpath" in said
    assert "use--addresslocal" not in said
