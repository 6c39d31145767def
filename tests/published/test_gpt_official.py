"""Random small official transformers of LlamaGen's family: imported, they say what they should."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import official_gpt as official
import pytest
import torch
from fuzzing import CLOSE, drawn, drawn_sizes, imported, told
from torch import Tensor

from mmgen.models.conditions import pad_left
from mmgen.models.factorized import join, split
from mmgen.models.units import plan_for

SEEDS = range(12)
BATCH = 2
NAMES = {"x": ("norm", "output"), "y": ("medusa_norm", "medusa_output")}
CLIP_NAMES = {axis: (f"norm_{each}", f"output_{each}") for axis, each in zip("xyt", "RDB")}


def options_of(sizes: official.Sizes) -> dict[str, Any]:
    kv = {"n_kv_head": sizes.kv} if sizes.kv != sizes.heads else {}
    return {"dim": sizes.width, "n_head": sizes.heads, "norm_eps": sizes.eps, **kv}


def check(
    network: Any, condition: Any, codes: Tensor, predict: Any, predict_null: Any, scale: float
) -> None:
    """Both ways of asking against `predict(codes)`: all at once, and drawing step by step."""
    torch.testing.assert_close(told(network, condition, codes), predict(codes), **CLOSE)
    said, logits = drawn(network, condition, scale)
    expected = predict(said)
    if scale != 1.0:
        null = predict_null(said)
        expected = null + (expected - null) * scale
    torch.testing.assert_close(logits, expected, **CLOSE)


@pytest.mark.parametrize("task", ["c2i", "t2i"])
@pytest.mark.parametrize("system", ["llamagen", "nar"])
@pytest.mark.parametrize("seed", SEEDS)
def test_pictures(system: str, task: str, seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    sizes, depth, side = drawn_sizes(random), random.randint(1, 3), random.randint(1, 4)
    codes, extra = random.randint(7, 40), random.randint(0, 2) if system == "nar" else 0
    shapes = official.block_shapes("layers", depth + extra, sizes)
    heads = NAMES if system == "nar" else {"x": NAMES["x"]}
    shapes["tok_embeddings.weight"] = (codes, sizes.width)
    for scale, matrix in heads.values():
        shapes[f"{scale}.weight"] = (sizes.width,)
        shapes[f"{matrix}.weight"] = (codes, sizes.width)
    options = {**options_of(sizes), "block_size": side**2, "rope_base": sizes.base}
    if system == "nar":
        options["medusa_attention_num"] = extra
    classes, null = random.randint(1, 6), random.random() < 0.7 or task == "t2i"
    rows, channels = random.randint(1, 5), random.randint(3, 9)
    if task == "c2i":
        rows = 1
        shapes["cls_embedding.embedding_table.weight"] = (classes + null, sizes.width)
        options |= {"num_classes": classes, "class_dropout_prob": 0.1 * null}
    else:
        shapes["cls_embedding.uncond_embedding"] = (rows, channels)
        shapes["cls_embedding.cap_proj.fc1.weight"] = (sizes.width, channels)
        shapes["cls_embedding.cap_proj.fc2.weight"] = (sizes.width, sizes.width)
    weights = official.drawn(shapes)
    carried = dict(weights)
    if random.random() < 0.5:  # the table instead of what it tells
        carried["freqs_cis"] = torch.stack(official.square_table(rows, side, sizes), -1)
        del options["block_size"], options["n_head"]
    network = imported(system, carried, options, tmp_path)
    assert network.config.grid == (1, side, side)

    given: Any
    if task == "c2i":
        given = torch.randint(classes, (BATCH,))
        table = weights["cls_embedding.embedding_table.weight"]
        x, nothing = table[given][:, None], table[-1:].expand(BATCH, -1)[:, None]
        valid = torch.ones(BATCH, 1, dtype=torch.bool)
    else:
        counts = torch.tensor([random.randint(1, rows) for _ in range(BATCH)])
        shown = torch.arange(rows)[None] < counts[:, None]
        given = pad_left(torch.randn(BATCH, rows, channels), shown)
        valid = given.valid
        absent = weights["cls_embedding.uncond_embedding"].expand(BATCH, -1, -1)
        x, nothing = (official.captions(weights, each) for each in (given.values, absent))
    if system == "llamagen":
        network_of = partial(official.llamagen, weights, sizes, depth)
    else:
        depths = {"x": depth, "y": depth + extra}
        network_of = partial(official.nar, weights, sizes, depths, NAMES, (1, side, side))
    tokens = torch.randint(codes, (BATCH, side**2))
    scale = random.choice((1.0, 2.5)) if null else 1.0
    predict, absently = partial(network_of, x, valid), partial(network_of, nothing, valid)
    check(network, given, tokens, predict, absently, scale)


@pytest.mark.parametrize("seed", range(20))
def test_clips(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    sizes, depth = drawn_sizes(random, head=random.choice((3, 4))), random.randint(1, 3)
    grid = tuple(random.randint(1, 3) for _ in range(3))
    down, back = random.randint(0, 2), random.randint(0, 2)
    codes, classes = random.randint(7, 40), random.randint(1, 6)
    shapes = official.block_shapes("layers", depth + down + back, sizes)
    shapes["tok_embeddings.weight"] = (codes, sizes.width)
    shapes["abs_pe"] = (1, 1 + prod(grid), sizes.width)
    shapes["cls_embedding.embedding_table.weight"] = (classes + 1, sizes.width)
    for scale, matrix in CLIP_NAMES.values():
        shapes[f"{scale}.weight"] = (sizes.width,)
        shapes[f"{matrix}.weight"] = (codes, sizes.width)
    weights = official.drawn(shapes)
    options = {**options_of(sizes), "latent_shape": list(grid)}
    options |= {"attn_num_down": down, "attn_num_back": back}
    network = imported("nar", weights, options, tmp_path)
    depths = {"x": depth, "y": depth + down, "t": depth + down + back}
    labels, table = (
        torch.randint(classes, (BATCH,)),
        weights["cls_embedding.embedding_table.weight"],
    )
    one = torch.ones(BATCH, 1, dtype=torch.bool)
    network_of = partial(official.nar, weights, sizes, depths, CLIP_NAMES, grid)
    predict = partial(network_of, table[labels][:, None], one)
    absently = partial(network_of, table[-1:].expand(BATCH, -1)[:, None], one)
    tokens = torch.randint(codes, (BATCH, prod(grid)))
    check(network, labels, tokens, predict, absently, random.choice((1.0, 1.5)))


@pytest.mark.parametrize("seed", SEEDS)
def test_ibq(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    sizes, depth, side = drawn_sizes(random), random.randint(1, 3), random.randint(1, 4)
    codes, classes = random.randint(7, 40), random.randint(1, 6)
    channels = random.choice((None, 5, 12))
    width = sizes.width
    shapes = official.block_shapes("blocks", depth, sizes)
    affine = {f"blocks.{i}.ada_lin.1": (6 * width, width) for i in range(depth)}
    affine |= {"head_nm.ada_lin.1": (2 * width, width)}
    if channels:
        affine["embedding_projection.fc1"] = (width, channels)
        affine["embedding_projection.fc2"] = (width, width)
    for name, (outputs, inputs) in affine.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    shapes["tok_emb.weight"] = (codes, channels or width)
    null_row = random.random() < 0.7
    shapes["class_emb.embedding_table.weight"] = (classes + null_row, width)
    shapes["head_nm.rmsnorm.weight"] = (width,)
    shapes["head.weight"] = (codes, width)
    weights = official.drawn(shapes)
    options = {"n_head": sizes.heads, "norm_eps": sizes.eps, "rope_base": sizes.base}
    options |= {"block_size": side**2, "class_num": classes}
    carried = {f"transformer.{key}": tensor for key, tensor in weights.items()}
    network = imported("ibq", carried, options, tmp_path)
    labels = torch.randint(classes, (BATCH,))
    network_of = partial(official.ibq, weights, sizes, depth)
    null = partial(network_of, torch.full_like(labels, classes))
    tokens = torch.randint(codes, (BATCH, side**2))
    scale = random.choice((1.0, 2.25)) if null_row else 1.0
    check(network, labels, tokens, partial(network_of, labels), null, scale)


@pytest.mark.parametrize("seed", SEEDS)
def test_open_magvit2(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    sizes, depths = drawn_sizes(random), (random.randint(1, 3), random.randint(1, 2))
    side, classes, bits = (
        random.randint(1, 4),
        random.randint(1, 6),
        random.choice(((2, 4), (3, 2))),
    )
    shapes = official.block_shapes("spatial_blocks", depths[0], sizes)
    shapes |= official.block_shapes("factorized_blocks", depths[1], sizes)
    for i, name in enumerate(("pre_emb", "post_emb")):
        shapes[f"{name}.weight"] = (2 ** bits[i], sizes.width)
        shapes[f"head.{i}.weight"] = (2 ** bits[i], sizes.width)
    shapes["class_emb.embedding_table.weight"] = (classes + seed % 2, sizes.width)
    shapes["norm.weight"] = (sizes.width,)
    weights = official.drawn(shapes)
    options = {"n_head": sizes.heads, "norm_eps": sizes.eps, "rope_base": sizes.base}
    options |= {"block_size": side**2, "factorized_bits": list(bits)}
    options |= {"class_num": classes}
    carried = {f"transformer.{key}": tensor for key, tensor in weights.items()}
    network = imported("open-magvit2", carried, options, tmp_path)
    labels = torch.randint(classes, (BATCH,))
    pre, post = (torch.randint(2**b, (BATCH, side**2)) for b in bits)
    plan = plan_for(network.config.units[0], network.config.grid)
    codes = join((pre, post), bits)
    assert all(map(torch.equal, split(codes, bits), (pre, post)))
    with torch.no_grad():
        said = network(labels, codes, plan)
    expected = official.magvit2(weights, sizes, depths, labels, pre, post)
    for ours, theirs in zip(said, expected):
        torch.testing.assert_close(ours, theirs, **CLOSE)
