"""Importing xAR: names and sizes of the published files, and what a file tells of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import official_conv as keys
import pytest
import torch
from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError, UserError
from mmgen.models.backbone import parameter_count
from mmgen.models.velocity import VelocityModel
from mmgen.pipeline import Pipeline
from mmgen.published import xar
from mmgen.published.importing import import_files
from mmgen.published.keymap import load, meta
from mmgen.published.options import official
from mmgen.published.systems import parts, shapes_of
from mmgen.published.xar_keys import our_tensors

TINY = {
    **{"encoder_embed_dim": 32, "encoder_depth": 2, "encoder_num_heads": 2},
    **{"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4},
    "clusters": 16,
}


def official_shapes(options: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an official state dict, by the rules of its description."""
    width, channels, slots = options["encoder_embed_dim"], 16, 256
    hidden = math.floor(width * 4 * 2 / 3)
    shapes: dict[str, tuple[int, ...]] = {
        "mask": (1, 1, slots, slots),
        "class_emb.weight": (1001, width),
        "z_proj_ln.weight": (width,),
        "encoder_norm.weight": (width,),
        "decoder_norm.weight": (width,),
    }

    def linear(name: str, source: int, target: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (target, source), (target,)

    linear("time_embed.mlp.0", 256, width)
    linear("time_embed.mlp.2", width, width)
    linear("z_proj", channels, width)
    linear("decoder_embed", width, width)
    linear("pred", width, channels)
    for part in ("encoder", "decoder"):
        shapes[f"{part}_pos_embed_learned"] = (1, slots, width)
        head = width // options[f"{part}_num_heads"]
        for i in range(options[f"{part}_depth"]):
            block = f"{part}_blocks.{i}"
            linear(f"{block}.attn.qkv", width, 3 * width)
            linear(f"{block}.attn.proj", width, width)
            linear(f"{block}.mlp.fc1_g", width, hidden)
            linear(f"{block}.mlp.fc1_x", width, hidden)
            linear(f"{block}.mlp.fc2", hidden, width)
            linear(f"{block}.ada_lin.1", width, 6 * width)
            shapes[f"{block}.attn.rope.freqs"] = (head // 4,)
            shapes[f"{block}.attn.rope.freqs_cos"] = (slots, head)
            shapes[f"{block}.attn.rope.freqs_sin"] = (slots, head)
    return shapes


def official_tensors(options: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights under official names, with the mask of the cells."""
    generator = torch.Generator().manual_seed(0)
    shapes = official_shapes(options)
    tensors = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    cell = torch.arange(256) // (256 // options["clusters"])
    hidden = cell[None] > cell[:, None]
    tensors["mask"] = torch.zeros(256, 256).masked_fill(hidden, -math.inf)[None, None]
    return tensors


@pytest.mark.parametrize(
    ("name", "entries", "parameters"),
    [("xAR-B", 257, 172638224), ("xAR-L", 497, 608397968), ("xAR-H", 617, 1186024096)],
)
def test_published_sizes(name: str, entries: int, parameters: int) -> None:
    options = xar.PRESETS[name]
    shapes = official_shapes(options)
    assert len(shapes) == entries
    config = xar.configuration(official(xar.Options, options, name))
    network = meta(lambda: VelocityModel(config))
    assert parameter_count(network) == parameters
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    load(network, our_tensors(tensors, config, name), name)  # strict both ways
    for key in ("decoder_blocks.0.mlp.fc1_x.bias", "pred.bias", "z_proj_ln.weight"):
        fewer = {k: v for k, v in tensors.items() if k != key}
        with pytest.raises(CheckpointError):
            load(network, our_tensors(fewer, config, name), name)
    with pytest.raises(CheckpointError, match=r"'blocks\.0\.norm'"):
        our_tensors({**tensors, "blocks.0.norm": tensors["pred.bias"]}, config, name)


def test_a_file_tells_its_sizes() -> None:
    tensors = official_tensors(TINY)
    alone, told = (xar.convert(tensors, given, "x.pth") for given in ({}, TINY))
    assert alone.network.config == told.network.config
    assert alone.component == "transformer" and alone.image_size == 256
    config = alone.network.config
    assert (config.order, config.grid, config.classes) == ("cell:4", (1, 16, 16), 1000)
    assert [(s.depth, s.heads, s.mlp_width) for s in config.stacks] == [(2, 2, 85), (1, 4, 85)]
    bare = {k: v for k, v in tensors.items() if "rope" not in k and k != "mask"}
    named = xar.convert(bare, TINY, "x.pth").network
    assert torch.equal(named.stacks[0].places, alone.network.stacks[0].places)
    with pytest.raises(ConfigError, match="encoder_num_heads"):
        xar.convert(bare, {}, "x.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_head": 2}, "encoder_num_heads"),
        ({"clusters": 4}, "has clusters 16, not 4"),
        ({"encoder_num_heads": 4}, "has encoder_num_heads 2, not 4"),
        ({"encoder_depth": "two"}, "encoder_depth"),
        ({"encoder_depth": 3}, "has encoder_depth 2"),
        ({"vae_embed_dim": 8}, "has vae_embed_dim 16"),
        ({"mlp_ratio": 3.0}, "holds other sizes"),
        ({"vae_stride": 0}, "vae_stride"),
        ({"mlp_ratio": -1.0}, "mlp_ratio must be above 0"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio must be above 0"),
        ({"proj_dropout": 1.5}, "proj_dropout must lie between 0 and 1"),
        ({"label_drop_prob": float("nan")}, "label_drop_prob must lie between 0 and 1"),
        ({"img_size": 512}, "latents of 16x16, which img_size=512 and vae_stride=16 do not make"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        xar.convert(official_tensors(TINY), options, "x.pth")


def test_other_strides_classes_and_times() -> None:
    tensors = official_tensors(TINY)
    tensors["class_emb.weight"] = torch.randn(8, 32)
    tensors["time_embed.mlp.0.weight"] = torch.randn(32, 64)
    converted = xar.convert(tensors, {"vae_stride": 8}, "x.pth")
    config = converted.network.config
    assert converted.image_size == 128
    assert (config.classes, config.time_channels, config.grid) == (7, 64, (1, 16, 16))


@pytest.mark.parametrize("cut", [lambda t: t[..., 0], lambda t: t[:1], lambda t: t[..., :1]])
def test_tensors_of_other_shapes(cut: Any) -> None:
    tensors = official_tensors({**TINY, "encoder_depth": 1})
    for key, tensor in tensors.items():
        if "rope" not in key and key != "mask" and cut(tensor).shape != tensor.shape:
            with pytest.raises(UserError) as raised:
                xar.convert({**tensors, key: cut(tensor)}, {}, "x.pth")
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize("clusters", [0, 5, 9])
def test_clusters_that_are_no_cells(clusters: int) -> None:
    tensors = official_tensors(TINY)
    del tensors["mask"]
    with pytest.raises(ConfigError, match=f"clusters={clusters} does not cut a latent of 16x16"):
        xar.convert(tensors, {"clusters": clusters}, "x.pth")


def test_only_its_own_files_are_recognised() -> None:
    shapes = shapes_of(official_tensors(TINY))
    assert [part.system for part in parts() if part.recognise(shapes)] == ["xar"]
    mar = {k.replace("ada_lin.1", "norm1"): v for k, v in shapes.items()}
    assert not xar.recognise(mar)


def test_files_become_a_pipeline_that_draws(tmp_path: Path) -> None:
    """Generator and tokenizer from their official containers to a picture."""
    torch.manual_seed(0)
    kl16 = tmp_path / "kl16.ckpt"
    tensors = keys.drawn(keys.kl(8, (1, 1, 2, 2, 4), 2, (4,), 16, 16))
    torch.save({"model": tensors}, kl16)
    own = official_tensors(TINY)
    small = {key: tensor * 0.1 for key, tensor in own.items() if key != "mask"}
    other = {key: tensor * 0 for key, tensor in own.items()}
    run = tmp_path / "checkpoint-last.pth"
    torch.save({"model": other, "model_ema": {**small, "mask": own["mask"]}, "epoch": 3}, run)
    said = import_files("xar", [kl16, run], {"vision": {"num_groups": 4}}, tmp_path / "xar")
    assert "EMA weights (model_ema)" in "".join(said) and "of kl16" in "".join(said)
    pipe = Pipeline.from_pretrained(tmp_path / "xar")
    output = pipe(class_labels=207, seed=1, num_inference_steps=[3, 2, 1] + [1] * 13)
    assert output.codes.shape == (1, 1, 16, 16, 16) and output.codes.isfinite().all()
    assert output.images[0].size == (256, 256)
    recipe = output.recipes[0]
    assert (recipe["guidance_scale"], recipe["guidance_ramp"]) == (2.2, "linear")
    assert (recipe["order"], recipe["class_label"]) == ("cell:4", 207)


def test_the_published_settings() -> None:
    for name, steps, scale in (("xAR-B", 40, 2.7), ("xAR-L", 50, 2.3), ("xAR-H", 50, 2.2)):
        sampling = xar.sampling_of(xar.PRESETS[name]["encoder_embed_dim"])
        assert (sampling.steps, sampling.guidance_scale) == (steps, scale)
        assert sampling.guidance_ramp == "linear"
