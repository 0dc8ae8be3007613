"""SPOS: uniform paths, statistics estimated anew, scores independent of their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.one_shot import path_angle, reestimate_batch_norm
from dfnas_ray.algorithms.spos import SposConfig

EVOLUTION = {"generations": 2, "population": 3, "parents": 2, "mutations": 2, "crossovers": 1}


def make_spos(problem):
    return SposConfig(epochs=2, batch_size=16, calibration_batches=2, evolution=EVOLUTION).algorithm(problem)


def test_training_takes_every_choice_within_three_sigma_of_uniform(chain, make_problem, monkeypatch):
    spos, paths = make_spos(make_problem(chain)), []
    monkeypatch.setattr(
        spos.student, "step", lambda batch, forward: paths.append(forward(batch.images)) or torch.zeros(())
    )
    monkeypatch.setattr(spos, "supernet", lambda images, path: path)
    while len(paths) < 3000:
        spos.train_epoch()
    for column in np.array(paths).T:
        counts, expected = np.bincount(column, minlength=3), len(paths) / 3
        assert np.abs(counts - expected).max() < 3 * np.sqrt(expected * (2 / 3))


def test_scores_do_not_depend_on_the_order_of_candidates(chain, make_problem):
    scorer = make_spos(make_problem(chain)).scorer()
    candidates = [chain.decode(text) for text in ("0000", "1212", "2222")]
    assert scorer(candidates) == scorer(candidates[::-1])[::-1]


def test_reestimated_statistics_are_the_plain_average_over_batches(chain):
    supernet = chain.supernet()
    batches = [torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    reestimate_batch_norm(supernet, chain.decode("1111"), batches)
    convolution, norm = supernet.stem[0], supernet.stem[1]
    outputs = [convolution(batch) for batch in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([o.mean((0, 2, 3)) for o in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([o.var((0, 2, 3)) for o in outputs]).mean(0))
    assert not supernet.training


def test_the_angle_is_that_between_the_weights_along_the_path(chain):
    before, after = chain.supernet(), chain.supernet()
    images = torch.randn(2, 1, 16, 16)
    choices = chain.choices(chain.decode("1111"))
    assert path_angle(before, before, choices, images) == pytest.approx(0, abs=1e-6)
    after.load_state_dict(before.state_dict())
    with torch.no_grad():
        for module in after.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.mul_(-3)
    assert path_angle(before, after, choices, images) == pytest.approx(np.pi)
    with torch.no_grad():  # along another path nothing is turned: its blocks stay as they are
        after.load_state_dict(before.state_dict())
        for name, module in after.named_modules():
            if isinstance(module, torch.nn.Conv2d) and ".options.2." in name:
                module.weight.mul_(-1)
    assert path_angle(before, after, choices, images) == pytest.approx(0, abs=1e-6)
    assert path_angle(before, after, chain.choices(chain.decode("2222")), images) > 0.5


@pytest.mark.parametrize("fitness", ["agreement", "distillation_loss", "class_accuracy", "angle"])
def test_every_fitness_scores_candidates(chain, make_problem, fitness):
    spos = SposConfig(epochs=1, batch_size=16, calibration_batches=2, fitness=fitness, evolution=EVOLUTION).algorithm(
        make_problem(chain)
    )
    spos.train_epoch()
    candidates = [chain.decode(text) for text in ("0000", "1212", "2222")]
    scores = [measured["score"] for measured in spos.scorer()(candidates)]
    assert all(np.isfinite(scores))
    if fitness == "class_accuracy":
        labels = spos.problem.validation.labels
        scorer = spos.scorer()
        scorer.labels = torch.full_like(labels, -1)  # a class that no network names
        assert [measured["score"] for measured in scorer(candidates)] == [0, 0, 0]
