"""Every sort of dataset of this package keeps what all promise."""

from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfnas_ray.datasets import DATASETS
from dfnas_ray.testing import DatasetSuite


def _encoded(value):
    buffer = BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def _settings(kind, folder):
    """Return the settings of two images, and write the files that they name."""
    if kind == "parquet":
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = pa.array([_encoded(10), _encoded(200)], image)
        pq.write_table(pa.table({"image": rows, "label": [0, 1]}), folder / "x.parquet")
        return {"path": str(folder / "x.parquet")}
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        Image.new("RGB", (8, 8)).save(folder / name / "0.png")
    if kind == "image_folder":
        return {"path": folder}
    if kind == "torchvision":
        return {"name": "ImageFolder", "root": folder}
    return {}


MISSING = Path("no/such/place")
BROKEN = {
    "digits": None,  # it needs no file
    "hard_digits": None,
    "image_folder": {"path": MISSING},
    "parquet": {"path": str(MISSING)},
    "torchvision": {"name": "CIFAR10", "root": MISSING},
}


class TestDatasets(DatasetSuite):
    @pytest.fixture(params=DATASETS.built_in)
    def config(self, request, tmp_path):
        return DATASETS.find(request.param)(kind=request.param, **_settings(request.param, tmp_path))

    @pytest.mark.parametrize("kind", DATASETS.built_in)
    def test_an_error_names_the_setting(self, kind, request):
        settings = BROKEN[kind]
        self.broken = None if settings is None else DATASETS.find(kind)(kind=kind, **settings)
        super().test_an_error_names_the_setting(request)
