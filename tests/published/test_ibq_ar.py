"""IBQ's generators: names and sizes of the published files, and what a file tells of itself."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmgen.components import load_component
from mmgen.errors import UserError
from mmgen.pipeline import Pipeline
from mmgen.published import ibq_ar
from mmgen.published.importing import import_files
from mmgen.published.systems import parts, shapes_of

Shapes = dict[str, tuple[int, ...]]
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 20}


def blocks(name: str, depth: int, width: int, multiple_of: int = 256) -> Shapes:
    """LlamaGen's blocks, by the rule of their description."""
    hidden = ceil(int(8 * width / 3) / multiple_of) * multiple_of
    found: Shapes = {}
    for i in range(depth):
        found |= {
            f"{name}.{i}.attention.wqkv.weight": (3 * width, width),
            f"{name}.{i}.attention.wo.weight": (width, width),
            f"{name}.{i}.feed_forward.w1.weight": (hidden, width),
            f"{name}.{i}.feed_forward.w3.weight": (hidden, width),
            f"{name}.{i}.feed_forward.w2.weight": (width, hidden),
            f"{name}.{i}.attention_norm.weight": (width,),
            f"{name}.{i}.ffn_norm.weight": (width,),
        }
    return found


def official_shapes(options: dict[str, Any], codebook: int = 0) -> Shapes:
    """Keys and shapes of an official file without its tokenizer."""
    width, depth, codes = options["n_embd"], options["n_layer"], options["vocab_size"]
    found = blocks("blocks", depth, width)
    for i in range(depth):
        found[f"blocks.{i}.ada_lin.1.weight"] = (6 * width, width)
        found[f"blocks.{i}.ada_lin.1.bias"] = (6 * width,)
    found |= {
        "tok_emb.weight": (codes, codebook or width),
        "class_emb.embedding_table.weight": (1001, width),
        "head_nm.rmsnorm.weight": (width,),
        "head_nm.ada_lin.1.weight": (2 * width, width),
        "head_nm.ada_lin.1.bias": (2 * width,),
        "head.weight": (codes, width),
    }
    if codebook:
        for layer, inner in (("fc1", codebook), ("fc2", width)):
            found[f"embedding_projection.{layer}.weight"] = (width, inner)
            found[f"embedding_projection.{layer}.bias"] = (width,)
    return {f"transformer.{key}": shape for key, shape in found.items()}


def tokenizer_shapes(levels: int = 5) -> Shapes:
    """A tokenizer of the family with 32 channels everywhere, in a generator's file."""
    found: Shapes = {"quantize.embedding.weight": (20, 8)}
    found |= conv("quant_conv", 8, 8, 1) | conv("post_quant_conv", 8, 8, 1)
    found |= conv("encoder.conv_in", 32, 3) | conv("encoder.conv_out", 8, 32)
    found |= conv("decoder.conv_in", 32, 8) | conv("decoder.conv_out", 3, 32)
    for i in range(levels):
        found |= res_block(f"encoder.down.{i}.block.0")
        found |= res_block(f"decoder.up.{i}.block.0") | res_block(f"decoder.up.{i}.block.1")
        if i:
            found |= conv(f"encoder.down.{i - 1}.downsample.conv", 32, 32)
            found |= conv(f"decoder.up.{i}.upsample.conv", 32, 32)
    for end in ("encoder", "decoder"):
        found |= norm(f"{end}.norm_out") | norm(f"{end}.mid.attn_1.norm")
        found |= res_block(f"{end}.mid.block_1") | res_block(f"{end}.mid.block_2")
        for name in ("q", "k", "v", "proj_out"):
            found |= conv(f"{end}.mid.attn_1.{name}", 32, 32, 1)
    return {f"first_stage_model.{key}": shape for key, shape in found.items()}


def res_block(name: str) -> Shapes:
    convolutions = conv(f"{name}.conv1", 32, 32) | conv(f"{name}.conv2", 32, 32)
    return convolutions | norm(f"{name}.norm1") | norm(f"{name}.norm2")


def conv(name: str, out: int, inner: int, size: int = 3) -> Shapes:
    return {f"{name}.weight": (out, inner, size, size), f"{name}.bias": (out,)}


def norm(name: str) -> Shapes:
    return {f"{name}.weight": (32,), f"{name}.bias": (32,)}


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "millions", "guidance", "temperature"),
    [
        ("IBQ-B", 342, 2.25, 1.1),
        ("IBQ-L", 649, 2.0, 1.0),
        ("IBQ-XL", 1100, 2.35, 1.15),
        ("IBQ-XXL", 2100, 2.85, 1.2),
    ],
)
def test_published_sizes(name: str, millions: int, guidance: float, temperature: float) -> None:
    options = ibq_ar.PRESETS[name]
    shapes = official_shapes(options)
    tensors = on_meta(shapes)
    converted = ibq_ar.convert(tensors, {}, name)  # strict both ways
    assert converted.network.config == ibq_ar.convert(tensors, options, name).network.config
    config = converted.network.config
    assert (config.backbone.heads, config.backbone.depth) == (options["n_head"],) * 2
    assert (config.grid, converted.image_size) == ((1, 16, 16), 256)
    own = sum(p.numel() for p in converted.network.parameters())
    assert own == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert abs(own / 1e6 - millions) < 0.03 * millions
    assert converted.sampling is not None
    assert (converted.sampling.guidance_scale, converted.sampling.temperature) == (
        guidance,
        temperature,
    )
    for key in ("blocks.3.ada_lin.1.bias", "head_nm.rmsnorm.weight", "blocks.0.ffn_norm.weight"):
        with pytest.raises(UserError):
            ibq_ar.convert(
                {k: v for k, v in tensors.items() if k != f"transformer.{key}"}, {}, name
            )
    with pytest.raises(UserError, match=r"'blocks\.0\.more'"):
        ibq_ar.convert(
            {**tensors, "transformer.blocks.0.more": tensors["transformer.head.weight"]}, {}, name
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no published width"),
        ({"n_heads": 2}, "n_head"),
        ({"n_head": 2, "n_layer": 3}, "n_layer 2, not 3"),
        ({"n_head": 2, "use_pretrained_codebook": True}, "use_pretrained_codebook"),
        ({"n_head": 2, "block_size": 8}, "no square"),
        ({"n_head": 3}, "does not divide"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ibq_ar.convert(drawn(official_shapes(TINY)), options, "a.ckpt")


def test_a_codebook_with_its_projector() -> None:
    tensors = drawn(official_shapes(TINY, codebook=6))
    config = ibq_ar.convert(tensors, {"n_head": 2}, "a.ckpt").network.config
    assert config.code_channels == 6 and config.codebook_size == 20


def test_a_file_is_a_pipeline(tmp_path: Path) -> None:
    """The generator's file holds its tokenizer: one import, and classes can be drawn."""
    tensors = drawn(official_shapes(TINY) | tokenizer_shapes())
    known = [part for part in parts() if part.recognise(shapes_of(tensors))]
    assert [(part.system, part.component) for part in known] == [
        ("ibq", "transformer"),
        ("ibq", "vision"),
    ]
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "AR_256_B.ckpt")
    options = {"transformer": {"n_head": 2, "block_size": 9}}
    said = import_files("ibq", [tmp_path / "AR_256_B.ckpt"], options, tmp_path / "out")
    assert any("class-conditional generator of ibq" in line for line in said)
    pipe = Pipeline.from_pretrained(tmp_path / "out")
    assert (pipe.info.image_size, pipe.grid) == (48, (1, 3, 3))
    one, two = (pipe(class_labels=[3, 1000], seed=5).codes for _ in range(2))
    assert torch.equal(one, two)
    images = pipe(class_labels=3, seed=5, temperature=0.0).images
    assert [image.size for image in images] == [(48, 48)]
    with pytest.raises(UserError, match="has no sub-tokens; give one value"):
        pipe(class_labels=3, guidance_scale=[2.0, 1.0])


def test_a_tokenizer_of_its_own_goes_first(tmp_path: Path) -> None:
    tensors = drawn(official_shapes(TINY) | tokenizer_shapes())
    alone = {key.removeprefix("first_stage_model."): t + 1 for key, t in tensors.items()}
    alone = {key: t for key, t in alone.items() if not key.startswith("transformer.")}
    torch.save({"state_dict": tensors}, tmp_path / "AR_256_B.ckpt")
    torch.save({"state_dict": alone}, tmp_path / "imagenet256_16384.ckpt")
    files = [tmp_path / "imagenet256_16384.ckpt", tmp_path / "AR_256_B.ckpt"]
    import_files("ibq", files, {"transformer": {"n_head": 2}}, tmp_path / "out")
    codebook = load_component(tmp_path / "out" / "vision").quantizer.codebook
    assert torch.equal(codebook, alone["quantize.embedding.weight"])


def test_a_generator_alone_is_a_transformer_alone() -> None:
    shapes = official_shapes(TINY)
    assert [p.name for p in parts() if p.recognise(shapes)] == ["class-conditional generator"]
    stranger = {**shapes, "loss.weight": (1,)}
    assert not [p.name for p in parts() if p.recognise(stranger)]
