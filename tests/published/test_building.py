"""Networks that a file fills: nothing is drawn for them, and no constant is lost."""

from __future__ import annotations

import pytest
import torch
from small_cases import NAMES, small_case
from torch import nn

from mmgen.errors import CheckpointError
from mmgen.published.building import build
from mmgen.published.importing import convert_all
from mmgen.tokenizers_vis.eva import EvaConfig, build_eva
from mmgen.tokenizers_vis.quantizers import FSQ, LFQ, VQ, FSQConfig, LFQConfig, VQConfig
from mmgen.tokenizers_vis.vit import ViT, ViTConfig


def tower() -> nn.Module:
    return build_eva(EvaConfig(28, 14, 16, 2, 2, 20))


def layers() -> nn.Module:
    return nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2), nn.Conv2d(2, 2, 1), nn.LayerNorm(2))


@pytest.mark.parametrize(
    "make",
    [
        layers,
        tower,
        lambda: VQ(VQConfig(8, 4)),
        lambda: ViT(ViTConfig(8, 1, 2)),
    ],
)
def test_a_network_is_what_its_file_says_and_draws_nothing(make) -> None:  # type: ignore[no-untyped-def]
    fresh = make()
    tensors = {name: torch.randn(t.shape) for name, t in fresh.state_dict().items()}
    before = torch.random.get_rng_state()
    network = build(make, tensors, "file")
    assert torch.equal(torch.random.get_rng_state(), before) and not network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, tensors[name])
    for name, constant in fresh.named_buffers():  # those that no file holds
        if name not in tensors:
            assert torch.equal(network.get_buffer(name), constant), name


@pytest.mark.parametrize("name", NAMES)
def test_no_published_network_draws(name: str) -> None:
    case = small_case(name)
    before = torch.random.get_rng_state()
    assert convert_all(case.matches(), case.config)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_file_without_tensors_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"^file holds no tensor of this network; get the"):
        build(layers, {}, "file")


def test_a_misfit_is_refused() -> None:
    with pytest.raises(CheckpointError, match="file lacks the tensors"):
        build(layers, {"0.weight": torch.zeros(4, 3)}, "file")


def test_constants_that_no_file_holds_are_computed() -> None:
    def whole() -> nn.Module:
        return nn.ModuleList([nn.Linear(2, 2), FSQ(FSQConfig(levels=(8, 5))), LFQ(LFQConfig())])

    tensors = {name: torch.zeros(t.shape) for name, t in whole().state_dict().items()}
    network, fresh = build(whole, tensors, "file"), dict(whole().named_buffers())
    assert fresh
    for name, constant in network.named_buffers():
        assert torch.equal(constant, fresh[name]), name


def test_on_the_meta_device_names_and_shapes_are_checked_alone() -> None:
    tensors = {name: t.to("meta") for name, t in layers().state_dict().items()}
    assert all(t.is_meta for t in build(layers, tensors, "file").parameters())
    with pytest.raises(CheckpointError, match="other sizes"):
        build(layers, tensors | {"3.bias": torch.zeros(3, device="meta")}, "file")
