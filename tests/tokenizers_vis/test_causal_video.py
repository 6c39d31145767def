"""The causal video tokenizer: sizes, causality, one frame at a time, saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmgen.errors import ConfigError, UserError
from mmgen.tokenizers_vis.causal import CausalConv, DepthToSpace, FrameNorm, Layers, Memory
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer, CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.protocol import Codes, VisualTokenizer
from mmgen.tokenizers_vis.quantizers import FSQConfig

VARIANTS = {
    "published": {},
    "zeros": {"edges": "constant", "slope": False},
    "patches": {"patch_size": 2, "space_strides": (1, 2), "decoder_res_blocks": 2},
    "frames": {"time_kernels": (1, 1, 3), "time_strides": (2, 2), "space_strides": (2, 2)},
    "factorized": {"factorized": True, "edges": "constant", "time_strides": (2, 2)},
}
SIZES = {"widths": (4, 4, 8), "time_strides": (1, 2), "res_blocks": 1, "norm_groups": 2}


@pytest.fixture(scope="module")
def tokenizer() -> CausalVideoTokenizer:
    torch.manual_seed(0)
    config = CausalVideoTokenizerConfig(FSQConfig(levels=(5, 5, 5)), **SIZES)
    return CausalVideoTokenizer(config).eval()


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> CausalVideoTokenizer:
    """A tokenizer of every kind that can be configured."""
    torch.manual_seed(1)
    options = SIZES | VARIANTS[request.param]
    config = CausalVideoTokenizerConfig(FSQConfig(levels=(5, 5, 5)), **options)
    return CausalVideoTokenizer(config).eval()


def _clip(frames: int = 5, size: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, frames, size, size, generator=generator) * 2 - 1


def test_it_is_a_visual_tokenizer(tokenizer: CausalVideoTokenizer) -> None:
    assert isinstance(tokenizer, VisualTokenizer)
    assert tokenizer.codebook_size == 125
    assert tokenizer.config.stride == 4
    assert tokenizer.config.time_stride == 2


@pytest.mark.parametrize(("frames", "latent", "back"), [(1, 1, 1), (2, 1, 1), (5, 3, 5), (6, 3, 5)])
def test_the_first_frame_stands_alone_and_a_rest_leaves_no_trace(
    tokenizer: CausalVideoTokenizer, frames: int, latent: int, back: int
) -> None:
    codes = tokenizer.encode(_clip(frames))
    assert codes.indices is not None
    assert codes.indices.shape == (2, latent, 2, 2)
    assert tokenizer.grid_for((frames, 8, 8)) == (latent, 2, 2)
    assert tokenizer.decode(codes).shape == (2, 3, back, 8, 8)
    whole = tokenizer.encode(_clip(frames)[:, :, :back])
    assert torch.equal(codes.indices, whole.indices)


@pytest.mark.parametrize("changed", range(1, 7))
def test_a_latent_frame_sees_no_later_frame(tokenizer: CausalVideoTokenizer, changed: int) -> None:
    clip = _clip(7)
    other = clip.clone()
    other[:, :, changed:] = _clip(7, seed=1)[:, :, changed:]
    one, two = tokenizer.features(clip), tokenizer.features(other)
    for j in range(one.shape[1]):
        assert torch.equal(one[:, j], two[:, j]) == (2 * j < changed)


def test_every_kind_is_causal(variant: CausalVideoTokenizer) -> None:
    stride = variant.config.time_stride
    clip = _clip(2 * stride + 1)
    for changed in range(1, 2 * stride + 1):
        other = clip.clone()
        other[:, :, changed:] = _clip(2 * stride + 1, seed=1)[:, :, changed:]
        one, two = variant.features(clip), variant.features(other)
        moved = [not torch.allclose(one[:, j], two[:, j], atol=1e-6) for j in range(3)]
        assert moved == [stride * j >= changed for j in range(3)]


def test_every_kind_takes_stills_as_clips_of_one_frame(variant: CausalVideoTokenizer) -> None:
    clip = _clip(variant.config.time_stride + 1)
    still, first = variant.features(clip[:, :, 0]), variant.features(clip)[:, :1]
    torch.testing.assert_close(still, first, atol=1e-5, rtol=1e-5)
    codes = torch.randint(125, (1, 3, *still.shape[2:4]))
    whole, part = variant.decode(Codes(codes)), variant.decode(Codes(codes[:, :1]))
    torch.testing.assert_close(whole[:, :, :1], part, atol=1e-5, rtol=1e-5)
    assert variant(clip[:, :, 0])[0].shape == clip[:, :, 0].shape
    assert variant(clip)[0].shape == clip.shape


@pytest.mark.parametrize("lengths", [(1, 3, 2, 7), (2, 1, 1, 9), (13,), (5, 8)])
def test_chunks_are_the_whole(variant: CausalVideoTokenizer, lengths: tuple[int, ...]) -> None:
    clip = _clip(13)
    frames = 13 - 12 % variant.config.time_stride
    memory, seen = Memory(), []
    for start in range(0, frames, variant.config.time_stride):  # codes of one group at a time
        group = slice(max(0, start - variant.config.time_stride + 1), start + 1)
        seen.append(variant.features(clip[:, :, group], memory))
    whole = variant.features(clip)
    torch.testing.assert_close(torch.cat(seen, dim=1), whole, atol=1e-5, rtol=1e-5)
    streamed = torch.cat(list(variant.encode_stream(clip.split(lengths, dim=2))), dim=1)
    assert torch.equal(streamed, variant.quantizer.assign(whole))
    painted = torch.cat(list(variant.decode_stream(streamed.split(1, dim=1))), dim=2)
    expected = variant.decode_embeddings(variant.embed(streamed))
    torch.testing.assert_close(painted, expected, atol=1e-5, rtol=1e-5)


def test_a_long_clip_is_read_and_painted_in_chunks(
    tokenizer: CausalVideoTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = _clip(41)
    lengths: list[int] = []
    features, paint = tokenizer.features, tokenizer.decode_embeddings

    def watched(pixels: Tensor, memory: Memory | None = None) -> Tensor:
        lengths.append(pixels.shape[2])
        return features(pixels, memory)

    def painted(embeddings: Tensor, memory: Memory | None = None) -> Tensor:
        lengths.append(embeddings.shape[1])
        return paint(embeddings, memory)

    monkeypatch.setattr(tokenizer, "features", watched)
    monkeypatch.setattr(tokenizer, "decode_embeddings", painted)
    codes = tokenizer.encode(clip)
    assert codes.indices is not None
    assert max(lengths) <= 9 and len(lengths) > 4
    lengths.clear()
    decoded = tokenizer.decode(codes)
    assert max(lengths) <= 4 and decoded.shape == clip.shape
    assert torch.equal(codes.indices, tokenizer.quantizer.assign(features(clip)))


def test_decoding_looks_back_only(tokenizer: CausalVideoTokenizer) -> None:
    indices = torch.randint(125, (1, 4, 2, 2), generator=torch.Generator().manual_seed(0))
    whole = tokenizer.decode(Codes(indices))
    part = tokenizer.decode(Codes(indices[:, :3]))
    torch.testing.assert_close(whole[:, :, :5], part, atol=1e-5, rtol=1e-5)


def test_a_picture_is_a_clip_of_one_frame(tokenizer: CausalVideoTokenizer) -> None:
    clip = _clip()
    first = tokenizer.encode(clip[:, :, 0]).indices
    whole = tokenizer.encode(clip).indices
    assert first is not None
    assert whole is not None
    assert torch.equal(first, whole[:, :1])


def test_the_unit_range_is_an_affair_of_the_networks(tokenizer: CausalVideoTokenizer) -> None:
    config = CausalVideoTokenizerConfig(FSQConfig(levels=(5, 5, 5)), **SIZES, pixels="unit")
    unit = CausalVideoTokenizer(config).eval()
    unit.load_state_dict(tokenizer.state_dict())
    clip = _clip()
    torch.testing.assert_close(unit.features(clip * 2 - 1), tokenizer.features(clip))
    codes = tokenizer.encode(clip)
    torch.testing.assert_close((unit.decode(codes) + 1) / 2, tokenizer.decode(codes))


def test_gradients_pass_the_quantizer(tokenizer: CausalVideoTokenizer) -> None:
    reconstruction, _ = tokenizer(_clip())
    reconstruction.square().mean().backward()
    gradient = tokenizer.encoder.conv_in.conv.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0
    tokenizer.zero_grad()


def test_channels_of_its_own_before_the_quantizer(tmp_path: Path) -> None:
    config = CausalVideoTokenizerConfig(FSQConfig(levels=(5, 5, 5)), **SIZES, z_channels=6)
    tokenizer = CausalVideoTokenizer(config).eval()
    tokenizer.save_pretrained(tmp_path)
    loaded = CausalVideoTokenizer.from_pretrained(tmp_path)
    codes = tokenizer.encode(_clip())
    torch.testing.assert_close(loaded.decode(codes), tokenizer.decode(codes))
    assert loaded.fingerprint == tokenizer.fingerprint


def test_the_fingerprint_is_of_the_encoder(tokenizer: CausalVideoTokenizer) -> None:
    before = tokenizer.fingerprint
    with torch.no_grad():
        tokenizer.decoder.conv_out.conv.weight.add_(1)
    assert tokenizer.fingerprint == before


def test_mistakes(tokenizer: CausalVideoTokenizer) -> None:
    with pytest.raises(UserError, match=r"9x9.*multiples of 4"):
        tokenizer.encode(_clip(size=9))
    with pytest.raises(UserError, match="only latents"):
        tokenizer.decode(Codes(indices=None))
    with pytest.raises(ConfigError, match="one less"):
        CausalVideoTokenizerConfig(FSQConfig(), widths=(32, 32), time_strides=(1, 2))
    with pytest.raises(ConfigError, match="norm_groups 32"):
        CausalVideoTokenizerConfig(FSQConfig(), widths=(32, 33), time_strides=(1,))
    with pytest.raises(ConfigError, match="time_kernels must be 1 or 3"):
        CausalVideoTokenizerConfig(
            FSQConfig(), widths=(32, 32), time_strides=(1,), time_kernels=(2, 3)
        )
    with pytest.raises(ConfigError, match="1 or 2"):
        CausalVideoTokenizerConfig(FSQConfig(), widths=(32, 32), time_strides=(3,))


def test_a_causal_convolution_repeats_the_edges() -> None:
    layer = CausalConv(1, 1)
    torch.nn.init.ones_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    constant = torch.full((1, 1, 3, 4, 4), 2.0)
    torch.testing.assert_close(layer(constant), torch.full_like(constant, 2.0 * 27))


def test_frames_are_normed_alone() -> None:
    x = torch.randn(2, 4, 3, 5, 5)
    together = FrameNorm(2, 4)(x)
    for t in range(3):
        torch.testing.assert_close(together[:, :, t : t + 1], FrameNorm(2, 4)(x[:, :, t : t + 1]))


def test_depth_to_space_orders_time_row_column_then_channel() -> None:
    layer = DepthToSpace(2, (2, 2, 2), Layers(2, 1e-5))
    torch.nn.init.zeros_(layer.conv.conv.weight)
    with torch.no_grad():
        layer.conv.conv.bias.copy_(torch.arange(16.0))
    y = layer(torch.zeros(1, 2, 2, 1, 1))  # (1, 2, 3, 2, 2): the first frame is dropped
    assert y.shape == (1, 2, 3, 2, 2)
    assert y[0, :, 0].tolist() == [[[8, 10], [12, 14]], [[9, 11], [13, 15]]]
    assert y[0, :, 1].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


def test_a_causal_convolution_may_have_zeros_around() -> None:
    x = torch.randn(1, 2, 4, 3, 3)
    layer = CausalConv(2, 2, (4, 3, 1), (2, 1, 1), before=2, edges="constant")
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 2, 0))
    assert torch.equal(layer(x), layer.conv(padded)) and layer(x).shape == (1, 2, 2, 3, 3)
    past = layer(x[:, :, :2])
    assert torch.allclose(layer(x)[:, :, :1], past[:, :, :1], atol=1e-6)
