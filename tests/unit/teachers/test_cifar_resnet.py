"""ResNets for 32x32 images, and the published checkpoint that loads into one."""

import os
from pathlib import Path

import pytest
import torch

from dfnas_ray.datasets.base import iterate_batches
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.ops.cost import Cost, measure_cost
from dfnas_ray.teachers import CheckpointTeacherConfig
from dfnas_ray.teachers.cifar_resnet import BasicBlock, resnet20, resnet32, resnet44, resnet56, resnet110


@pytest.mark.parametrize(
    ("build", "params"),
    # He et al. 2016, Table 6 gives 0.27, 0.46, 0.66, 0.85 and 1.7 M; the digits are by hand: with n blocks per stage,
    # 464 + 650 and 4672 n, 13952 + 18560 (n - 1), 55552 + 73984 (n - 1) in the three stages
    [(resnet20, 269_722), (resnet32, 464_154), (resnet44, 658_586), (resnet56, 853_018), (resnet110, 1_727_962)],
)
def test_networks_have_the_published_number_of_parameters(build, params):
    assert sum(p.numel() for p in build().parameters()) == params


def test_resnet20_costs_the_hand_counted_macs():
    # 3x3 convolutions: the stem, then 6 per stage, where the first of a later stage takes half the channels
    stem = 27 * 16 * 32 * 32
    stages = 6 * 9 * 16 * 16 * 32**2 + (9 * 16 * 32 + 5 * 9 * 32 * 32) * 16**2 + (9 * 32 * 64 + 5 * 9 * 64 * 64) * 8**2
    assert measure_cost(resnet20(), (3, 32, 32)) == Cost(269_722, stem + stages + 640)


def test_layers_have_the_names_of_published_checkpoints():
    names = set(resnet20().state_dict())
    expected = {"conv1.weight", "linear.weight", "linear.bias"}
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected |= {f"bn1.{part}" for part in batch_norm}
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            prefix = f"layer{stage}.{block}"
            expected |= {f"{prefix}.conv{i}.weight" for i in (1, 2)}
            expected |= {f"{prefix}.bn{i}.{part}" for i in (1, 2) for part in batch_norm}
    assert names == expected


def test_the_shortcut_subsamples_and_pads_channels_on_both_sides():
    block = BasicBlock(2, 4, stride=2).eval()
    torch.nn.init.zeros_(block.bn2.weight)  # silences the branch
    x = torch.arange(1.0, 33.0).view(1, 2, 4, 4)
    y = block(x)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, 0].abs().max() == 0
    assert y[0, 3].abs().max() == 0
    assert y[0, 1].tolist() == [[1.0, 3.0], [9.0, 11.0]]
    assert y[0, 2].tolist() == [[17.0, 19.0], [25.0, 27.0]]


def test_the_head_and_the_stem_follow_the_arguments_and_any_size_passes():
    model = resnet20(num_classes=7, in_channels=1).eval()
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


@pytest.fixture
def data() -> Path:
    """The folder with the published checkpoint and CIFAR-10; the package itself needs neither."""
    folder = os.environ.get("DFNAS_DATA")
    if not folder:
        pytest.skip("DFNAS_DATA is not set: a folder with resnet20-12fca82f.th and cifar10_test.parquet")
    for name in ("resnet20-12fca82f.th", "cifar10_test.parquet"):
        if not Path(folder, name).is_file():
            pytest.skip(f"{name} is not in DFNAS_DATA={folder}")
    return Path(folder)


@pytest.mark.slow
@torch.no_grad()
def test_the_published_checkpoint_scores_what_was_measured_before(data, tmp_path):
    teacher = CheckpointTeacherConfig(
        kind="checkpoint",
        checkpoint=data / "resnet20-12fca82f.th",
        builder="dfnas_ray.teachers.cifar_resnet:resnet20",
        image_shape=(3, 32, 32),
        num_classes=10,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ).load(tmp_path)
    assert teacher.cost.params == 269_722
    dataset = ParquetConfig(kind="parquet", path=str(data / "cifar10_test.parquet")).open()
    model = teacher.model.to(memory_format=torch.channels_last)
    correct = 0
    for images, labels in iterate_batches(dataset, teacher.image_shape, teacher.num_classes, batch_size=500):
        correct += int((model(teacher.normalize(images)).argmax(1) == labels).sum())
    assert len(dataset) == 10_000
    assert correct / 10_000 == pytest.approx(0.8103, abs=0.0005)
