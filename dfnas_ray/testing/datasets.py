"""The tests of labelled datasets."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import pytest
from PIL import Image

from dfnas_ray.datasets import DATASETS, ImageDataset
from dfnas_ray.datasets.base import iterate_batches, numbering_of, read_image
from dfnas_ray.errors import DatasetError
from dfnas_ray.testing.member import ConfigSuite


class DatasetSuite(ConfigSuite):
    """The tests that every labelled dataset must pass.

    Attributes:
        num_classes: The number of classes; labels must be below it.
        broken: Settings that cannot be opened, such as a missing folder; or a fixture of this name.
    """

    family = DATASETS
    num_classes: ClassVar[int] = 1000
    broken: Any = None

    @pytest.fixture
    def dataset(self, config: Any) -> ImageDataset:
        """The dataset, opened."""
        opened: ImageDataset = config.open()
        return opened

    def test_it_holds_images_and_class_numbers(self, dataset: ImageDataset) -> None:
        """Each item is a PIL image and an int, the number of its class."""
        count = len(dataset)
        assert count > 0
        for index in {0, count // 2, count - 1}:
            image, label = dataset[index]
            assert isinstance(image, Image.Image)
            assert type(label) is int, f"a label must be an int, not {type(label).__name__}"
            assert 0 <= label < self.num_classes
            read_image(dataset, index, "here")

    def test_an_item_is_the_same_each_time(self, dataset: ImageDataset) -> None:
        """Nothing is shuffled or varied."""
        (first, label), (second, again) = dataset[0], dataset[0]
        assert label == again
        assert first.tobytes() == second.tobytes()

    def test_it_ends(self, dataset: ImageDataset) -> None:
        """A loop that does not ask for its length stops."""
        with pytest.raises(IndexError):
            dataset[len(dataset)]

    def test_its_images_become_a_teachers_input(self, dataset: ImageDataset) -> None:
        """Grey images become one channel, others three."""
        image, _ = dataset[0]
        channels = 1 if image.mode in ("L", "1", "I;16", "I") else 3
        numbering = numbering_of(dataset)
        classes = self.num_classes if numbering is None else len(numbering.names)
        images, labels = next(iter(iterate_batches(dataset, (channels, 16, 16), classes, batch_size=2)))
        assert images.shape[1:] == (channels, 16, 16)
        assert len(images) == len(labels)

    def test_opened_twice_it_has_the_same_fingerprint(self, config: Any, dataset: ImageDataset) -> None:
        """Results on other images must be recognised as stale."""
        assert isinstance(dataset.fingerprint, str)
        assert dataset.fingerprint
        assert config.open().fingerprint == dataset.fingerprint

    def test_it_has_a_description_for_results(self, dataset: ImageDataset) -> None:
        """The description is one line."""
        assert dataset.description
        assert dataset.description.isprintable()

    def test_it_is_pickled(self, dataset: ImageDataset) -> None:
        """A sweep with labelled images sends them to workers."""
        copied = pickle.loads(pickle.dumps(dataset))
        assert len(copied) == len(dataset)
        assert copied[0][1] == dataset[0][1]

    def test_an_error_names_the_setting(self, request: pytest.FixtureRequest) -> None:
        """Evaluations and sweeps have different settings for their datasets."""
        broken = self.broken
        if broken is not None and not hasattr(broken, "open"):
            broken = request.getfixturevalue("broken")
        if broken is None:
            pytest.skip("set broken to settings that cannot be opened")
        with pytest.raises(DatasetError, match=r"sweep\.labelled"):
            broken.open("sweep.labelled")
