"""`dfnas space` as a user calls it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

from dfnas_ray.cli.main import app
from dfnas_ray.errors import DfnasError
from dfnas_ray.search_spaces import SPACES


def call(*arguments):
    result = CliRunner().invoke(app, ["space", *map(str, arguments)])
    if isinstance(result.exception, DfnasError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_names_every_space():
    shown = call("list")
    assert all(kind in shown for kind in SPACES.built_in)
    assert "15,625" in shown
    assert "all but proxyless" in shown


@pytest.mark.parametrize("kind", SPACES.built_in)
def test_show_prints_the_cost_and_draws_the_architecture(kind, tmp_path):
    config = SPACES.find(kind)()
    space = config.space(*config.native_input)
    genotype = space.sample(np.random.default_rng(0))
    picture = tmp_path / "a.svg"
    shown = call("show", kind, space.encode(genotype), "--out", picture)
    cost = space.cost(genotype)
    assert f"{cost.params:,} parameters, {cost.macs:,} MACs" in shown
    root = ET.parse(picture).getroot()
    texts = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    for name in space.cells(genotype):
        assert name in texts
    assert "stem" in texts


def test_count_prints_a_thousand_genotypes_in_the_files_order(tmp_path):
    space = SPACES.find("nasbench201")().space((3, 32, 32), 10)
    rng = np.random.default_rng(0)
    texts = [space.encode(space.sample(rng)) for _ in range(1000)]
    file = tmp_path / "genotypes.txt"
    file.write_text("\n".join(texts) + "\n\n")
    rows = json.loads(call("count", "nasbench201", "--file", file, "--json"))
    assert [row["genotype"] for row in rows] == texts
    assert set(rows[0]) == {"genotype", "params", "macs"}
    assert (rows[7]["params"], rows[7]["macs"]) == space.cost(space.decode(texts[7]))


def test_other_images_classes_and_widths_are_counted():
    rows = json.loads(
        call("count", "nasbench_macro", "01", "--json", "--image", "1x16x16", "--classes", "7", "--set", "stem_channels=4",
             "--set", "stage_layers=[1,1]", "--set", "stage_channels=[8,16]", "--set", "head_channels=16")
    )  # fmt: skip
    config = SPACES.find("nasbench_macro")(
        stem_channels=4, stage_layers=(1, 1), stage_channels=(8, 16), head_channels=16
    )
    space = config.space((1, 16, 16), 7)
    assert (rows[0]["params"], rows[0]["macs"]) == space.cost((0, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nasbnch201", "x"], "Did you mean nasbench201"),
        (["show", "darts", "22212220"], "is not a genotype of darts"),
        (
            ["count", "nasbench201", "|nor_conv_9x9~0|+|none~0|none~1|+|none~0|none~1|none~2|"],
            "'nor_conv_9x9' is none of",
        ),
        (["count", "nasbench201"], "nothing to count"),
        (["count", "nasbench201", "--file", "absent.txt"], "absent.txt"),
        (["show", "shufflenet", "random", "--image", "3x3"], "such as 3x32x32"),
        (["show", "shufflenet", "random", "--set", "stage_chanels=[1]"], "Did you mean stage_channels"),
        (["latency", "nasbench201", "--out", "t.json", "--device", "tpu9"], "must be cpu, cuda"),
    ],
)
def test_wrong_input_is_one_clear_error(arguments, message):
    with pytest.raises(DfnasError, match=message.replace("[", r"\[")):
        call(*arguments)


def test_a_wrong_line_of_a_file_is_named(tmp_path):
    file = tmp_path / "g.txt"
    file.write_text("00000000\n\n0000000x\n")
    with pytest.raises(DfnasError, match="line 3: '0000000x' is not a genotype"):
        call("count", "nasbench_macro", "--file", file, "--json")


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_latency_table_that_whole_networks_contradict_is_not_trusted(monkeypatch, tmp_path, share):
    def parameters(module, *_):
        return float(sum(weight.numel() for weight in module.parameters()) + 1)

    # Nothing is timed: the table says 1 s for each weight of its parts, whole networks are as fast or much faster.
    monkeypatch.setattr("dfnas_ray.search_spaces.latency.measure_latency", parameters)
    monkeypatch.setattr("dfnas_ray.ops.latency.measure_latency", lambda *given: share * parameters(*given))
    result = CliRunner().invoke(app, ["space", "latency", "nasbench_macro", "--out", str(tmp_path / "t.json")])
    assert result.exit_code == 0, result.output
    assert ("by a factor of 10.0." in " ".join(result.stderr.split())) == (share < 1)
    assert (tmp_path / "t.json").exists()
