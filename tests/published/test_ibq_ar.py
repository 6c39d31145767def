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
from mmgen.pipeline_folder import read_info
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


def tokenizer_shapes() -> Shapes:
    """A tiny tokenizer of the family in a generator's file, with averages of its weights."""
    conv = {"encoder.conv_in": (32, 3), "encoder.conv_out": (8, 32), "quant_conv": (8, 8)}
    conv |= {"decoder.conv_in": (32, 8), "decoder.conv_out": (3, 32), "post_quant_conv": (8, 8)}
    found: Shapes = {"quantize.embedding.weight": (20, 8)}
    for name, (out, inner) in conv.items():
        size = 1 if name.endswith("quant_conv") else 3
        found |= {f"{name}.weight": (out, inner, size, size), f"{name}.bias": (out,)}
    for end, side in (("encoder", "down"), ("decoder", "up")):
        found |= norm(f"{end}.norm_out")
        for block in (f"{side}.0.block.0", "mid.block_1", "mid.block_2"):
            for i in (1, 2):
                found |= norm(f"{end}.{block}.norm{i}")
                found |= {f"{end}.{block}.conv{i}.weight": (32, 32, 3, 3)}
                found |= {f"{end}.{block}.conv{i}.bias": (32,)}
        found |= norm(f"{end}.mid.attn_1.norm")
        for name in ("q", "k", "v", "proj_out"):
            found |= {f"{end}.mid.attn_1.{name}.weight": (32, 32, 1, 1)}
            found |= {f"{end}.mid.attn_1.{name}.bias": (32,)}
    more = {key.replace("up.0.block.0", "up.0.block.1"): s for key, s in found.items()}
    return {f"first_stage_model.{key}": shape for key, shape in (found | more).items()}


def norm(name: str) -> Shapes:
    return {f"{name}.weight": (32,), f"{name}.bias": (32,)}


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "guidance", "temperature"),
    [
        ("IBQ-B", 2.25, 1.1),
        ("IBQ-L", 2.0, 1.0),
        ("IBQ-XL", 2.35, 1.15),
        ("IBQ-XXL", 2.85, 1.2),
    ],
)
def test_published_sizes(name: str, guidance: float, temperature: float) -> None:
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


def test_a_file_holds_a_pipeline(tmp_path: Path) -> None:
    tensors = drawn(official_shapes(TINY) | tokenizer_shapes())
    shapes = shapes_of(tensors)
    known = [part for part in parts() if part.recognise(shapes)]
    assert [(part.system, part.component) for part in known] == [
        ("ibq", "transformer"),
        ("ibq", "vision"),
    ]
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "AR_256_B.ckpt")
    options = {"transformer": {"n_head": 2}}
    said = import_files("ibq", [tmp_path / "AR_256_B.ckpt"], options, tmp_path / "out")
    assert any("class-conditional generator" in line for line in said)
    assert any("tokenizer" in line for line in said)
    assert load_component(tmp_path / "out" / "vision").codebook_size == 20
    assert load_component(tmp_path / "out" / "transformer").config.codebook_size == 20
    assert read_info(tmp_path / "out").image_size == 256


def test_a_generator_alone_is_a_transformer_alone() -> None:
    shapes = official_shapes(TINY)
    assert [p.name for p in parts() if p.recognise(shapes)] == ["class-conditional generator"]
    stranger = {**shapes, "loss.weight": (1,)}
    assert not [p.name for p in parts() if p.recognise(stranger)]
