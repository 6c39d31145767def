"""VQGAN's networks, and Emu3's over time, as described: `shared/specs` nar.md 1, ett.md A1, D3.

Under VQGAN's key names. Nothing of `mmgen`. Shapes: x (B, C, H, W), clips (B, C, T, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def encode(weights: Weights, x: Tensor) -> Tensor:
    x, i = _conv(weights, "encoder.conv_in", x), 0
    while f"encoder.down.{i}.block.0.conv1.weight" in weights:
        x = _level(weights, f"encoder.down.{i}", x, None)
        if f"encoder.down.{i}.downsample.conv.weight" in weights:
            name = f"encoder.down.{i}.downsample.conv"
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), *_pair(weights, name), stride=2)
        i += 1
    x = _middle(weights, "encoder.mid", x, None)
    return _conv(weights, "encoder.conv_out", F.silu(_norm(weights, "encoder.norm_out", x, None)))


def decode(weights: Weights, z: Tensor, code: Tensor | None = None) -> Tensor:
    """`code` (B, c, h, w) conditions every norm (Emu3)."""
    x = _middle(weights, "decoder.mid", _conv(weights, "decoder.conv_in", z), code)
    levels = {int(key.split(".")[2]) for key in weights if key.startswith("decoder.up.")}
    for i in sorted(levels, reverse=True):
        x = _level(weights, f"decoder.up.{i}", x, code)
        if i:
            x = _conv(weights, f"decoder.up.{i}.upsample.conv", F.interpolate(x, scale_factor=2))
    return _conv(weights, "decoder.conv_out", F.silu(_norm(weights, "decoder.norm_out", x, code)))


def nearest(z: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (...) of vectors (..., e), and by how much the second nearest is farther."""
    distance = (z[..., None, :] - table).square().sum(-1)
    two = distance.topk(2, largest=False).values
    return distance.argmin(-1), two[..., 1] - two[..., 0]


# -- Emu3 ----------------------------------------------------------------------------------------


def emu3_encode(weights: Weights, clip: Tensor) -> Tensor:
    """(B, 3, T, H, W) to what is quantized, (B, t, h, w, e)."""
    x = _by_frame(lambda frames: encode(weights, frames), clip)
    i = 0
    while f"encoder.time_conv.{i}.conv.conv.weight" in weights:
        x = F.silu(_causal(weights, f"encoder.time_conv.{i}.conv.conv", x, stride=2))
        i += 1
    x = _time_stack(weights, "encoder", x)
    return _causal(weights, "quant_conv.conv", x).movedim(1, -1)


def emu3_decode(weights: Weights, index: Tensor) -> Tensor:
    """(B, t, h, w) to (B, 3, T, H, W)."""
    code = weights["quantize.embedding.weight"][index].movedim(-1, 1)
    x = torch.cat([_causal(weights, "post_quant_conv.conv", code), code])
    x, i = _time_stack(weights, "decoder", x), 0
    while f"decoder.time_conv.{i}.conv.conv.weight" in weights:
        x = x.repeat_interleave(2, dim=2)
        x = F.silu(_causal(weights, f"decoder.time_conv.{i}.conv.conv", x))
        i += 1
    z, code = x.chunk(2)
    frames = [decode(weights, z[:, :, t], code[:, :, t]) for t in range(z.shape[2])]
    return torch.stack(frames, 2)


def _by_frame(network, clip: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    return torch.stack([network(clip[:, :, t]) for t in range(clip.shape[2])], 2)


def _causal(weights: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Two frames of zeros before, none behind."""
    weight, bias = _pair(weights, name)
    h, w = weight.shape[3] - 1, weight.shape[4] - 1
    x = F.pad(x, (w // 2 + w % 2, w // 2, h // 2 + h % 2, h // 2, 2, 0))
    return F.conv3d(x, weight, bias, stride=(stride, 1, 1))


def _time_stack(weights: Weights, side: str, x: Tensor) -> Tensor:
    i = 0
    while f"{side}.time_res_stack.{i}.norm1.weight" in weights:
        name, y = f"{side}.time_res_stack.{i}", x
        for k in (1, 2):
            mean, var = (weights[f"{name}.norm{k}.running_{w}"] for w in ("mean", "var"))
            y = F.batch_norm(y, mean, var, *_pair(weights, f"{name}.norm{k}"), eps=1e-5)
            y = _causal(weights, f"{name}.conv{k}.conv", F.silu(y))
        x, i = x + y, i + 1
    return x


# -- pieces --------------------------------------------------------------------------------------


def _pair(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _conv(weights: Weights, name: str, x: Tensor) -> Tensor:
    weight, bias = _pair(weights, name)
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def _norm(weights: Weights, name: str, x: Tensor, code: Tensor | None) -> Tensor:
    if code is None:
        return F.group_norm(x, 32, *_pair(weights, name), eps=1e-6)
    code = F.interpolate(code, size=x.shape[2:])
    y = F.group_norm(x, 32, *_pair(weights, f"{name}.norm_layer"), eps=1e-6)
    return y * _conv(weights, f"{name}.conv_y", code) + _conv(weights, f"{name}.conv_b", code)


def _res(weights: Weights, name: str, x: Tensor, code: Tensor | None) -> Tensor:
    y = _conv(weights, f"{name}.conv1", F.silu(_norm(weights, f"{name}.norm1", x, code)))
    y = _conv(weights, f"{name}.conv2", F.silu(_norm(weights, f"{name}.norm2", y, code)))
    skip = f"{name}.nin_shortcut"
    return y + (_conv(weights, skip, x) if f"{skip}.weight" in weights else x)


def _attend(weights: Weights, name: str, x: Tensor, code: Tensor | None) -> Tensor:
    y = _norm(weights, f"{name}.norm", x, code)
    q, k, v = (_conv(weights, f"{name}.{part}", y).flatten(2) for part in "qkv")  # (B, C, P)
    seen = (q.transpose(1, 2) @ k * x.shape[1] ** -0.5).softmax(-1)
    return x + _conv(weights, f"{name}.proj_out", (v @ seen.transpose(1, 2)).view(x.shape))


def _level(weights: Weights, name: str, x: Tensor, code: Tensor | None) -> Tensor:
    j = 0
    while f"{name}.block.{j}.conv1.weight" in weights:
        x = _res(weights, f"{name}.block.{j}", x, code)
        if f"{name}.attn.{j}.q.weight" in weights:
            x = _attend(weights, f"{name}.attn.{j}", x, code)
        j += 1
    return x


def _middle(weights: Weights, name: str, x: Tensor, code: Tensor | None) -> Tensor:
    x = _attend(weights, f"{name}.attn_1", _res(weights, f"{name}.block_1", x, code), code)
    return _res(weights, f"{name}.block_2", x, code)
