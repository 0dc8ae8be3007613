"""Compiled functions: their results, many of them in one process, and life without a compiler."""

import logging

import pytest
import torch
from torch import nn
from torch._inductor.codecache import PyCodeCache

from dfnas_ray.ops.compiling import CompiledCall

SETTING = "retraining.compile"


def small_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    network[1].running_mean.fill_(0.3)
    network[1].running_var.fill_(2.0)
    return network


def test_a_compiled_network_gives_what_it_gave_and_learns_the_same():
    plain, compiled = small_network(), small_network()
    call = CompiledCall(compiled, SETTING)
    images = torch.randn(6, 3, 4, 4)
    for network, forward in ((plain, plain), (compiled, call)):
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            forward(images).square().sum().backward()
            optimizer.step()
    for old, new in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)


def test_a_frozen_network_gives_what_it_gave_without_its_batch_norm():
    network = small_network().eval().requires_grad_(False)
    images = torch.randn(6, 3, 4, 4)
    call = CompiledCall(network, SETTING, is_frozen=True)
    with torch.no_grad():
        torch.testing.assert_close(call(images), network(images), rtol=1e-4, atol=1e-5)
        with torch.profiler.profile() as record:
            call(images)
    names = {event.name for event in record.events()}
    assert not any("batch_norm" in name for name in names), names
    assert "mkldnn::_convolution_pointwise" in names, "ReLU is part of the convolution"
    assert PyCodeCache.modules
    CompiledCall(nn.Linear(4, 4), SETTING)
    assert not PyCodeCache.modules, "the folded weights are not kept for ever"


def test_a_function_is_compiled_once_for_inputs_of_one_shape(graphs):
    call = CompiledCall(small_network(), SETTING)
    for _ in range(3):
        call(torch.randn(6, 3, 4, 4))
    assert len(graphs) == 1


def test_all_of_many_networks_are_compiled(graphs):
    limit = torch._dynamo.config.recompile_limit
    for number in range(1, limit + 3):
        network = nn.Sequential(*[nn.Linear(4, 4) for _ in range(number)])
        CompiledCall(network, SETTING)(torch.randn(2, 4))
        assert len(graphs) == number


def test_an_earlier_network_goes_on_after_a_later_one(graphs):
    first, images = CompiledCall(small_network(), SETTING), torch.randn(6, 3, 4, 4)
    before = first(images)
    CompiledCall(nn.Linear(4, 4), SETTING)(torch.randn(2, 4))
    assert torch.equal(first(images), before)


def test_without_a_compiler_the_function_is_called_with_one_warning(broken_compiler, caplog):
    network, images = small_network(), torch.randn(6, 3, 4, 4)
    call = CompiledCall(network, SETTING)
    with caplog.at_level(logging.WARNING):
        results = [call(images) for _ in range(3)]
    assert len(broken_compiler) == 1, "it is not tried again"
    (record,) = caplog.records
    assert "torch.compile does not work here" in record.getMessage()
    assert "retraining.compile=false" in record.getMessage()
    assert torch.equal(results[0], results[2])


@pytest.mark.skipif(
    not hasattr(torch._functorch.config, "force_non_lazy_backward_lowering"), reason="torch 2.9 compiles gradients late"
)
@pytest.mark.filterwarnings("ignore:dynamo_pgo")  # it belongs to the caches that are off here
def test_gradients_that_cannot_be_compiled_are_computed_without(monkeypatch, caplog):
    compile_graph = torch._inductor.compile_fx.fx_codegen_and_compile

    def without_gradients(*args, **kwargs):
        if kwargs["is_backward"]:
            raise torch._inductor.exc.CppCompileError(["g++"], "No space left on device")
        return compile_graph(*args, **kwargs)

    monkeypatch.setattr(torch._inductor.compile_fx, "fx_codegen_and_compile", without_gradients)
    plain, network, images = small_network(), small_network(), torch.randn(6, 3, 4, 4)
    call = CompiledCall(network, SETTING)
    with torch._inductor.config.patch(force_disable_caches=True), caplog.at_level(logging.WARNING):
        for _ in range(2):
            call(images).square().sum().backward()
            plain(images).square().sum().backward()
    said = [record.getMessage() for record in caplog.records if record.name == "dfnas_ray.ops.compiling"]
    assert len(said) == 1
    assert "C++ compile error" in said[0]
    for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_an_error_of_the_network_stays_one():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("no such shape")

    with pytest.raises(RuntimeError, match="no such shape"):
        CompiledCall(Broken(), SETTING)(torch.randn(2, 4))
