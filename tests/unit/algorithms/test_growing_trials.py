"""A trial on a set that is being made, broken off and started again. No cluster is started."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from dfnas_ray.algorithms.config import SearchConfig
from dfnas_ray.algorithms.trials import SearchJob, begin_trial, take_up
from dfnas_ray.config.cluster import SearchResources
from dfnas_ray.storage.arrivals import GrowingSet, ShardFolder, ShardsMissing
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.shards import ShardInfo, encode_shard, shard_name
from dfnas_ray.teachers.base import freeze_teacher
from dfnas_ray.teachers.digits import DigitsCNN
from dfnas_ray.training.batches import SyntheticBatches

ROWS, KEY = 40, "k" * 64
SPACE = {"stem_channels": 4, "stage_layers": [1, 1], "stage_channels": [8, 16], "head_channels": 16}
EVOLUTION = {"generations": 2, "population": 3, "parents": 2, "mutations": 2, "crossovers": 1}
ALGORITHMS = {
    "spos": {"kind": "spos", "epochs": 4, "batch_size": 16, "calibration_batches": 1, "evolution": EVOLUTION},
    "darts": {"kind": "darts", "epochs": 4, "batch_size": 16, "collapse": {"eigenvalue": False}},
    "proxyless": {"kind": "proxyless", "epochs": 4, "batch_size": 16, "warmup_epochs": 1},
}


class BrokenOff(Exception):  # noqa: N818 - it is no error
    pass


class Run:
    """One trial in a folder of its own. Shards come within an epoch, as told."""

    def __init__(self, folder, algorithm: str, arrivals: dict[int, list[int]]):
        torch.manual_seed(0)
        self.teacher = freeze_teacher("t", DigitsCNN(4), (1, 16, 16), (0.3,), (0.3,))
        self.folder = Location.parse(folder).make_dir()
        self.source, self.arrivals = ShardFolder(self.folder / "set", KEY, 4, ROWS), arrivals
        config = SearchConfig.model_validate(
            {
                "algorithm": ALGORITHMS[algorithm],
                "space": {"kind": "nasbench_macro", **SPACE},
                "seeds": [0],
                "max_macs": None,
                "start_after_shards": 1,
                "precision": "float32",
            }
        )
        self.job = SearchJob(config, SearchResources(), 0, None, self.folder)
        self.commit(0)

    def commit(self, shard: int) -> None:
        rng = np.random.default_rng(shard)
        images = rng.integers(0, 256, (ROWS, 1, 18, 18), dtype=np.uint8)
        logits = rng.normal(size=(ROWS, 10)).astype(np.float32)
        data = encode_shard(ShardInfo(KEY, shard, 4, "t", []), images, np.zeros(ROWS, int), np.zeros(ROWS, int), logits)
        (self.source.folder / shard_name(shard)).write_bytes(data)

    def go_on(self, break_in: int | None = None):
        """Start the trial, as a worker does, and return its state at the end."""
        growing = GrowingSet(self.source, self.folder / "shards.json")
        torch.manual_seed(1234)
        state, batches = begin_trial(
            self.job, self.job.config.trials[0], self.teacher, self.source, growing, torch.device("cpu")
        )
        file = self.folder / "state.pt"
        if file.exists():
            state.load_state_dict(torch.load(io.BytesIO(file.read_bytes()), weights_only=True))
        take_up(state, growing, batches)
        plain = SyntheticBatches.epoch

        def epoch(own, number):
            for count, batch in enumerate(plain(own, number)):
                if count == 1 and state.algorithm.is_training and number == state.algorithm.epochs_done:
                    for shard in self.arrivals.get(number, []):
                        self.commit(shard)
                    if number == break_in:
                        raise BrokenOff
                yield batch

        def on_progress(state):
            state.history[-1]["images"] = len(batches.train.ids)
            buffer = io.BytesIO()
            torch.save(state.state_dict(), buffer)
            file.write_bytes(buffer.getvalue())
            take_up(state, growing, batches)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SyntheticBatches, "epoch", epoch)
            state.run(on_progress)
        return state, growing


@pytest.mark.parametrize(
    ("algorithm", "break_in"), [("spos", 0), ("spos", 1), ("spos", 2), ("darts", 1), ("proxyless", 1)]
)
def test_an_epoch_that_broke_off_is_done_again_on_the_images_that_it_was_given(tmp_path, algorithm, break_in):
    arrivals = {0: [2], 1: [1], 2: [3]}  # each comes within an epoch, and is for the next one
    undisturbed, growing = Run(tmp_path / "undisturbed", algorithm, arrivals).go_on()
    assert growing.arrivals == [[0], [2], [1], [3]]
    seen = [entry["images"] for entry in undisturbed.history if entry["phase"] == "training"]
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]
    broken = Run(tmp_path / "broken", algorithm, arrivals)
    with pytest.raises(BrokenOff):
        broken.go_on(break_in)
    ended, again = broken.go_on()
    assert again.arrivals == growing.arrivals
    assert ended.history == undisturbed.history
    assert ended.algorithm.best() == undisturbed.algorithm.best()


def test_candidates_are_not_compared_before_all_images_are_there(tmp_path):
    run = Run(tmp_path, "spos", {1: [3]})
    with pytest.raises(ShardsMissing):
        run.go_on()
    for shard in (1, 2):
        run.commit(shard)
    state, growing = run.go_on()
    assert growing.arrivals == [[0], [], [3], []]
    assert [entry["phase"] for entry in state.history] == ["training"] * 4 + ["sampling"] * 2
    assert len(state.algorithm.train.ids) + len(state.algorithm.problem.validation.ids) == 4 * ROWS


def test_a_search_that_only_trains_ends_without_the_rest(tmp_path):
    state, growing = Run(tmp_path, "darts", {0: [1]}).go_on()
    assert growing.arrivals == [[0], [1], [], []]
    assert state.algorithm.best()[0] in state.algorithm.finalists(2)
