"""R_adv."""

import math

import pytest
import torch

from dfnas_ray.config.experiment import make_experiment
from dfnas_ray.errors import ConfigError
from dfnas_ray.synthesis.regularizers.adversarial import adversarial_loss


def test_it_is_the_negative_divergence_of_images_that_the_student_names_right():
    teacher = torch.log(torch.tensor([[0.8, 0.2], [0.6, 0.4]]))
    student = torch.log(torch.tensor([[0.5, 0.5], [0.3, 0.7]])) + torch.tensor([[1e-6, 0.0], [0.0, 0.0]])
    # The second image is named wrongly; the first one has 0.8 log(0.8/0.5) + 0.2 log(0.2/0.5).
    expected = -(0.8 * math.log(1.6) + 0.2 * math.log(0.4)) / 2
    assert adversarial_loss(teacher, student).item() == pytest.approx(expected, abs=1e-5)


def test_a_student_that_follows_in_everything_leaves_nothing_to_ask_for():
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    assert adversarial_loss(logits, logits).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", [{"kind": "inversion"}, {"kind": "generator", "student": None}])
def test_it_is_refused_where_no_student_is_trained(method):
    with pytest.raises(ConfigError, match=r"adversarial\.weight \(0\.5\) is above 0: .*none is trained"):
        make_experiment(
            {"teacher": "digits", "synthesis": {"method": method, "regularizers": {"adversarial": {"weight": 0.5}}}}
        )
