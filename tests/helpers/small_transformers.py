"""A small image classifier of Hugging Face transformers with random weights, in a folder as save_pretrained() writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.3],
    "size": {"shortest_edge": 24},
}


def save_small_resnet(folder: Path, processor: dict[str, Any] | None = PROCESSOR, **config: Any) -> Path:
    """Write a ResNet for three classes, and its image processor's file unless that is None."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = transformers.ResNetConfig(
        **{
            "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic",
            "id2label": {0: "cat", 1: "dog", 2: "crane"}, "num_labels": 3, **config,
        }
    )  # fmt: skip
    transformers.utils.logging.disable_progress_bar()
    transformers.ResNetForImageClassification(settings).save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
