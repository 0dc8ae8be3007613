"""Real images, for comparison or for users who have some. A search that uses them is not data-free."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from dfnas_ray.datasets import DatasetConfig
from dfnas_ray.datasets.base import ImageDataset, as_input, check_classes, check_label, open_dataset, read_image
from dfnas_ray.errors import DatasetError
from dfnas_ray.limits import MANY
from dfnas_ray.seeding import numpy_generator
from dfnas_ray.sources.base import Canvases, Drawer, Drawn, DrawnSource, SetSize
from dfnas_ray.storage.location import JsonObject
from dfnas_ray.teachers.base import ImageShape, Teacher


class RealSource(DrawnSource):
    """Images of a dataset, padded to the canvas by reflection at their edges."""

    kind: Literal["real"] = "real"
    dataset: DatasetConfig = Field(description="The dataset of the images; not that of the evaluation.")
    num_images: Annotated[int, Field(gt=0, le=MANY)] | Literal["all"] | None = Field(
        None, description="Number of images, drawn without replacement, or all; by default as many as synthesis makes."
    )
    labels: Literal["own", "teacher"] = Field(
        "own", description="own: the dataset's labels are kept beside the teacher's; teacher: they are never used."
    )

    is_data_free: ClassVar[bool] = False

    @property
    def is_labelled(self) -> bool:
        """See `DrawnSource`."""
        return self.labels == "own"

    def inputs(self, teacher: Teacher, setting: str) -> JsonObject:
        """See `DrawnSource`."""
        return {"files": teacher.resizing.keyed(self.opened(setting).fingerprint)}

    def size(self, like: SetSize, setting: str) -> SetSize:
        """See `DrawnSource`."""
        dataset = self.opened(setting)
        wanted = like.images if self.num_images is None else self.num_images
        if wanted == "all":
            wanted = len(dataset)
        if not len(dataset):
            raise DatasetError(f"{dataset_setting(setting)}: {dataset.description} holds no images. Give another.")
        if len(dataset) < wanted:
            given = "the synthetic set to compare with has" if self.num_images is None else "num_images is"
            raise DatasetError(
                f"{dataset_setting(setting)}: {dataset.description} holds {len(dataset):,} images, but {given} "
                f"{wanted:,}. Give more, make fewer with synthesis.num_shards or images_per_shard"
                + ("." if setting.endswith(".real") else f", or set {setting}.num_images.")
            )
        return like.of(wanted)

    def drawer(self, teacher: Teacher, size: SetSize, seed: int, setting: str) -> Drawer:
        """See `DrawnSource`."""
        dataset = self.opened(setting)
        if self.is_labelled:
            check_classes(dataset, teacher.num_classes, dataset_setting(setting), teacher.class_names)
        drawn = numpy_generator(seed, "real-images").permutation(len(dataset))[: size.images]

        def draw(shard: int) -> Drawn:
            rows = drawn[shard * size.rows :][: size.rows_of(shard)]
            return self._draw(dataset, rows, teacher, size, dataset_setting(setting))

        return draw

    def _draw(
        self, dataset: ImageDataset, rows: np.ndarray[Any, Any], teacher: Teacher, size: SetSize, setting: str
    ) -> Drawn:
        canvases = np.empty((len(rows), *size.canvas), np.uint8)
        labels = np.empty(len(rows), np.int64)
        for number, row in enumerate(rows):
            image, labels[number], where = read_image(dataset, int(row), setting)
            pixels = as_input(image, teacher.image_shape, where, dataset, teacher.resizing).numpy()
            canvases[number] = on_canvas(pixels, size, teacher.image_shape)
            if self.is_labelled:
                check_label(int(labels[number]), teacher.num_classes, where)
        return Drawn(canvases, labels if self.is_labelled else None)

    def opened(self, setting: str) -> ImageDataset:
        """Return the dataset after checking that its files exist. No image is read."""
        return open_dataset(self.dataset, dataset_setting(setting))


def dataset_setting(setting: str) -> str:
    """Return the name of a source's dataset in errors; `benchmark.real` is a dataset itself."""
    return setting if setting.endswith(".real") else f"{setting}.dataset"


def on_canvas(pixels: Canvases, size: SetSize, image_shape: ImageShape) -> Canvases:
    """Return an image (C, H, W), padded to the canvas by reflection at its edges."""
    margins = [outer - inner for outer, inner in zip(size.canvas[1:], image_shape[1:], strict=True)]
    padding = [(0, 0), *((margin // 2, margin - margin // 2) for margin in margins)]
    enlarged: Canvases = np.pad(pixels, padding, mode="reflect")
    return enlarged
