"""A set of images for training: on the device, or in the host's memory if it is too large for the device."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from dfnas_ray.storage.shards import Ids, SyntheticImages

_SHARE = 0.5
"""The images are on the device if they take at most this share of its free memory; the rest is for networks."""


class DeviceImages:
    """The images of a set, which many `SyntheticBatches` can share.

    On a CPU they are used where they are, even in a file or in an object store. A GPU gets a copy of the set if it has
    room for it. Otherwise each batch is copied to it, and no more.

    Attributes:
        device: The device of the batches.
        ids: The ids (N,) of the images.
        logits: The stored logits, float32 (N, num_classes), on the device.
        labels: The classes that the images were made for, int64 (N,), on the device.
    """

    def __init__(self, data: SyntheticImages, device: torch.device):
        self.device = device
        self.replace(data)

    def __len__(self) -> int:
        return len(self.ids)

    def replace(self, data: SyntheticImages) -> None:
        """Replace the images."""
        self.ids: Ids = data.ids
        warnings.filterwarnings(
            "ignore", message="The given NumPy array is not writable"
        )  # an object store's never are
        self._canvases = torch.from_numpy(data.images)
        self.logits = torch.from_numpy(np.array(data.logits))  # copies, which may be changed
        self.labels = torch.from_numpy(np.array(data.labels))
        self.to(self.device)

    def to(self, device: torch.device) -> None:
        """Move the images to another device."""
        self.device = device
        self.logits, self.labels = self.logits.to(device), self.labels.to(device)
        if self._canvases.device.type != device.type:
            has_room = device.type != "cuda" or self._canvases.nbytes <= _SHARE * torch.cuda.mem_get_info(device)[0]
            self._canvases = self._canvases.to(device if has_room else "cpu")

    def canvases(self, rows: Tensor) -> Tensor:
        """Return the canvases at ``rows``, uint8 (len(rows), C, H', W'), on the device."""
        return self._canvases[rows.to(self._canvases.device)].to(self.device)
