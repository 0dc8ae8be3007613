"""Teachers from a checkpoint file and a builder."""

import gzip
import os
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from dfnas_ray.errors import TeacherError
from dfnas_ray.teachers import CheckpointTeacherConfig, TeacherConfig
from dfnas_ray.teachers.checkpoint import build_model, load_weights
from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.teachers.weight_files import read_state_dict

RESNET20 = "dfnas_ray.teachers.cifar_resnet:resnet20"


@pytest.fixture
def state():
    return {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, 2.0])}


def assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


# read_state_dict


def test_a_plain_state_dict_is_read(tmp_path, state):
    torch.save(state, tmp_path / "x.pt")
    assert_same(read_state_dict(tmp_path / "x.pt"), state)


def test_safetensors_are_read(tmp_path, state):
    save_file(state, tmp_path / "x.safetensors")
    assert_same(read_state_dict(tmp_path / "x.safetensors"), state)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "params"])
def test_a_wrapped_state_dict_is_unwrapped(tmp_path, state, key):
    torch.save({"epoch": 3, key: state, "best": 0.9}, tmp_path / "x.pt")
    assert_same(read_state_dict(tmp_path / "x.pt"), state)


def test_a_twice_wrapped_state_dict_is_unwrapped(tmp_path, state):
    torch.save({"model": {"state_dict": state, "step": 1}}, tmp_path / "x.pt")
    assert_same(read_state_dict(tmp_path / "x.pt"), state)


def save_many(state, path):
    torch.save({"teacher": state, "ema": {"shadow": state}, "epoch": 3}, path)


def test_of_several_sets_of_weights_one_is_to_be_chosen(tmp_path, state):
    save_many(state, tmp_path / "x.pt")
    with pytest.raises(
        TeacherError, match=r"several sets of weights: teacher, ema\.shadow\. Choose .*teacher\.weights"
    ):
        read_state_dict(tmp_path / "x.pt")
    assert_same(read_state_dict(tmp_path / "x.pt", "ema.shadow"), state)
    with pytest.raises(
        TeacherError, match=r"teacher\.weights \(swa\) is neither a key .* Keys with weights: teacher, ema"
    ):
        read_state_dict(tmp_path / "x.pt", "swa")


def test_the_usual_weights_come_before_averaged_ones_and_these_are_named(tmp_path, state, caplog):
    torch.save({"model_ema": {n: v + 1 for n, v in state.items()}, "state_dict": state}, tmp_path / "x.pt")
    assert_same(read_state_dict(tmp_path / "x.pt"), state)
    assert "weights under state_dict are taken; others are under model_ema (teacher.weights)" in caplog.text
    assert torch.equal(read_state_dict(tmp_path / "x.pt", "model_ema")["bias"], state["bias"] + 1)


def test_weights_are_chosen_by_what_their_names_begin_with(tmp_path, state):
    both = {f"{prefix}.{n}": v + add for prefix, add in (("model", 0), ("ema.module", 1)) for n, v in state.items()}
    torch.save({"state_dict": both}, tmp_path / "x.pt")
    assert torch.equal(read_state_dict(tmp_path / "x.pt", "ema.module")["bias"], state["bias"] + 1)


@pytest.mark.timeout(20)
def test_a_checkpoint_that_contains_itself_is_read_once(tmp_path, state):
    loop = {"epoch": 1}
    loop |= {f"again{number}": loop for number in range(50)}
    torch.save(loop, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match="holds no weights"):
        read_state_dict(tmp_path / "x.pt")
    loop["state_dict"] = state
    torch.save(loop, tmp_path / "x.pt")
    assert_same(read_state_dict(tmp_path / "x.pt"), state)


def test_a_missing_file_names_the_setting(tmp_path):
    with pytest.raises(TeacherError, match=r"none\.pt does not exist\. Set teacher\.checkpoint"):
        read_state_dict(tmp_path / "none.pt")


def test_a_folder_in_place_of_the_file_says_what_it_holds(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(TeacherError, match=r"is a folder\. It holds model\.safetensors"):
        read_state_dict(tmp_path)


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    with pytest.raises(TeacherError, match="is a pipe or a device"):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize("address", ["https://host/x.pt", "s3://bucket/x.pt"])
def test_an_address_is_told_as_what_it_is(address):
    with pytest.raises(TeacherError, match=r"is a URL\. Nothing is downloaded"):
        read_state_dict(Path(address))


def archive(path, add):
    add(path)
    return path.read_bytes()


def tar(path):
    with tarfile.open(path, "w") as file:
        file.add(__file__, "x.pt")


def zip_around(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("folder/x.pt", b"1")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (tar, "is a tar archive: unpack it"),
        (zip_around, r"is a zip archive that holds folder/x\.pt: unpack it"),
        (lambda path: path.write_bytes(gzip.compress(b"x")), "is a gzip archive"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600)), "is an HDF5 file, as Keras writes"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "is a NumPy array"),
        (lambda path: torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path), "is a TorchScript archive: a program"),
    ],
)
def test_what_is_no_checkpoint_says_what_it_is_whatever_its_name(tmp_path, make, said, name):
    make(tmp_path / name)
    with pytest.raises(TeacherError, match=said):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x"])
def test_the_format_is_in_the_bytes(tmp_path, state, name):
    save_file(state, tmp_path / name)
    assert_same(read_state_dict(tmp_path / name), state)
    torch.save(state, tmp_path / name)
    assert_same(read_state_dict(tmp_path / name), state)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_file_cut_in_half_cannot_be_read(tmp_path, state, name):
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TeacherError, match=rf"{name} cannot be read: "):
        read_state_dict(path)


def test_an_empty_file_cannot_be_read(tmp_path):
    (tmp_path / "x.pt").touch()
    with pytest.raises(TeacherError, match=r"x\.pt cannot be read: \S"):
        read_state_dict(tmp_path / "x.pt")


class TouchesAFile:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickled_object_is_refused_and_its_code_does_not_run(tmp_path, state, save):
    save({"state_dict": state, "extra": TouchesAFile(str(tmp_path / "ran"))}, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match=r"loaded safely.*would run code") as refused:
        read_state_dict(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in str(refused.value)  # torch advises to switch the safety off


def test_a_text_in_place_of_a_checkpoint_is_told_as_what_it_is(tmp_path):
    (tmp_path / "README.md").write_text("# A title\n\nAnd a paragraph.\n")
    with pytest.raises(TeacherError, match=r"README\.md is neither a torch file nor \.safetensors"):
        read_state_dict(tmp_path / "README.md")


def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "x.pt")
    with pytest.raises(TeacherError, match=r"torch\.save\(model\.state_dict\(\)"):
        read_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.safetensors"])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"\xef\xbb\xbf\r\n  <html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
    ],
)
def test_a_page_or_pointer_saved_as_a_checkpoint_is_to_be_downloaded_again(tmp_path, name, content, named):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TeacherError, match=rf"{name} {named}.* again") as raised:
        read_state_dict(tmp_path / name)
    assert "would run code" not in str(raised.value)


def test_a_safetensors_file_that_begins_like_a_page_is_read(tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(ord("<"))
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert (tmp_path / "x.safetensors").read_bytes().startswith(b"<")
    assert_same(read_state_dict(tmp_path / "x.safetensors"), {"w": torch.zeros(1)})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"epoch": 3, "optimizer": {}}, r"holds no weights under state_dict.*\['epoch', 'optimizer'\]"),
        ({}, r"holds no weights"),
        ([torch.zeros(1)], "holds a list, not a state dict"),
        (torch.zeros(2), "holds a Tensor, not a state dict"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path, content, named):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match=named):
        read_state_dict(tmp_path / "x.pt")


def test_names_that_are_not_strings_are_refused(tmp_path):
    torch.save({0: torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match=r"x\.pt"):
        read_state_dict(tmp_path / "x.pt")


# load_weights


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.backbone."])
def test_what_a_wrapper_put_before_all_names_is_removed(state, prefix):
    model = nn.Linear(3, 2)
    load_weights(model, {f"{prefix}{name}": value for name, value in state.items()}, "x.pt")
    assert_same(model.state_dict(), state)


def test_what_lies_beside_the_wrapped_weights_is_named(state, caplog):
    model = nn.Linear(3, 2)
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(3, 2))
    averaged.module.load_state_dict(state)
    load_weights(model, averaged.state_dict(), "x.pt")
    assert_same(model.state_dict(), state)
    assert "begin with module. are taken; 1 others are left out, such as n_averaged" in caplog.text


def test_of_plain_and_averaged_weights_the_plain_ones_are_taken(state, caplog):
    model = nn.Linear(3, 2)
    both = {f"{prefix}.{n}": v + add for prefix, add in (("ema_model", 1), ("model", 0)) for n, v in state.items()}
    load_weights(model, both, "x.pt")
    assert_same(model.state_dict(), state)
    assert "begin with model. are taken; 2 others are left out (teacher.weights)" in caplog.text


def test_weights_without_the_wrapper_of_the_network_that_was_built(state):
    model = nn.Sequential(nn.Linear(3, 2))
    load_weights(model, state, "x.pt")
    assert_same(model[0].state_dict(), state)


def test_a_prefix_that_not_all_names_share_stays(state):
    with pytest.raises(TeacherError, match=r"1 missing: weight; 1 unexpected: net\.weight"):
        load_weights(nn.Linear(3, 2), {"net.weight": state["weight"], "bias": state["bias"]}, "x.pt")


class Counting(nn.Linear):
    """Keeps something beside its tensors."""

    def get_extra_state(self):
        return {"seen": 7}

    def set_extra_state(self, extra):
        self.seen = extra["seen"]


def test_what_the_network_itself_takes_is_taken(tmp_path):
    frozen, batch_norm = FrozenBatchNorm2d(2), nn.BatchNorm2d(2)
    load_weights(frozen, batch_norm.state_dict(), "x.pt")
    torch.save(Counting(3, 2).state_dict(), tmp_path / "x.pt")
    counting = Counting(3, 2)
    load_weights(counting, read_state_dict(tmp_path / "x.pt"), "x.pt")
    assert counting.seen == 7
    lazy = nn.Sequential(nn.LazyLinear(2))
    load_weights(lazy, nn.Sequential(nn.Linear(5, 2)).state_dict(), "x.pt")
    assert lazy(torch.zeros(1, 5)).shape == (1, 2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.zeros(2, 3, dtype=torch.complex64), "has complex weights: weight"),
        (lambda: torch.zeros(2, 3).to_sparse(), "has weights that are of layout torch.sparse_coo: weight"),
        (
            lambda: torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.qint8),
            "has weights that are quantized: weight",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_weights_that_no_network_computes_with_are_named(state, make, said):
    with pytest.raises(TeacherError, match=said):
        load_weights(nn.Linear(3, 2), {**state, "weight": make()}, "x.pt")


def test_fitting_weights_are_loaded(state):
    model = nn.Linear(3, 2)
    load_weights(model, state, "x.pt")
    assert_same(model.state_dict(), state)


def test_missing_unexpected_and_misshapen_weights_are_all_listed(state):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    given = {
        "0.weight": torch.zeros(3, 2),
        "1.weight": torch.zeros(2, 2),
        "1.bias": torch.zeros(2),
        "fc.bias": torch.zeros(1),
    }
    with pytest.raises(TeacherError) as raised:
        load_weights(model, given, "x.pt", network="the network of teacher.name (a)", remedy="Change teacher.name.")
    message = str(raised.value)
    assert "x.pt does not fit the network of teacher.name (a): " in message
    assert "1 missing: 0.bias" in message
    assert "1 unexpected: fc.bias" in message
    assert "1 of another shape: 0.weight (3, 2) instead of (2, 3)" in message
    assert message.endswith(". Change teacher.name.")


@pytest.mark.parametrize(
    ("number", "listed"),
    [
        (5, "5 missing: 0.weight, 1.weight, 2.weight, 3.weight, 4.weight. "),
        (7, "7 missing: 0.weight, 1.weight, 2.weight, 3.weight, ..., 6.weight. "),
    ],
)
def test_of_many_names_the_first_four_and_the_last_are_listed(number, listed):
    model = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(number))
    with pytest.raises(TeacherError) as raised:
        load_weights(model, {}, "x.pt")
    assert listed in str(raised.value)


def test_weights_for_another_number_of_classes_name_the_classifier_and_the_settings(tmp_path):
    torch.save(resnet20(num_classes=100).state_dict(), tmp_path / "x.pt")
    config = CheckpointTeacherConfig(
        kind="checkpoint", checkpoint=tmp_path / "x.pt", builder=RESNET20, arguments={"in_channels": 1},
        image_shape=(1, 32, 32), mean=(0.5,), std=(0.5,),
    )  # fmt: skip
    with pytest.raises(TeacherError, match=r"linear\.bias \(100,\) instead of \(10,\)") as raised:
        config.load(tmp_path)
    assert f"teacher.builder ({RESNET20})" in str(raised.value)
    assert "teacher.arguments ({'in_channels': 1})" in str(raised.value)


def test_weights_that_do_not_fit_leave_the_model_alone(state):
    model = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TeacherError):
        load_weights(model, {"weight": state["weight"]}, "x.pt")
    assert_same(model.state_dict(), before)


def test_the_batch_counter_of_batchnorm_may_be_absent_and_nothing_else():
    own = {name: tensor + 1 for name, tensor in nn.BatchNorm2d(2).state_dict().items() if "num_batches" not in name}
    model = nn.BatchNorm2d(2)
    load_weights(model, own, "old.pt")
    assert model.running_var.tolist() == [2.0, 2.0]
    del own["running_var"]
    with pytest.raises(TeacherError, match="missing: running_var"):
        load_weights(nn.BatchNorm2d(2), own, "old.pt")


# build_model


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """An empty working directory; sys.path and sys.modules are put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_builder_gets_its_keyword_arguments():
    model = build_model(RESNET20, {"num_classes": 7, "in_channels": 1})
    assert model.linear.out_features == 7
    assert model.conv1.in_channels == 1


def test_a_builder_is_found_in_the_working_directory(working_directory):
    (working_directory / "my_networks_a.py").write_text(
        "import torch\ndef build(n):\n    return torch.nn.Linear(n, n)\n"
    )
    assert build_model("my_networks_a:build", {"n": 3}).in_features == 3


@pytest.mark.parametrize("builder", ["no_such_package.models:build", "dfnas_ray.teachers.cifar_resnet:resnet21"])
def test_a_builder_that_cannot_be_imported_is_named(builder):
    with pytest.raises(TeacherError, match=rf"teacher\.builder {builder} cannot be imported.*working directory"):
        build_model(builder, {})


@pytest.mark.parametrize("source", ["1 / 0", "def build(:"], ids=["raises", "syntax error"])
def test_a_module_that_fails_while_it_is_imported_names_the_builder(working_directory, source):
    (working_directory / "my_networks_b.py").write_text(source)
    with pytest.raises(TeacherError, match=r"teacher\.builder my_networks_b:build"):
        build_model("my_networks_b:build", {})


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("my_exit", "import sys\nsys.exit(3)\n"),
        ("my_parser", "import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\np.parse_args()\n"),
    ],
)
def test_a_module_that_is_a_script_is_named_as_the_cause(working_directory, monkeypatch, name, source):
    monkeypatch.setattr(sys, "argv", ["dfnas", "run", "x.yaml"])
    (working_directory / f"{name}.py").write_text(source)
    with pytest.raises(TeacherError, match=rf"teacher\.builder {name}:build cannot be imported: .* ended the program"):
        build_model(f"{name}:build", {})
    assert sys.argv == ["dfnas", "run", "x.yaml"]


def test_a_module_does_not_take_the_commands_arguments_for_its_own(working_directory, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dfnas", "run", "x.yaml"])
    source = "import sys\nfrom torch import nn\nWIDTH = int(sys.argv[1]) if len(sys.argv) > 1 else 4\n"
    (working_directory / "my_script.py").write_text(f"{source}def build():\n    return nn.Linear(WIDTH, 2)\n")
    assert build_model("my_script:build", {}).in_features == 4


def test_a_builder_that_ends_the_program_is_named():
    with pytest.raises(TeacherError, match=r"teacher\.builder sys:exit failed .* ended the program"):
        build_model("sys:exit", {})


def test_a_relative_module_names_the_builder():
    with pytest.raises(TeacherError, match=r"teacher\.builder \.models:build cannot be imported"):
        build_model(".models:build", {})


def test_a_builder_that_does_not_take_the_arguments_names_them():
    with pytest.raises(TeacherError, match=r"failed with teacher\.arguments \{'width': 3\}: TypeError: .*width"):
        build_model(RESNET20, {"width": 3})


def test_a_builder_that_returns_no_module_is_refused():
    with pytest.raises(TeacherError, match=r"builtins:dict returned a dict, not a torch\.nn\.Module"):
        build_model("builtins:dict", {})


# CheckpointTeacherConfig


def config(**changes):
    values = {
        "kind": "checkpoint",
        "builder": "torch.nn:Sequential",
        "image_shape": [3, 32, 32],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    return TypeAdapter(TeacherConfig).validate_python(values | changes)


@pytest.fixture
def resnet20_file(tmp_path):
    torch.manual_seed(3)
    model = build_model(RESNET20, {"num_classes": 4})
    path = tmp_path / "net.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return path, model


def test_a_teacher_loads_with_its_file_name_weights_and_statistics(resnet20_file, tmp_path):
    path, model = resnet20_file
    teacher = config(builder=RESNET20, checkpoint=path, arguments={"num_classes": 4}, num_classes=4).load(tmp_path)
    assert (teacher.name, teacher.num_classes, teacher.image_shape) == ("net.pt", 4, (3, 32, 32))
    assert (teacher.mean, teacher.std) == ((0.5,) * 3, (0.25,) * 3)
    assert_same(teacher.model.state_dict(), model.state_dict())


def test_two_loads_share_a_fingerprint(resnet20_file, tmp_path):
    path, _ = resnet20_file
    settings = config(builder=RESNET20, checkpoint=path, arguments={"num_classes": 4})
    torch.manual_seed(1)
    first = settings.load(tmp_path).fingerprint
    torch.manual_seed(2)  # the untrained network differs before the weights are loaded
    assert settings.load(tmp_path).fingerprint == first


def test_another_head_names_the_layer(resnet20_file, tmp_path):
    path, _ = resnet20_file
    with pytest.raises(TeacherError, match=r"linear\.weight \(4, 64\) instead of \(10, 64\)"):
        config(builder=RESNET20, checkpoint=path).load(tmp_path)


def test_a_wrong_class_count_is_an_error(resnet20_file, tmp_path):
    path, _ = resnet20_file
    settings = config(builder=RESNET20, checkpoint=path, arguments={"num_classes": 4}, num_classes=10)
    with pytest.raises(TeacherError, match=r"teacher\.num_classes is 10, but teacher net\.pt has 4"):
        settings.load(tmp_path)


def test_channels_and_statistics_must_agree(resnet20_file, tmp_path):
    path, _ = resnet20_file
    settings = config(builder=RESNET20, checkpoint=path, arguments={"num_classes": 4}, image_shape=[1, 32, 32])
    with pytest.raises(TeacherError, match="each of the 1 channels"):
        settings.load(tmp_path)


def test_channels_that_the_network_does_not_take_are_an_error(resnet20_file, tmp_path):
    path, _ = resnet20_file
    one = {"image_shape": [1, 32, 32], "mean": [0.5], "std": [0.5]}
    with pytest.raises(TeacherError, match=r"does not take images of teacher\.image_shape \(1, 32, 32\)"):
        config(builder=RESNET20, checkpoint=path, arguments={"num_classes": 4}, **one).load(tmp_path)


def test_a_checkpoint_that_is_not_set_names_the_option(tmp_path):
    with pytest.raises(TeacherError, match=r"--set teacher\.checkpoint=PATH"):
        config().load(tmp_path)


@pytest.mark.parametrize("builder", ["package.module", "package.module:", ":f", "os.system('x')", "a:b:c"])
def test_a_builder_is_package_module_colon_function(builder):
    with pytest.raises(ValidationError, match="builder"):
        config(builder=builder)


def test_an_unknown_key_is_refused_and_the_config_is_frozen():
    with pytest.raises(ValidationError, match="chekpoint"):
        config(chekpoint="x.pt")
    with pytest.raises(ValidationError, match="frozen"):
        config().builder = "a:b"
    assert isinstance(config(), CheckpointTeacherConfig)


@pytest.mark.parametrize("content", [b"junk\n", b"x", b"12345"])
def test_a_few_bytes_of_anything_are_no_torch_file(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(TeacherError, match=r"weights\.pt is neither a torch file nor \.safetensors"):
        read_state_dict(tmp_path / "weights.pt")
