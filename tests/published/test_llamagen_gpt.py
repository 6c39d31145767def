"""LlamaGen's and NAR's transformers: every published size, what is recognised, what is refused.

The official keys are written out here by the rules of specs/nar.md, apart from the importer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import official_conv as keys
import pytest
import torch
from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError
from mmgen.pipeline import Pipeline
from mmgen.published import llamagen_gpt, nar
from mmgen.published.importing import import_files
from mmgen.published.matching import match
from mmgen.published.reading import Checkpoint
from mmgen.published.systems import Converted, Part, parts, shapes_of

# Published parameters with 16384 codes and 1000 classes (NAR's clips: 8192 and 101).
LLAMAGEN = {
    "GPT-B": 110_888_448,
    "GPT-L": 342_910_976,
    "GPT-XL": 774_699_520,
    "GPT-XXL": 1_410_972_672,
    "GPT-XXXL": 3_893_027_840,
    "GPT-1B": 1_199_616_000,
    "GPT-3B": 3_096_659_200,
    "GPT-7B": 6_614_589_440,
    "GPT-XL t2i": 777_678_080,
}
NAR = {
    "GPT-B": 130_551_552,
    "GPT-M": 295_453_696,
    "GPT-L": 372_536_320,
    "GPT-XL": 815_991_040,
    "GPT-XXL": 1_464_454_656,
    "GPT-XL t2i": 818_969_600,
}
CLIPS = {
    "llama-abs-S": 37.8e6,
    "llama-abs-B": 125.1e6,
    "llama-abs-L": 368.7e6,
    "llama-abs-LP": 693.6e6,
    "llama-abs-XL": 815.5e6,
}
MEDUSA = ("", "medusa_")


def blocks(layers: int, dim: int) -> dict[str, tuple[int, ...]]:
    ffn = (int(2 * (4 * dim) / 3) + 255) // 256 * 256
    one: dict[str, tuple[int, ...]] = {
        "attention.wqkv": (3 * dim, dim),
        "attention.wo": (dim, dim),
        "feed_forward.w1": (ffn, dim),
        "feed_forward.w3": (ffn, dim),
        "feed_forward.w2": (dim, ffn),
        "attention_norm": (dim,),
        "ffn_norm": (dim,),
    }
    return {f"layers.{i}.{k}.weight": shape for i in range(layers) for k, shape in one.items()}


def image_shapes(
    preset: Mapping[str, Any], heads: tuple[str, ...] = ("",), codes: int = 16384
) -> dict[str, tuple[int, ...]]:
    dim = preset["dim"]
    shapes = blocks(preset["n_layer"] + len(heads) - 1, dim) | {
        "tok_embeddings.weight": (codes, dim)
    }
    for head in heads:
        shapes |= {f"{head}norm.weight": (dim,), f"{head}output.weight": (codes, dim)}
    if preset["model_type"] == "c2i":
        return shapes | {"cls_embedding.embedding_table.weight": (1001, dim)}
    return shapes | {
        "cls_embedding.uncond_embedding": (120, 2048),
        "cls_embedding.cap_proj.fc1.weight": (dim, 2048),
        "cls_embedding.cap_proj.fc2.weight": (dim, dim),
    }


def clip_shapes(preset: Mapping[str, Any], tokens: int = 1024) -> dict[str, tuple[int, ...]]:
    dim = preset["dim"]
    shapes = blocks(preset["n_layer"] + 2, dim) | {"tok_embeddings.weight": (8192, dim)}
    for head in "RDB":
        shapes |= {f"norm_{head}.weight": (dim,), f"output_{head}.weight": (8192, dim)}
    table = {"cls_embedding.embedding_table.weight": (102, dim)}
    return shapes | table | {"abs_pe": (1, tokens + 1, dim)}


def tensors(shapes: Mapping[str, tuple[int, ...]], device: str = "meta") -> dict[str, Tensor]:
    with torch.device(device):
        return {key: torch.zeros(shape) for key, shape in shapes.items()}


def parameters(converted: Converted) -> int:
    return sum(p.numel() for p in converted.network.parameters())


def only(shapes: Mapping[str, tuple[int, ...]]) -> Part:
    """The one part of all systems that recognises a file."""
    (found,) = [part for part in parts() if part.recognise(dict(shapes))]
    return found


def convert(preset: Mapping[str, Any], shapes: dict[str, tuple[int, ...]], where: str) -> Converted:
    """Convert on the meta device, strictly both ways."""
    return only(shapes).convert(tensors(shapes), preset, where)


@pytest.mark.parametrize("name", LLAMAGEN)
def test_llamagen_sizes(name: str) -> None:
    preset = llamagen_gpt.PRESETS[name]
    converted = convert(preset, image_shapes(preset), "c2i.pt")
    assert parameters(converted) == LLAMAGEN[name]
    assert set(llamagen_gpt.PRESETS) == set(LLAMAGEN)


@pytest.mark.parametrize("name", NAR)
def test_nar_image_sizes(name: str) -> None:
    preset = nar.PRESETS[name]
    converted = convert(preset, image_shapes(preset, MEDUSA), "last_version.pt")
    assert parameters(converted) == NAR[name]
    assert [unit.name for unit in converted.network.config.units] == ["neighbor"]


@pytest.mark.parametrize("name", CLIPS)
def test_nar_clip_sizes(name: str) -> None:
    preset = nar.PRESETS[name]
    converted = convert(preset, clip_shapes(preset), "clips.pth")
    assert parameters(converted) == pytest.approx(CLIPS[name], rel=1e-3)
    assert converted.network.config.grid == (4, 16, 16) and converted.image_size == 128


@pytest.mark.parametrize("name", sorted(nar.PRESETS.keys() - {*NAR, *CLIPS}))
def test_nar_sizes_without_a_published_count(name: str) -> None:
    preset = nar.PRESETS[name]
    clips = name.startswith("llama-abs")
    shapes = clip_shapes(preset) if clips else image_shapes(preset, MEDUSA)
    converted = convert(preset, shapes, "x.pth")
    assert parameters(converted) == sum(torch.Size(shape).numel() for shape in shapes.values())


SMALL: dict[str, Any] = {"n_layer": 2, "dim": 768, "model_type": "c2i"}


@pytest.mark.parametrize("heads", [("",), MEDUSA])
def test_no_tensor_is_missing_or_left_over(heads: tuple[str, ...]) -> None:
    shapes = image_shapes(SMALL, heads)
    part = only(shapes)
    for key in ("layers.1.attention.wo.weight", "layers.1.feed_forward.w1.weight"):
        short = {name: tensor for name, tensor in tensors(shapes).items() if name != key}
        with pytest.raises(CheckpointError, match="'"):
            part.convert(short, {}, "c2i.pt")
    with pytest.raises(CheckpointError, match=r"'layers\.0\.extra'"):
        part.convert(tensors(shapes | {"layers.0.extra": (1,)}), {}, "c2i.pt")
    wide = shapes | {"norm.weight": (769,)}
    with pytest.raises(CheckpointError, match="other sizes"):
        part.convert(tensors(wide), {}, "c2i.pt")


@pytest.mark.parametrize(
    ("system", "shapes"),
    [
        ("llamagen", image_shapes(SMALL, codes=20)),
        ("llamagen", image_shapes({**SMALL, "model_type": "t2i"}, codes=20)),
        ("nar", image_shapes(SMALL, MEDUSA, codes=20)),
        ("nar", image_shapes({**SMALL, "model_type": "t2i"}, MEDUSA, codes=20)),
        ("nar", clip_shapes(SMALL)),
    ],
)
def test_files_are_told_apart(system: str, shapes: dict[str, tuple[int, ...]]) -> None:
    assert only(shapes).system == system
    if "abs_pe" not in shapes:  # some image files carry their rotary table
        assert only(shapes | {"freqs_cis": (257, 32, 2)}).system == system
    assert not [part for part in parts() if part.recognise(shapes | {"spe_tok_embeddings": (3, 4)})]


def test_llamagens_file_given_for_nar_is_named(tmp_path: Any) -> None:
    """NAR's page links LlamaGen's own file for its first stage."""
    path = tmp_path / "t2i_XL_stage1_256.pt"
    file = Checkpoint(path, "0" * 64, tensors(image_shapes({**SMALL, "model_type": "t2i"})))
    said = r"is not of nar: it is the text-to-image generator of llamagen"
    with pytest.raises(CheckpointError, match=said):
        match("nar", [file], parts())


@pytest.mark.parametrize(
    ("where", "options", "side", "pixels"),
    [
        ("c2i_B_384.pt", {}, 24, 384),
        ("t2i_XL_stage2_512.pt", {}, 32, 512),
        ("/models/512/last_version.pt", {}, 16, 256),
        ("c2i_B_384.pt", {"block_size": 256}, 16, 256),
    ],
)
def test_a_files_name_tells_its_pixels(
    where: str, options: dict[str, int], side: int, pixels: int
) -> None:
    converted = llamagen_gpt.convert(tensors(image_shapes(SMALL)), options, where)
    assert converted.network.config.grid == (1, side, side) and converted.image_size == pixels
    told = "as the file's name says" if "_" + str(pixels) in where else "assumed"
    assert converted.size_by == ("" if options else told)


def test_a_width_without_published_guidance_is_told() -> None:
    for dim, told in ((768, False), (384, True)):
        shapes = image_shapes({**SMALL, "dim": dim, "n_head": 6})
        converted = llamagen_gpt.convert(tensors(shapes), {"n_head": 6}, "a.pt")
        said = f"guidance 1.5, since none is published for width {dim}"
        assert (said in converted.notes) == told


def test_defaults_are_those_of_the_published_evaluation() -> None:
    def scales(convert: Any, shapes: dict[str, tuple[int, ...]], where: str) -> tuple[Any, ...]:
        sampling = convert(tensors(shapes), {}, where).sampling
        return sampling.guidance_scale, sampling.top_k, sampling.temperature, sampling.top_p

    large, text = {**SMALL, "dim": 1024}, {**SMALL, "model_type": "t2i"}
    llamagen = llamagen_gpt.convert
    assert scales(llamagen, image_shapes(SMALL), "c2i_B_384.pt") == (2.25, 0, 1.0, 1.0)
    assert scales(llamagen, image_shapes(SMALL), "c2i_B_256.pt") == (2.0, 0, 1.0, 1.0)
    assert scales(llamagen, image_shapes(large), "c2i_L_256.pt") == (1.75, 0, 1.0, 1.0)
    assert scales(llamagen, image_shapes(text), "t2i.pt") == (7.5, 1000, 1.0, 1.0)
    assert scales(nar.convert_images, image_shapes(SMALL, MEDUSA), "a.pt") == (2.0, 0, 1.0, 1.0)
    assert scales(nar.convert_clips, clip_shapes(SMALL), "a.pth") == (1.25, 0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_layer": 3}, "has n_layer 2, not 3"),
        ({"vocab_size": 8}, "has vocab_size 16384, not 8"),
        ({"model_type": "t2i"}, "has model_type c2i, not 't2i'"),
        ({"n_heads": 12}, "no option 'n_heads'; did you mean 'n_head'"),
        ({"block_size": 250}, "block_size 250 of c2i.pt is no square"),
        ({"rope_base": "much"}, "rope_base must be of type float"),
        ({"n_head": 7}, "heads 7 does not divide width 768"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        llamagen_gpt.convert(tensors(image_shapes(SMALL)), options, "c2i.pt")


def test_what_no_tensor_tells_is_asked_for() -> None:
    odd = image_shapes({**SMALL, "dim": 96})
    with pytest.raises(
        ConfigError, match="no published width \\(96\\); say its heads with n_head="
    ):
        llamagen_gpt.convert(tensors(odd), {}, "c2i.pt")
    assert llamagen_gpt.convert(tensors(odd), {"n_head": 4}, "c2i.pt").network is not None
    clip = tensors(clip_shapes(SMALL, tokens=24))
    with pytest.raises(ConfigError, match="latent_shape"):
        nar.convert_clips(clip, {}, "a.pth")
    with pytest.raises(ConfigError, match="does not hold the 24 tokens"):
        nar.convert_clips(clip, {"latent_shape": [2, 3, 5]}, "a.pth")
    with pytest.raises(ConfigError, match="Frame prediction"):
        nar.convert_clips(clip, {"latent_shape": [2, 3, 4], "frame_prediction": True}, "a.pth")


def test_a_file_without_first_block_is_named() -> None:
    rest = {k: v for k, v in image_shapes(SMALL).items() if k != "layers.0.feed_forward.w3.weight"}
    assert only(rest).system == "llamagen"
    with pytest.raises(
        CheckpointError, match=r"lacks the tensor 'layers.0.feed_forward.w3.weight'"
    ):
        llamagen_gpt.convert(tensors(rest), {}, "c2i.pt")


def test_shapes_come_from_the_tensors_alone() -> None:
    shapes = image_shapes(SMALL, MEDUSA, codes=30)
    assert shapes_of(tensors(shapes)) == shapes
    network = nar.convert_images(tensors(shapes, "cpu"), {}, "a.pt").network
    assert network.config.codebook_size == 30 and not next(network.parameters()).is_meta
    assert [(tap.direction, tap.depth) for tap in network.config.taps] == [("x", 2), ("y", 3)]


@pytest.mark.parametrize(("system", "heads"), [("llamagen", ("",)), ("nar", MEDUSA)])
def test_imported_files_draw_classes(system: str, heads: tuple[str, ...], tmp_path: Path) -> None:
    """NAR draws with LlamaGen's tokenizer; both files are given."""
    codes, sizes = 30, {"n_layer": 1, "dim": 64, "model_type": "c2i"}
    vq = keys.drawn(keys.llamagen(32, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), 1, 32, codes, 8))
    torch.save({"model": vq}, tmp_path / "vq.pt")
    gpt = keys.drawn(image_shapes(sizes, heads, codes))
    torch.save({"model": gpt}, tmp_path / "gpt.pt")
    options = {"transformer": {"n_head": 4, "block_size": 9}}
    said = import_files(
        system, [tmp_path / "vq.pt", tmp_path / "gpt.pt"], options, tmp_path / "out"
    )
    assert any("generator" in line for line in said)
    pipe = Pipeline.from_pretrained(tmp_path / "out")
    output = pipe(class_labels=[207, 1000], seed=0)
    assert [image.size for image in output.images] == [(48, 48)] * 2
    assert output.codes.shape == (2, 1, 3, 3) and len(output.codes.unique()) > 4
    assert {each.component for each in pipe.info.sources} == {"vision", "transformer"}
    assert pipe.info.sampling.guidance_scale == (2.0 if system == "nar" else 1.5)
