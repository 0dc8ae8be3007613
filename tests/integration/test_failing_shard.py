"""A shard that cannot be made, from the command's point of view: told, in nobody's way, and made by the next command."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from dfnas_ray.teachers.digits import DigitsCNN

pytestmark = pytest.mark.timeout(240)

NETWORK = '''
from pathlib import Path

import torch
from torch import nn

from dfnas_ray.seeding import derive_seed
from dfnas_ray.teachers.digits import DigitsCNN


class Moody(nn.Module):
    """Answers NaN to the noise of one shard, as long as a file is there."""

    def __init__(self, flag, shard):
        super().__init__()
        self.inner, self.flag, self.seed = DigitsCNN(4), Path(flag), derive_seed(0, "shard", shard)

    def forward(self, x):
        logits = self.inner(x)
        return logits * float("nan") if self.flag.exists() and torch.initial_seed() == self.seed else logits


def build(flag, shard):
    return Moody(flag, shard)
'''


@pytest.fixture
def moody(monkeypatch, tmp_path):
    """The --set of a teacher with NaN for shard 1, and the file that makes it so."""
    name, flag = "moody_network_of_a_test", tmp_path / "moody"
    (tmp_path / f"{name}.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    ray = sys.modules.get("ray")
    if ray is not None:
        ray.cloudpickle.register_pickle_by_value(module)  # the shared cluster's workers started elsewhere
    torch.manual_seed(0)
    torch.save({f"inner.{key}": value for key, value in DigitsCNN(4).state_dict().items()}, tmp_path / "moody.pt")
    flag.touch()
    yield (
        (
            f"teacher={{kind: checkpoint, checkpoint: {tmp_path / 'moody.pt'}, builder: '{name}:build', "
            f"arguments: {{flag: {flag}, shard: 1}}, image_shape: [1, 16, 16], mean: [0.3], std: [0.3]}}"
        ),
        flag,
    )
    if ray is not None:
        ray.cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[name]


def test_a_shard_of_nan_is_told_holds_nothing_up_and_is_made_by_the_same_command_later(
    address, dfnas, moody, tiny_yaml, tmp_path
):
    teacher, flag = moody
    run_dir = tmp_path / "run"
    settings = [teacher, "search.seeds=[0]", "search.algorithm.epochs=1", "retraining.baseline=false"]
    command = (
        "run",
        tiny_yaml,
        "--run-dir",
        run_dir,
        "--address",
        address,
        *(word for s in settings for word in ("--set", s)),
    )

    code, _, err = dfnas(*command)
    assert code == 2
    assert "Traceback" not in err
    for words in (
        "error: 1 of 3 shards could not be made (shard 1: Shard 1, round 0: The synthesis loss is not finite at step 0",
        "Lower synthesis.method.lr",
        "The other shards are kept",
        "run the same command again for these shards alone",
    ):
        assert words in err
    made = {path.name: path.stat().st_mtime_ns for path in run_dir.glob("synthesis/*/shard-*.parquet")}
    assert sorted(made) == ["shard-00000.parquet", "shard-00002.parquet"], "the one after it is made as well"
    assert not list(run_dir.glob("synthesis/*/done.json"))
    assert not (run_dir / "search").exists()

    flag.unlink()
    code, _, err = dfnas(*command)
    assert code == 0, err
    assert "2 of 3 shards are there already" in err
    after = {path.name: path.stat().st_mtime_ns for path in run_dir.glob("synthesis/*/shard-*.parquet")}
    assert set(after) == {*made, "shard-00001.parquet"}
    assert {name: after[name] for name in made} == made, "what was there is not made again"
    assert (run_dir / "report.html").exists()

    flag.touch()
    code, _, err = dfnas("synthesize", *command[1:], "--set", "synthesis.method.lr=0.2")
    assert code == 2, "another setting is another set, in which the same shard fails"
    assert len(list(run_dir.glob("synthesis/*/shard-00002.parquet"))) == 2
