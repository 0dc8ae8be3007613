"""A network like the teacher that has learned nothing."""

import torch
from torch import nn
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


def test_weights_that_nothing_draws_anew_are_named():
    assert "VisionTransformer" in why_not_fresh(vit_b_16())
