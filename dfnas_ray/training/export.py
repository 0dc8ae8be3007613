"""The finished network as files that other tools load: safetensors weights and a `torch.export` program."""

from __future__ import annotations

from io import BytesIO

import torch
from safetensors.torch import save
from torch import nn

from dfnas_ray.storage.location import Location


def export_network(network: nn.Module, image_shape: tuple[int, int, int], folder: Location) -> None:
    """Write ``weights.safetensors`` and ``network.pt2`` (any batch size) into ``folder``."""
    network = network.cpu().eval()
    (folder / "weights.safetensors").write_bytes(
        save({name: t.contiguous() for name, t in network.state_dict().items()})
    )
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (torch.zeros(2, *image_shape),), dynamic_shapes=({0: batch},))
    buffer = BytesIO()
    torch.export.save(program, buffer)
    (folder / "network.pt2").write_bytes(buffer.getvalue())
