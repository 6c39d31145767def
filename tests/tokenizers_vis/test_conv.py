"""The convolutional tokenizer: shapes, strides, fingerprint, files, and LlamaGen's sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.protocol import Codes, VisualTokenizer
from mmgen.tokenizers_vis.quantizers import FSQConfig, IBQConfig, LFQConfig, VQConfig

SMALL = ConvTokenizerConfig(
    quantizer=FSQConfig(levels=(4, 3, 3)),
    patch_size=2,
    widths=(8, 16),
    res_blocks=1,
    decoder_res_blocks=2,
    attention_levels=(1,),
    z_channels=8,
    norm_groups=4,
)


def tokenizer(**changes: object) -> ConvTokenizer:
    torch.manual_seed(0)
    return ConvTokenizer(replace(SMALL, **changes)).eval()  # type: ignore[arg-type]


def pictures(height: int = 16, width: int = 16, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.mark.parametrize(
    ("patch", "widths", "stride"),
    [(1, (8,), 1), (1, (8, 8, 8), 4), (2, (8, 16), 4), (4, (8,), 4), (3, (8, 8), 6), (8, (8,), 8)],
)
def test_strides_and_shapes(patch: int, widths: tuple[int, ...], stride: int) -> None:
    model = tokenizer(patch_size=patch, widths=widths, attention_levels=(len(widths) - 1,))
    assert model.config.stride == stride
    height, width = 2 * stride, 3 * stride
    assert model.grid_for((height, width)) == (1, 2, 3)
    x = pictures(height, width)
    with torch.no_grad():
        codes = model.encode(x)
        assert codes.indices is not None and codes.indices.shape == (2, 1, 2, 3)
        assert codes.indices.dtype == torch.long and codes.latents is None
        assert model.decode(codes).shape == x.shape
        assert model.features(x).shape == (2, 2, 3, 3)
        assert model.embed(codes.indices).shape == (2, 1, 2, 3, 3)


@pytest.mark.parametrize(
    "quantizer",
    [
        FSQConfig(levels=(4, 3, 3)),
        VQConfig(codebook_size=20, channels=4),
        LFQConfig(channels=5),
        IBQConfig(codebook_size=20, channels=4),
    ],
    ids=lambda config: config.kind,
)
def test_every_quantizer_fits_and_the_parts_agree(quantizer) -> None:  # type: ignore[no-untyped-def]
    model, x = tokenizer(quantizer=quantizer), pictures()
    assert isinstance(model, VisualTokenizer)
    assert model.channels == model.quantizer.channels
    with torch.no_grad():
        codes = model.encode(x)
        pixels, quantized = model(x)
        assert codes.indices is not None
        assert torch.equal(quantized.indices, codes.indices[:, 0])
        assert int(codes.indices.max()) < model.codebook_size  # type: ignore[operator]
        assert torch.allclose(model.decode(codes), pixels, atol=1e-5)
        assert torch.allclose(model.embed(codes.indices[:, 0]), quantized.quantized, atol=1e-6)
        embedded = model.decode_embeddings(model.embed(codes.indices[:, 0]))
        assert torch.allclose(embedded, pixels, atol=1e-5)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    model, x = tokenizer(), pictures(batch=5)
    with torch.no_grad():
        together = model.encode(x).indices
        alone = torch.cat([model.encode(x[i : i + 1]).indices for i in range(5)])  # type: ignore[misc]
    assert together is not None and torch.equal(together, alone)


@pytest.mark.parametrize("size", [(18, 16), (16, 17), (2, 2), (0, 16), (16, 0)])
def test_sizes_that_do_not_fit(size: tuple[int, int]) -> None:
    model = tokenizer()
    told = f"A picture of {size[1]}x{size[0]} does not fit .* multiples of 4"
    with pytest.raises(UserError, match=told):
        model.grid_for(size)
    with pytest.raises(UserError, match=told):
        model.encode(torch.zeros(1, 3, *size))


def test_codes_without_indices_are_refused() -> None:
    with pytest.raises(UserError, match="decodes indices"):
        tokenizer().decode(Codes(indices=None, latents=torch.zeros(1, 1, 4, 4, 3)))


@pytest.mark.parametrize(
    "bad",
    [
        {"widths": (8, 6)},
        {"widths": ()},
        {"res_blocks": 0},
        {"decoder_res_blocks": 0},
        {"patch_size": 0},
        {"norm_groups": 0},
        {"z_channels": 0},
        {"attention_levels": (2,)},
    ],
    ids=str,
)
def test_sizes_that_make_no_network(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(SMALL, **bad)  # type: ignore[arg-type]


def test_the_first_downsampling_looks_right_and_below() -> None:
    """VQGAN pads one zero column right and one zero row below, none left or above."""
    from mmgen.tokenizers_vis.blocks import Downsample

    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 2, 2] = 1
        layer.conv.bias.zero_()  # type: ignore[union-attr]
        x = torch.arange(16.0).view(1, 1, 4, 4)
        assert layer(x)[0, 0].tolist() == [[10, 0], [0, 0]]


# -- fingerprint and files ---------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_codes() -> None:
    model = tokenizer(quantizer=VQConfig(codebook_size=20, channels=4))
    first, changed = model.fingerprint, set()
    for name, tensor in model.state_dict().items():
        kept = tensor.clone()
        tensor.view(-1)[0] += 1
        if model.fingerprint != first:
            changed.add(name.split(".")[0])
        else:
            assert name.startswith(("decoder.", "from_code.")), name
        tensor.copy_(kept)
    assert changed == {"encoder", "to_code", "quantizer"}
    assert model.fingerprint == first
    assert tokenizer().fingerprint != tokenizer(quantizer=FSQConfig(levels=(3, 3, 4))).fingerprint


@pytest.mark.parametrize(
    "quantizer",
    [
        FSQConfig(levels=(4, 3, 3)),
        VQConfig(codebook_size=20, channels=4, normalize=True, update="ema"),
    ],
)
def test_saving_and_loading(quantizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    model, x = tokenizer(quantizer=quantizer), pictures()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in training
    model.save_pretrained(tmp_path)
    loaded = ConvTokenizer.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.fingerprint == model.fingerprint
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        codes = model.encode(x)
        assert torch.equal(loaded.encode(x).indices, codes.indices)  # type: ignore[arg-type]
        assert torch.allclose(loaded.decode(codes), model.decode(codes), atol=1e-5)


def test_bfloat16_files_are_half_as_large_and_load_as_float32(tmp_path: Path) -> None:
    model = tokenizer()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "half", torch.bfloat16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.75 * sizes[1]
    loaded = ConvTokenizer.from_pretrained(tmp_path / "half")
    for name, tensor in loaded.state_dict().items():
        original = model.state_dict()[name]
        assert tensor.dtype == original.dtype == torch.float32
        assert torch.equal(tensor, original.to(torch.bfloat16).float())
    with torch.no_grad():
        assert torch.isfinite(loaded(pictures())[0]).all()


# -- LlamaGen's tokenizers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "attention", "count"),
    [
        ((128, 128, 256, 256, 512), (4,), 71_883_403),  # VQ-16
        ((128, 256, 256, 512), (3,), 70_109_835),  # VQ-8
    ],
)
def test_sizes_of_llamagen(widths: tuple[int, ...], attention: tuple[int, ...], count: int) -> None:
    """Parameters with the codebook: shared/specs/nar.md section 1.1."""
    config = ConvTokenizerConfig(
        quantizer=VQConfig(codebook_size=16384, channels=8, normalize=True),
        widths=widths,
        res_blocks=2,
        decoder_res_blocks=3,
        attention_levels=attention,
    )
    model = ConvTokenizer(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert ConvTokenizerConfig(VQConfig()) == replace(
        config, quantizer=VQConfig(), widths=(128, 128, 256, 256, 512), attention_levels=(4,)
    )
