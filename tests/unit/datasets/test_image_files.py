"""From an image file to a teacher's input."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from dfnas_ray.datasets.base import iterate_batches, to_uint8
from dfnas_ray.errors import DatasetError


class Listed:
    """A dataset of (image, label) pairs; a callable in place of an image is called for it."""

    description = "listed images"

    def __init__(self, *pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        image, label = self.pairs[index]
        return (image() if callable(image) else image), label


def grey(value=0, size=(4, 4)):
    return Image.new("L", size, value)


def test_an_image_of_the_right_size_keeps_its_pixels():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)  # H, W, C
    tensor = to_uint8(Image.fromarray(pixels), (3, 2, 3), "here")
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    assert np.array_equal(tensor.numpy(), pixels.transpose(2, 0, 1))


def test_a_grey_image_becomes_three_equal_channels():
    assert to_uint8(grey(77), (3, 4, 4), "here").unique().tolist() == [77]


def test_a_larger_image_is_resized_to_eight_sevenths_and_cropped_in_the_centre():
    # 28 columns: black, white from column 14. At 16 columns (14 / 0.875) the edge is at 8, after the crop at 7.
    pixels = np.zeros((28, 28), np.uint8)
    pixels[:, 14:] = 255
    row = to_uint8(Image.fromarray(pixels), (1, 14, 14), "here")[0, 5].tolist()
    assert row[:6] == [0] * 6
    assert row[8:] == [255] * 6
    assert row[6] < 128 < row[7]


def test_the_crop_removes_the_border_of_one_eighth():
    pixels = np.full((64, 64), 100, np.uint8)
    pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:] = 255, 255, 255, 255  # 3 of 64 < 1/16 on each side
    assert to_uint8(Image.fromarray(pixels), (1, 28, 28), "here").unique().tolist() == [100]


def test_a_wide_image_is_cropped_not_squeezed():
    pixels = np.zeros((16, 48), np.uint8)
    pixels[:, 12:36] = 200  # the middle 24 of 48 columns
    assert to_uint8(Image.fromarray(pixels), (1, 14, 14), "here").unique().tolist() == [200]


def test_a_square_image_fills_an_input_that_is_not_square():
    assert to_uint8(grey(255, (64, 64)), (1, 16, 48), "here").unique().tolist() == [255]


def test_a_16_bit_grey_image_is_scaled_to_8_bits():
    image = Image.fromarray(np.full((4, 4), 40_000, np.uint16))  # 40000 / 65535 = 156 / 255
    assert to_uint8(image, (1, 4, 4), "here").float().mean().item() == pytest.approx(156, abs=1)


def test_a_colour_image_for_a_grey_teacher_is_refused():
    with pytest.raises(DatasetError, match=r"here: the image has colours, and the teacher takes 1 channel"):
        to_uint8(Image.new("RGB", (4, 4), (9, 0, 0)), (1, 4, 4), "here")


def test_a_teacher_of_two_channels_cannot_be_fed_from_files():
    with pytest.raises(DatasetError, match="here: the teacher takes 2 channels"):
        to_uint8(grey(), (2, 4, 4), "here")


def test_batches_come_in_order_with_a_smaller_last_one():
    dataset = Listed(*((grey(10 * i), i % 3) for i in range(5)))
    batches = list(iterate_batches(dataset, (1, 4, 4), num_classes=3, batch_size=2))
    assert [tuple(images.shape) for images, _ in batches] == [(2, 1, 4, 4), (2, 1, 4, 4), (1, 1, 4, 4)]
    assert [int(image[0, 0, 0]) for images, _ in batches for image in images] == [0, 10, 20, 30, 40]
    labels = torch.cat([labels for _, labels in batches])
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_out_of_range_names_the_image_and_the_range(label):
    dataset = Listed((grey(), 0), (grey(), label))
    with pytest.raises(DatasetError, match=rf"listed images, image 1: label {label}, .* 3 classes \(0 to 2\)"):
        list(iterate_batches(dataset, (1, 4, 4), num_classes=3))


def test_an_empty_dataset_is_refused():
    with pytest.raises(DatasetError, match=r"evaluation\.dataset: listed images holds no images"):
        list(iterate_batches(Listed(), (1, 4, 4), num_classes=3))


def _half_a_jpeg():
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return Image.open(BytesIO(buffer.getvalue()[: buffer.tell() // 2]))


def test_an_image_that_cannot_be_opened_is_named():
    dataset = Listed((grey(), 0), (lambda: Image.open(BytesIO(b"no image")), 0))
    with pytest.raises(DatasetError, match="listed images, image 1 cannot be read"):
        list(iterate_batches(dataset, (1, 4, 4), num_classes=3))


def test_an_image_that_opens_but_is_cut_off_is_named():
    dataset = Listed((grey(), 0), (_half_a_jpeg, 0))  # PIL decodes lazily: the error comes after open()
    with pytest.raises(DatasetError, match="listed images, image 1 cannot be read"):
        list(iterate_batches(dataset, (1, 4, 4), num_classes=3))
