"""The DARTS genotype's parser, the auxiliary classifier and drop-path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfnas_ray.errors import GenotypeError
from dfnas_ray.search_spaces import DartsSpaceConfig
from dfnas_ray.training.student import set_drop_path

SPACE = DartsSpaceConfig(channels=4, layers=3, search_channels=4, search_layers=3).space((3, 32, 32), 10)
GENOTYPE = SPACE.sample(np.random.default_rng(0))
TEXT = SPACE.encode(GENOTYPE)


def test_the_text_may_use_ranges_lists_tuples_spaces_and_any_order_of_a_nodes_edges():
    first = TEXT.index("[") + 1
    one, two = TEXT[first:].split("), ")[:2]
    swapped = TEXT.replace(f"{one}), {two})", f"{two}), {one})", 1)
    for same in (
        TEXT.replace("range(2, 6)", "[2, 3, 4, 5]"),
        TEXT.replace("[", "(").replace("]", ")"),
        f" {TEXT}\n",
        swapped,
    ):
        assert SPACE.decode(same) == GENOTYPE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.replace("Genotype(", "Genotyp("), "must look like"),
        (lambda t: t.replace("normal=", "norml="), "norml is unknown"),
        (lambda t: t.split(", reduce=")[0] + ")", "reduce is missing"),
        (lambda t: t.replace("range(2, 6)", "range(2, 5)", 1), "normal_concat must be all nodes"),
        (lambda t: t.replace("', 0)", "', 9)", 1), "takes input 9"),
        (lambda t: t.replace("', 1)", "', 0)", 1), "takes input 0 twice"),
        (lambda t: t.replace("_conv_", "_cnv_").replace("_pool_", "_pol_"), "is none of"),
        (lambda t: t.replace("('", "['none', 0], ('", 1), "must be 8 pairs"),
        (lambda t: t.replace("range(2, 6)", "range(2, __import__('os').getpid())", 1), "must be range"),
        (lambda t: t + "." * 20_000, "characters"),
    ],
)
def test_a_wrong_text_says_what_is_wrong(change, reason):
    with pytest.raises(GenotypeError, match=reason):
        SPACE.decode(change(TEXT))


def test_nothing_in_a_text_is_evaluated(tmp_path):
    file = tmp_path / "made"
    with pytest.raises(GenotypeError):
        SPACE.decode(f"Genotype(normal=open({str(file)!r}, 'w'), normal_concat=1, reduce=2, reduce_concat=3)")
    assert not file.exists()


def test_none_is_never_an_operation_of_a_genotype():
    with pytest.raises(GenotypeError, match="'none' in normal"):
        SPACE.decode(TEXT.replace(TEXT.split("'")[1], "none", 1))


def test_the_auxiliary_classifier_speaks_in_training_only():
    network, x = SPACE.build_with_auxiliary(GENOTYPE), torch.randn(2, 3, 32, 32)
    logits, auxiliary = network.train()(x)
    assert logits.shape == auxiliary.shape == (2, 10)
    assert network.eval()(x).shape == (2, 10)


def test_drop_path_drops_whole_paths_in_training_only():
    network, x = SPACE.build(GENOTYPE), torch.randn(4, 3, 32, 32)
    set_drop_path(network, 0.5)
    network.train()
    torch.manual_seed(0)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))
    set_drop_path(network, 0.0)
    network.train()
    assert torch.equal(network(x), network(x))


def test_the_two_heaviest_edges_of_a_node_are_kept_whatever_none_weighs():
    rows = [np.full(8, -9.0) for _ in SPACE.num_options]
    for row in rows:
        row[0] = 5.0  # none is heaviest everywhere, and never chosen
    rows[9][4], rows[13][7] = 1.0, 2.0  # the last node of the normal cell: from cell k-2, and from node 3
    genes = SPACE.genes(SPACE.derive(rows))[0]
    assert genes[6:] == [("sep_conv_3x3", 0), ("dil_conv_5x5", 4)]
