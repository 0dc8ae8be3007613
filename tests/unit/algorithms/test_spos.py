"""SPOS: uniform paths, statistics estimated anew, scores independent of their order."""

from __future__ import annotations

import numpy as np
import torch

from dfnas_ray.algorithms.one_shot import reestimate_batch_norm
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
