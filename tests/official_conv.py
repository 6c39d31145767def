"""Keys and shapes of the official convolutional tokenizers, written from the specifications.

Independent of the key maps under test: `shared/specs` nar.md 1.5, xar.md 2.3, ett.md A4, D1, D3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors without values."""
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    """Small random values; variances are positive."""
    return {
        key: torch.rand(shape) + 0.5 if key.endswith("running_var") else torch.randn(shape) * 0.1
        for key, shape in shapes.items()
    }


def conv(name: str, inputs: int, outputs: int, *kernel: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs, *kernel)}
    return shapes | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int, code: int | None = None) -> Shapes:
    if code is None:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    pieces = norm(f"{name}.norm_layer", width)
    return pieces | {
        key: shape
        for part in ("conv_y", "conv_b")
        for key, shape in conv(f"{name}.{part}", code, width, 1, 1).items()
    }


def res(name: str, a: int, b: int, code: int | None = None, bias: bool = True) -> Shapes:
    shapes = norm(f"{name}.norm1", a, code) | conv(f"{name}.conv1", a, b, 3, 3, bias=bias)
    shapes |= norm(f"{name}.norm2", b, code) | conv(f"{name}.conv2", b, b, 3, 3, bias=bias)
    return shapes | (conv(f"{name}.nin_shortcut", a, b, 1, 1, bias=bias) if a != b else {})


def attn(name: str, width: int, code: int | None = None) -> Shapes:
    shapes = norm(f"{name}.norm", width, code)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"{name}.{part}", width, width, 1, 1)
    return shapes


def mid(name: str, width: int, code: int | None = None) -> Shapes:
    shapes = res(f"{name}.block_1", width, width, code) | attn(f"{name}.attn_1", width, code)
    return shapes | res(f"{name}.block_2", width, width, code)


def encoder(
    ch: int, mult: Sequence[int], blocks: int, attended: Sequence[int], outputs: int
) -> Shapes:
    """The encoder of VQGAN."""
    shapes, previous = conv("encoder.conv_in", 3, ch, 3, 3), ch
    for i, factor in enumerate(mult):
        width = ch * factor
        for j in range(blocks):
            shapes |= res(f"encoder.down.{i}.block.{j}", width if j else previous, width)
            shapes |= attn(f"encoder.down.{i}.attn.{j}", width) if i in attended else {}
        if i + 1 < len(mult):
            shapes |= conv(f"encoder.down.{i}.downsample.conv", width, width, 3, 3)
        previous = width
    shapes |= mid("encoder.mid", previous) | norm("encoder.norm_out", previous)
    return shapes | conv("encoder.conv_out", previous, outputs, 3, 3)


def decoder(
    ch: int,
    mult: Sequence[int],
    blocks: int,
    attended: Sequence[int],
    z: int,
    code: int | None = None,
) -> Shapes:
    """The decoder of VQGAN; `blocks` counts those of the encoder."""
    previous = ch * mult[-1]
    shapes = conv("decoder.conv_in", z, previous, 3, 3) | mid("decoder.mid", previous, code)
    for i in reversed(range(len(mult))):
        width = ch * mult[i]
        for j in range(blocks + 1):
            shapes |= res(f"decoder.up.{i}.block.{j}", width if j else previous, width, code)
            shapes |= attn(f"decoder.up.{i}.attn.{j}", width, code) if i in attended else {}
        if i:
            shapes |= conv(f"decoder.up.{i}.upsample.conv", width, width, 3, 3)
        previous = width
    shapes |= norm("decoder.norm_out", previous, code)
    return shapes | conv("decoder.conv_out", previous, 3, 3, 3)


def ibq(ch: int, mult: Sequence[int], blocks: int, attended: Sequence[int], z: int, codes: int):  # type: ignore[no-untyped-def]
    """An IBQ tokenizer without what training adds."""
    shapes = encoder(ch, mult, blocks, attended, z) | decoder(ch, mult, blocks, attended, z)
    shapes |= conv("quant_conv", z, z, 1, 1) | conv("post_quant_conv", z, z, 1, 1)
    return shapes | {"quantize.embedding.weight": (codes, z)}


def kl(ch: int, mult: Sequence[int], blocks: int, attended: Sequence[int], z: int, embed: int):  # type: ignore[no-untyped-def]
    """KL-16: attention in the encoder's levels only."""
    shapes = encoder(ch, mult, blocks, attended, 2 * z) | decoder(ch, mult, blocks, (), z)
    shapes |= conv("quant_conv", 2 * z, 2 * embed, 1, 1)
    return shapes | conv("post_quant_conv", embed, z, 1, 1)


def llamagen(
    ch: int, mult: Sequence[int], back: Sequence[int], blocks: int, z: int, codes: int, embed: int
) -> Shapes:
    """A VQ tokenizer of LlamaGen: the same networks, other names, coarse to fine in the decoder."""
    last = len(mult) - 1
    vqgan = encoder(ch, mult, blocks, (last,), z) | decoder(ch, back, blocks, (last,), z)
    shapes = {llamagen_name(key, len(mult)): shape for key, shape in vqgan.items()}
    shapes |= conv("quant_conv", z, embed, 1, 1) | conv("post_quant_conv", embed, z, 1, 1)
    shapes["quantize.embedding.weight"] = (codes, embed)
    return shapes | {"quantize.codebook_used": (65536,)}


def llamagen_name(key: str, levels: int) -> str:
    """LlamaGen's name of a tensor of VQGAN."""
    for k, part in enumerate(("block_1", "attn_1", "block_2")):
        key = key.replace(f".mid.{part}.", f".mid.{k}.")
    for i in range(levels):
        key = key.replace(f"encoder.down.{i}.", f"encoder.conv_blocks.{i}.")
        key = key.replace(f"decoder.up.{i}.", f"decoder.conv_blocks.{levels - 1 - i}.")
    return key.replace(".block.", ".res.")


def magvit2(ch: int, mult: Sequence[int], blocks: int, bits: int) -> Shapes:
    """The picture tokenizer of Open-MAGVIT2."""
    shapes, previous = conv("encoder.conv_in", 3, ch, 3, 3, bias=False), ch
    for i, factor in enumerate(mult):
        width = ch * factor
        for j in range(blocks):
            name = f"encoder.down.{i}.block.{j}"
            shapes |= res(name, width if j else previous, width, bias=False)
        if i + 1 < len(mult):
            shapes |= conv(f"encoder.down.{i}.downsample", width, width, 3, 3)
        previous = width
    for side in ("encoder", "decoder"):
        for j in range(blocks):
            shapes |= res(f"{side}.mid_block.{j}", previous, previous, bias=False)
    shapes |= norm("encoder.norm_out", previous) | conv("encoder.conv_out", previous, bits, 1, 1)
    shapes |= conv("decoder.conv_in", bits, previous, 3, 3)
    for i in reversed(range(len(mult))):
        width = ch * mult[i]
        for part in ("gamma", "beta"):
            shapes |= conv(f"decoder.adaptive.{i}.{part}", bits, previous)
        for j in range(blocks):
            shapes |= res(f"decoder.up.{i}.block.{j}", width if j else previous, width, bias=False)
        if i:
            shapes |= conv(f"decoder.up.{i}.upsample.conv1", width, 4 * width, 3, 3)
        previous = width
    return shapes | norm("decoder.norm_out", previous) | conv("decoder.conv_out", previous, 3, 3, 3)


def emu3(  # type: ignore[no-untyped-def]
    ch: int, mult: Sequence[int], blocks: int, attended: Sequence[int], z: int, codes: int, halvings
) -> Shapes:
    """Emu3's vision tokenizer."""
    shapes = encoder(ch, mult, blocks, attended, z) | decoder(ch, mult, blocks, attended, z, z)
    for side, kernel in (("encoder", 4), ("decoder", 3)):
        for i in range(halvings):
            shapes |= conv(f"{side}.time_conv.{i}.conv.conv", z, z, kernel, 3, 3)
        for j in range(blocks):
            for k in (1, 2):
                name = f"{side}.time_res_stack.{j}"
                shapes |= norm(f"{name}.norm{k}", z) | conv(f"{name}.conv{k}.conv", z, z, 3, 3, 3)
                statistics = ("running_mean", "running_var")
                shapes |= {f"{name}.norm{k}.{one}": (z,) for one in statistics}
                shapes[f"{name}.norm{k}.num_batches_tracked"] = ()
    shapes |= conv("quant_conv.conv", z, z, 3, 1, 1) | conv("post_quant_conv.conv", z, z, 3, 1, 1)
    return shapes | {"quantize.embedding.weight": (codes, z)}
