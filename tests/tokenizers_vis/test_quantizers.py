"""Laws that hold for every quantizer, and configurations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.config import from_dict, to_dict
from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.protocol import Quantizer
from mmgen.tokenizers_vis.quantizers import (
    FSQConfig,
    IBQConfig,
    LFQConfig,
    QuantizerConfig,
    VQConfig,
    build_quantizer,
)
from mmgen.tokenizers_vis.quantizers.softmax import code_chunks, entropies

CONFIGS: list[QuantizerConfig] = [
    VQConfig(codebook_size=37, channels=5, entropy_weight=0.1),
    VQConfig(codebook_size=37, channels=5, normalize=True),
    VQConfig(codebook_size=37, channels=5, update="ema", revive_after=3),
    FSQConfig(levels=(3, 4, 2), variant="paper"),
    FSQConfig(levels=(8, 5), variant="atanh"),
    LFQConfig(channels=5),
    IBQConfig(codebook_size=37, channels=5),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (2, 1, 3, 4)])
def test_shapes_values_and_gradients(config: QuantizerConfig, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    assert isinstance(quantizer, Quantizer)
    z = torch.randn(*shape, quantizer.channels, requires_grad=True)
    embedded = quantizer.embed(quantizer.assign(z)).detach()
    out = quantizer(z)
    assert out.indices.shape == shape
    assert out.indices.dtype == torch.long
    assert int(out.indices.min()) >= 0
    assert int(out.indices.max()) < quantizer.codebook_size
    assert torch.equal(out.quantized, embedded)  # no rounding from the straight-through form
    assert set(out.losses) <= {"codebook", "commitment", "entropy"}
    (out.quantized.sum() + sum(out.losses.values())).backward()
    assert z.grad is not None
    assert all(torch.isfinite(value) for value in out.losses.values())
    assert torch.isfinite(z.grad).all()
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("config", CONFIGS)
def test_every_code_has_its_own_embedding(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    codes = torch.arange(quantizer.codebook_size)
    embeddings = quantizer.embed(codes).detach()
    assert embeddings.shape == (quantizer.codebook_size, quantizer.channels)
    assert len(embeddings.unique(dim=0)) == quantizer.codebook_size
    if isinstance(config, (VQConfig, LFQConfig)):  # not a law of FSQ's bound or IBQ's dot product
        assert torch.equal(quantizer.assign(embeddings), codes)


@pytest.mark.parametrize("config", CONFIGS)
def test_configuration_survives_plain_data(config: QuantizerConfig) -> None:
    assert from_dict(type(config), to_dict(config)) == config


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (VQConfig, {"codebook_size": 0}),
        (VQConfig, {"decay": 1.0}),
        (FSQConfig, {"levels": []}),
        (FSQConfig, {"levels": [8, 1]}),
        (FSQConfig, {"levels": [2000]}),
        (LFQConfig, {"channels": 40}),
        (IBQConfig, {"channels": 0}),
        (IBQConfig, {"kind": "vq"}),
    ],
)
def test_bad_configuration_is_a_user_error(kind: type, bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        from_dict(kind, bad)


@pytest.mark.parametrize("config", CONFIGS)
def test_autocast_changes_nothing(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    state = {name: value.clone() for name, value in quantizer.state_dict().items()}  # type: ignore[attr-defined]
    z = torch.randn(3000, quantizer.channels, requires_grad=True)
    results = []
    for enabled in (False, True):
        quantizer.load_state_dict(state)  # type: ignore[attr-defined]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            indices = quantizer.assign(z)
            out = quantizer(z)
            total = out.quantized.square().sum() + sum(out.losses.values())
            results.append((indices, out.indices, total, torch.autograd.grad(total, z)[0]))
    for plain, cast in zip(*results):
        assert torch.equal(plain, cast)
    assert quantizer(z.bfloat16()).quantized.dtype == torch.bfloat16


def naive_entropies(
    z: torch.Tensor, codebook: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    log_p = (z @ codebook.T / temperature).log_softmax(1)
    mean = log_p.exp().mean(0)
    return -(log_p.exp() * log_p).sum(1).mean(), -(mean * (mean + 1e-5).log()).sum()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 9),
    codes=st.integers(1, 12),
    chunk=st.integers(1, 15),
    temperature=st.sampled_from([0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_chunked_entropies_equal_the_full_ones(
    rows: int, codes: int, chunk: int, temperature: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    z, codebook = torch.randn(rows, 3, **draw), torch.randn(codes, 3, **draw)
    z.requires_grad_()
    codebook.requires_grad_()
    ours = entropies(z, codebook, temperature, chunk)
    theirs = naive_entropies(z, codebook, temperature)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    mine = torch.autograd.grad(0.7 * ours[0] - 1.3 * ours[1], [z, codebook])
    full = torch.autograd.grad(0.7 * theirs[0] - 1.3 * theirs[1], [z, codebook])
    for a, b in zip(mine, full):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


@given(rows=st.integers(0, 2**26), codes=st.integers(1, 300), chunk=st.none() | st.integers(1, 400))
@settings(max_examples=50, deadline=None)
def test_chunks_cover_the_codes_within_the_limit(rows: int, codes: int, chunk: int | None) -> None:
    parts = list(code_chunks(rows, codes, chunk))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(codes))
    longest = max(part.stop - part.start for part in parts)
    assert longest <= (chunk or max(1, 2**24 // max(rows, 1)))
