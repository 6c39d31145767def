"""What official transformers of LlamaGen's family tell of themselves, and contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import official_gpt as official
import pytest
import torch
from test_ibq_ar import drawn as tensors_of
from test_ibq_ar import official_shapes as ibq_shapes
from test_llamagen_gpt import MEDUSA, SMALL, clip_shapes, image_shapes, tensors
from test_open_magvit2_ar import TINY as MAGVIT2
from test_open_magvit2_ar import official_shapes as magvit2_shapes

from mmgen.errors import ConfigError, UserError
from mmgen.models.conditions import ClassCondition, ClassConfig
from mmgen.models.units import Unit, plan_for
from mmgen.pipeline import Pipeline
from mmgen.published import ibq_ar, llamagen_gpt, nar, open_magvit2_ar
from mmgen.published.importing import import_files

TEXT = {**SMALL, "model_type": "t2i"}
TABLE = "cls_embedding.embedding_table.weight"


def images(options: dict[str, Any], where: str = "c2i.pt", **more: tuple[int, ...]) -> Any:
    return llamagen_gpt.convert(tensors(image_shapes(SMALL) | more), options, where)


@pytest.mark.parametrize(
    ("where", "task", "side", "note"),
    [
        ("models--yefly--NAR-XL-t2i-stage2/snapshots/1/model.pt", "t2i", 32, "as its name says"),
        ("NAR-XL-t2i-stage1/model.pt", "t2i", 16, "as its name says"),
        ("stage2/model.pt", "c2i", 16, "assumed"),
        ("/home/me/stage2-tests/model.pt", "t2i", 16, "assumed"),
        ("stage1-and-stage2/model.pt", "t2i", 16, "assumed"),
    ],
)
def test_a_stage_tells_its_pixels(where: str, task: str, side: int, note: str) -> None:
    shapes = image_shapes({**SMALL, "model_type": task}, MEDUSA)
    converted = nar.convert_images(tensors(shapes), {}, where)
    assert converted.network.config.grid == (1, side, side)
    assert converted.size_by == note


def test_a_rotary_table_tells_grid_and_heads() -> None:
    converted = images({}, "c2i_B_256.pt", freqs_cis=(577, 16, 2))
    config = converted.network.config
    assert (config.grid, config.backbone.heads, converted.size_by) == ((1, 24, 24), 24, "")
    shapes = image_shapes(TEXT, MEDUSA) | {"freqs_cis": (120 + 1024, 32, 2)}
    config = nar.convert_images(tensors(shapes), {}, "a.pt").network.config
    assert (config.grid, config.backbone.heads) == ((1, 32, 32), 12)


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        ({"block_size": 256}, (577, 32, 2), "has block_size 576, not 256"),
        ({"n_head": 6}, (577, 32, 2), "has n_head 12, not 6"),
        ({}, (578, 32, 2), "no table of a square picture behind 1 rows"),
        ({}, (1, 32, 2), "no table of a square picture"),
        ({}, (257, 31, 2), "no table of a square picture"),
        ({}, (257, 64), "not with 3 axes"),
    ],
)
def test_a_rotary_table_that_does_not_fit(
    options: dict[str, Any], shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        images(options, freqs_cis=shape)


@pytest.mark.parametrize("block_size", [-256, 0, 250, 10**12, "much", None])
def test_block_sizes_that_no_picture_has(block_size: Any) -> None:
    for convert in (
        lambda given: images(given),
        lambda given: ibq_ar.convert(
            tensors_of(ibq_shapes({"n_layer": 1, "n_embd": 32, "vocab_size": 9})), given, "a.ckpt"
        ),
        lambda given: open_magvit2_ar.convert(tensors_of(magvit2_shapes(MAGVIT2)), given, "a.ckpt"),
    ):
        with pytest.raises(ConfigError, match="block_size") as raised:
            convert({"n_head": 2, "block_size": block_size})
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_kv_head": 4}, "has n_kv_head 12, not 4"),
        ({"n_head": 0}, "n_head of c2i.pt must be a whole number from 1 on, not 0"),
        ({"n_head": "12"}, "must be a whole number"),
        ({"n_head": True}, "must be a whole number"),
        ({"n_head": 768}, "Heads of 1 channels cannot carry rows and columns"),
        ({"n_head": 128}, "Heads of 6 channels cannot carry rows and columns"),
        ({"cls_token_num": 2}, "has cls_token_num 1, not 2"),
        ({"rope_base": 0}, "rope_base must be above 0"),
    ],
)
def test_options_of_pictures(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        images(options)


def test_grouped_keys_are_told_by_the_rows() -> None:
    grouped = {f"layers.{i}.attention.wqkv.weight": (768 + 2 * 256, 768) for i in range(2)}
    config = images({"n_kv_head": 4}, **grouped).network.config.backbone
    assert (config.heads, config.kv_heads) == (12, 4)
    with pytest.raises(ConfigError, match="has n_kv_head 4, not 12"):
        images({"n_kv_head": 12}, **grouped)
    with pytest.raises(ConfigError, match="1280 rows of queries, keys and values, which 8 heads"):
        images({"n_head": 8}, **grouped)
    uneven = {**grouped, "layers.1.attention.wqkv.weight": (3 * 768, 768)}
    with pytest.raises(UserError, match=r"other sizes \('layers.1.attention.wqkv.weight'"):
        images({}, **uneven)
    with pytest.raises(UserError, match="of unequal shapes"):
        images({}, **{"layers.1.feed_forward.w1.weight": (9, 768)})


@pytest.mark.parametrize("said", ["cls_token_num", "caption_token_num"])
def test_captions_have_as_many_rows_as_their_null_twin(said: str) -> None:
    with pytest.raises(ConfigError, match=f"has {said} 120, not 24"):
        llamagen_gpt.convert(tensors(image_shapes(TEXT)), {said: 24}, "t2i.pt")


@pytest.mark.parametrize("value", [-1, "1", 1.0, None, True])
def test_blocks_between_heads_are_counted(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"medusa_attention_num of a\.pt must be a whole number"):
        nar.convert_images(
            tensors(image_shapes(SMALL, MEDUSA)), {"medusa_attention_num": value}, "a.pt"
        )
    for name in ("attn_num_down", "attn_num_back"):
        with pytest.raises(ConfigError, match=rf"{name} of a\.pth must be a whole number"):
            nar.convert_clips(tensors(clip_shapes(SMALL)), {name: value}, "a.pth")


def test_a_clips_places_and_grid() -> None:
    converted = nar.convert_clips(tensors(clip_shapes(SMALL)), {}, "a.pth")
    assert converted.notes == ("latent_shape 4x16x16 assumed",)
    with pytest.raises(ConfigError, match="has cls_token_num 1, not 2"):
        nar.convert_clips(tensors(clip_shapes(SMALL)), {"cls_token_num": 2}, "a.pth")
    with pytest.raises(ConfigError, match="grid"):
        nar.convert_clips(
            tensors(clip_shapes(SMALL, tokens=24)), {"latent_shape": [-2, -3, 4]}, "a.pth"
        )


@pytest.mark.parametrize(
    ("convert", "shapes"),
    [
        (llamagen_gpt.convert, image_shapes(SMALL)),
        (llamagen_gpt.convert, image_shapes(TEXT)),
        (nar.convert_images, image_shapes(SMALL, MEDUSA)),
        (nar.convert_clips, clip_shapes(SMALL)),
        (ibq_ar.convert, ibq_shapes({"n_layer": 1, "n_embd": 1024, "vocab_size": 9})),
        (ibq_ar.convert, ibq_shapes({"n_layer": 1, "n_embd": 1024, "vocab_size": 9}, 8)),
        (open_magvit2_ar.convert, magvit2_shapes({**MAGVIT2, "dim": 1024})),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_tensors_without_their_axes(convert: Any, shapes: dict[str, Any], rank: int) -> None:
    whole = tensors(shapes)
    for key, shape in shapes.items():
        if len(shape) > rank:
            with pytest.raises(UserError) as raised:
                convert({**whole, key: torch.empty(shape[:rank], device="meta")}, {}, "a.pt")
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "rows", "classes", "null"),
    [
        ({}, 8, 7, True),
        ({"num_classes": 8}, 8, 8, False),
        ({"class_dropout_prob": 0.0}, 8, 8, False),
        ({"class_dropout_prob": 0, "num_classes": 8}, 8, 8, False),
        ({"class_dropout_prob": 0.0, "num_classes": 7}, 8, 7, True),  # set to 0 after training
        ({"class_dropout_prob": 0.1}, 8, 7, True),
    ],
)
def test_a_table_may_lack_the_null_row(
    options: dict[str, Any], rows: int, classes: int, null: bool
) -> None:
    converted = images(options, **{TABLE: (rows, 768)})
    condition = converted.network.config.condition
    assert (condition.classes, condition.null) == (classes, null)
    assert converted.sampling is not None
    assert (converted.sampling.guidance_scale == 1.0) is not null


def test_classes_that_contradict_the_table() -> None:
    for options in ({"num_classes": 9}, {"num_classes": 8, "class_dropout_prob": 0.1}):
        with pytest.raises(ConfigError, match="has num_classes 7"):
            images(options, **{TABLE: (8, 768)})


def test_without_a_null_row_nothing_is_guided(tmp_path: Path) -> None:
    import official_conv as keys

    sizes = official.Sizes(width=32, heads=2, kv=2, hidden=24)
    shapes = official.block_shapes("layers", 1, sizes) | {
        **{"tok_embeddings.weight": (9, 32), TABLE: (3, 32)},
        **{"norm.weight": (32,), "output.weight": (9, 32)},
    }
    torch.save({"model": official.drawn(shapes)}, tmp_path / "gpt.pt")
    vq = keys.drawn(keys.llamagen(32, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), 1, 32, 9, 8))
    torch.save({"model": vq}, tmp_path / "vq.pt")
    options = {"transformer": {"n_head": 2, "block_size": 4, "num_classes": 3}}
    import_files("llamagen", [tmp_path / "gpt.pt", tmp_path / "vq.pt"], options, tmp_path / "out")
    pipe = Pipeline.from_pretrained(tmp_path / "out")
    assert pipe(class_labels=2, seed=0).codes.shape == (1, 1, 2, 2)
    with pytest.raises(UserError, match="no null class to be guided by; leave guidance off"):
        pipe(class_labels=2, seed=0, guidance_scale=2.0)
    with pytest.raises(UserError, match=r"no class 3; give labels from 0 to 2\."):
        pipe(class_labels=3, seed=0)
    with pytest.raises(ConfigError, match=r"Class 3 is unknown; give labels from 0 to 2\."):
        ClassCondition(ClassConfig(classes=3, null=False), 4)(torch.tensor([3]))
    with pytest.raises(ConfigError, match="one class or more, not 0"):
        ClassConfig(classes=0)


def test_heads_without_a_neighbour_speak_of_the_corner() -> None:
    flat = Unit("neighbor", "neighbor", "neighbors", directions="tyx")
    plan = plan_for(flat, (1, 1, 3))
    assert plan.heads == ("t", "y", "x")
    assert plan.reads.tolist() == [[-2, -1, -1], [-2, -1, -1], [-2, 0, 1]]
    assert plan_for(Unit("neighbor", "neighbor", "neighbors"), (1, 1, 3)).heads == ("x",)
    for wrong in ({"directions": "yz"}, {"directions": "y", "prediction": "shift"}):
        with pytest.raises(ConfigError, match="directions of unit 'a' must be letters of tyx"):
            Unit(**{"name": "a", "order": "neighbor", "prediction": "neighbors", **wrong})


def test_sizes_of_no_published_file_are_said() -> None:
    """IBQ's and Open-MAGVIT2's files do not tell their pixels either."""
    shapes = ibq_shapes({"n_layer": 1, "n_embd": 32, "vocab_size": 9})
    assert ibq_ar.convert(tensors_of(shapes), {"n_head": 2}, "a.ckpt").size_by == "assumed"
    converted = open_magvit2_ar.convert(
        tensors_of(magvit2_shapes(MAGVIT2)), {"n_head": 2}, "AR_256_B.ckpt"
    )
    assert converted.size_by == "as the file's name says"
