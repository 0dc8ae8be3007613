"""How pictures of another size become inputs of a teacher: resized, then cropped in the centre."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from dfnas_ray.errors import DatasetError
from dfnas_ray.progress import say_once
from dfnas_ray.storage.pictures import PictureError, check_pixels

Crop: TypeAlias = Annotated[float, Field(gt=0, le=1)]
"""Share of a resized picture's shorter side that is kept."""

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
"""How pixels are interpolated; always antialiased."""


class Resizing(BaseModel):
    """How a picture becomes an input. A picture that has the input's size is left as it is.

    Attributes:
        crop: The picture is resized to cover 1 / ``crop`` of the input, and the centre is kept. 0.875 is 224 of 256.
        squash: Resize height and width to exactly 1 / ``crop`` of the input; the aspect ratio may change.
        interpolation: How pixels are interpolated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: Crop = 0.875
    squash: bool = False
    interpolation: Interpolation = "bilinear"

    def apply(self, image: Image.Image, size: tuple[int, int], where: str) -> Image.Image:
        """Return the picture with this height and width.

        Raises:
            DatasetError: it would be too large when resized.
        """
        height, width = size
        if image.size == (width, height):
            return image
        import torchvision.transforms.functional as TF  # imported late: it takes a second, even for `dfnas --help`

        resized = self.resized(size, (image.height, image.width))
        try:
            check_pixels(*reversed(resized))
        except PictureError as error:
            shown = f"{image.width:,} x {image.height:,}"
            raise DatasetError(f"{where}: {shown} pixels cannot be resized to the teacher's input: {error}.") from error
        image = TF.resize(image, resized, TF.InterpolationMode(self.interpolation))
        found: Image.Image = TF.center_crop(image, [height, width])
        return found

    def resized(self, size: tuple[int, int], of: tuple[int, int]) -> list[int]:
        """Return height and width before the crop, of a picture with height and width ``of``."""
        scales = [wanted / own / self.crop for wanted, own in zip(size, of, strict=True)]
        if not self.squash:
            scales = [max(scales)] * 2  # covers the input on both sides
        return [round(own * scale) for own, scale in zip(of, scales, strict=True)]

    def keyed(self, fingerprint: str) -> str:
        """Return the fingerprint of a dataset whose images are resized in this way. By default it stays the same."""
        return fingerprint if self == Resizing() else f"{fingerprint} {self.model_dump_json()}"

    def described(self, size: tuple[int, int]) -> str:
        """Return what happens to a picture, for an input of this height and width."""
        how = "squashed to" if self.squash else "resized to cover"
        height, width = (round(side / self.crop) for side in size)
        cropped = "" if self.crop == 1 and self.squash else ", then cropped to their centre"
        return f"{how} {height} x {width} ({self.interpolation}){cropped}"

    def say(self, description: str, size: tuple[int, int]) -> None:
        """Say once what happens to a dataset's images of another size."""
        height, width = size
        say_once(
            f"{description}: images of another size than the input, {height} x {width}, are {self.described(size)}. If the "
            "teacher's own images were prepared in another way, set teacher.crop, teacher.squash and teacher.interpolation."
        )
