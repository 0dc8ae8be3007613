"""Files whose few bytes would take gigabytes are refused before they do; pipes are not waited for."""

from __future__ import annotations

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfnas_ray.config.experiment import load_experiment
from dfnas_ray.datasets.parquet import ParquetConfig
from dfnas_ray.errors import AlteredError, ConfigError, DatasetError, ShardError, StorageError
from dfnas_ray.search_spaces import make_space
from dfnas_ray.storage import bounded
from dfnas_ray.storage.bounded import TooLargeError, read_columns
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.run_dir import LatestFolders, RunDir
from dfnas_ray.storage.shards import ShardInfo, class_names_of, decode_shard, encode_shard, read_info

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def little(monkeypatch):
    """Let files expand to a megabyte and a hundred times their size."""
    monkeypatch.setattr(bounded, "_ALWAYS", 2**20)


def repeated(value, times):
    """A Parquet file in which one value is stored once and stands there many times."""
    images = pa.StructArray.from_arrays(
        [pa.DictionaryArray.from_arrays(np.zeros(times, np.int32), [value]).cast(pa.binary())], ["bytes"]
    )
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": np.zeros(times, np.int64)}), sink, compression="zstd")
    return sink.getvalue()


def test_a_value_that_is_repeated_too_often_is_refused_while_it_is_read(little):
    data = repeated(os.urandom(10_000), 1000)
    assert len(data) < 15_000
    with pytest.raises(TooLargeError, match="expand to more than"):
        read_columns(pq.ParquetFile(io.BytesIO(data)), ["image"], len(data))
    (batch,) = read_columns(pq.ParquetFile(io.BytesIO(data)), ["label"], len(data))[:1]
    assert batch.num_rows > 0


def test_images_that_are_repeated_too_often_are_an_error_of_the_dataset(little, tmp_path):
    (tmp_path / "x.parquet").write_bytes(repeated(os.urandom(10_000), 1000))
    dataset = ParquetConfig(kind="parquet", path=str(tmp_path / "x.parquet")).open()
    with pytest.raises(DatasetError, match=r"x\.parquet cannot be read: its .* bytes expand to more than"):
        dataset[0]


def test_a_shard_of_few_bytes_and_many_pixels_is_refused(little):
    images, rows = np.zeros((8, 3, 600, 600), np.uint8), np.zeros(8, np.int64)
    data = bytes(encode_shard(ShardInfo("key", 0, 1, "t", []), images, rows, rows, np.zeros((8, 2), np.float32)))
    with pytest.raises(ShardError, match="8 images have 8,640,000 bytes of pixels, too many"):
        decode_shard(data, "key", "x")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, make):
    make(tmp_path / "latest.json")
    make(tmp_path / "shard-00000.parquet")
    make(tmp_path / "x.yaml")
    kind = "a pipe or a device" if make is os.mkfifo else "a folder"
    with pytest.raises(AlteredError, match=f"latest.json is {kind}, where a file must be"):
        RunDir(tmp_path).latest()
    with pytest.raises(ShardError, match=kind):
        read_info(Location.parse(tmp_path / "shard-00000.parquet"))
    with pytest.raises(ShardError, match=kind):
        class_names_of(Location.parse(tmp_path / "shard-00000.parquet"))
    with pytest.raises(ConfigError, match=f"x.yaml is {kind}"):
        load_experiment(tmp_path / "x.yaml")


def test_a_device_is_no_file():
    with pytest.raises(AlteredError, match="/dev/zero is a pipe or a device"):
        Location.parse("/dev/zero").read_bytes()


def test_a_record_that_would_take_too_much_is_refused_before_it_is_read(tmp_path):
    file = Location.parse(tmp_path / "latest.json")
    with open(file.path, "wb") as sparse:  # noqa: PTH123 - a location's path is text
        sparse.truncate(2**40)
    with pytest.raises(AlteredError, match=r"has 1,099,511,627,776 bytes, more than the 268,435,456"):
        file.read_model(LatestFolders)
    with pytest.raises(StorageError, match="that this machine has memory for"):
        file.read_bytes()
    file.delete_file()
    file.write_bytes(b"[" + b"[]," * 6_000_000 + b"[]]")
    with pytest.raises(AlteredError, match="holds some 12,"):
        file.read_model(LatestFolders)


HUGE = [
    ({"kind": "nasbench_macro", "stage_channels": [10**9] * 3}, "must be less than or equal to 65536"),
    ({"kind": "nasbench_macro", "stage_channels": [60_000] * 3}, "parameters in all"),
    ({"kind": "nasbench_macro", "stage_layers": [10**9] * 3}, "must be less than or equal to 100"),
    ({"kind": "nasbench_macro", "stage_layers": [100] * 30, "stage_channels": [8] * 30}, "has 3,000 decisions"),
    ({"kind": "nasbench201", "channels": 60_000}, "parameters in all"),
    ({"kind": "darts", "channels": 60_000}, "parameters in all"),
]


@pytest.mark.parametrize(("config", "said"), HUGE, ids=range(len(HUGE)))
def test_a_recorded_space_of_networks_that_no_machine_holds_is_refused(config, said):
    with pytest.raises(ConfigError, match=said) as refused:
        make_space(config, (3, 32, 32), 10)
    assert len(str(refused.value)) <= 1000
