"""A network like the teacher that has learned nothing."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torchvision.models import resnet18, vit_b_16

from dfnas_ray.teachers.cifar_resnet import resnet20
from dfnas_ray.teachers.fresh import fresh_copy, why_not_fresh


def test_no_weight_of_the_model_is_kept():
    torch.manual_seed(0)
    model = resnet20().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.fill_(0.125)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(3.0)
    fresh = fresh_copy(model)
    assert all((parameter != 0.125).all() for parameter in fresh.parameters())
    assert all(not (buffer == 3.0).any() for name, buffer in fresh.named_buffers() if name.endswith("running_mean"))
    assert fresh.training
    assert all(parameter.requires_grad for parameter in fresh.parameters())
    assert all((parameter == 0.125).all() for parameter in model.parameters()), "the model itself stays as it is"


def test_published_networks_of_layers_that_can_be_drawn_anew_are_taken():
    assert why_not_fresh(resnet18()) == ""
    assert why_not_fresh(nn.TransformerEncoderLayer(8, 2)) == ""


class HalfReset(nn.Linear):
    """A layer whose reset forgets a weight of its own."""

    def __init__(self):
        super().__init__(4, 4)
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, x):
        return super().forward(x) * self.scale


def pruned(layer):
    prune.random_unstructured(layer, "weight", amount=0.5)
    return layer


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (lambda: nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), "weight_g"),
        (lambda: nn.utils.spectral_norm(nn.Linear(8, 4)), "weight_orig"),
        (lambda: pruned(nn.Conv2d(3, 8, 3)), "weight_orig"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), "has weights and no reset_parameters"),
        (HalfReset, "scale"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_layer_that_keeps_what_it_has_learned_at_its_reset_is_named(layer, kept):
    torch.manual_seed(0)
    model = nn.Sequential(layer(), nn.BatchNorm2d(8))
    state = torch.get_rng_state()
    assert kept in why_not_fresh(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_nothing_draws_anew_are_named():
    assert "VisionTransformer" in why_not_fresh(vit_b_16())
