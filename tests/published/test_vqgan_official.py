"""Random small official tokenizers of LlamaGen and Emu3, imported: the same codes and pixels."""

from __future__ import annotations

from math import prod
from pathlib import Path
from random import Random
from typing import Any

import official_conv as keys
import official_vqgan as official
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmgen.components import load_component
from mmgen.published.importing import import_files
from mmgen.tokenizers_vis.protocol import Codes

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def imported(system: str, tensors: dict[str, Tensor], options: dict[str, Any], at: Path) -> Any:
    torch.save({"model": tensors}, at / "a.pt")
    import_files(system, [at / "a.pt"], options, at / "out")
    return load_component(at / "out" / "vision").eval()


def drawn(shapes: keys.Shapes) -> dict[str, Tensor]:
    """Weights that keep the size of what they are fed; norms near 1, a table of unlike codes."""
    return {key: _one(key, shape) for key, shape in shapes.items()}


def _one(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return 0.8 + 0.4 * torch.rand(shape)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if len(shape) < 2:
        return 0.2 * torch.randn(shape)
    return torch.randn(shape) * (1.0 if key.startswith("quantize") else prod(shape[1:]) ** -0.5)


@pytest.mark.parametrize("seed", range(6))
def test_llamagen(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    levels, blocks = random.randint(1, 3), random.randint(1, 2)
    mult, back = ([random.randint(1, 2) for _ in range(levels)] for _ in range(2))
    z, codes, embed = random.randint(3, 12), random.randint(7, 40), random.randint(2, 6)
    last = (levels - 1,)
    shapes = keys.encoder(32, mult, blocks, last, z) | keys.decoder(32, back, blocks, last, z)
    shapes |= keys.conv("quant_conv", z, embed, 1, 1) | keys.conv("post_quant_conv", embed, z, 1, 1)
    weights = drawn(shapes | {"quantize.embedding.weight": (codes, embed)})
    normed = random.random() < 0.7
    carried = {keys.llamagen_name(key, levels): tensor for key, tensor in weights.items()}
    carried["quantize.codebook_used"] = torch.zeros(65536)
    options = {"encoder_ch_mult": mult, "decoder_ch_mult": back, "codebook_l2_norm": normed}
    network = imported("llamagen", carried, options, tmp_path)

    table = weights["quantize.embedding.weight"]
    table = F.normalize(table, dim=-1) if normed else table
    side = 2 ** (levels - 1)
    x = torch.rand(2, 3, side * random.randint(1, 3), side * random.randint(1, 3)) * 2 - 1
    with torch.no_grad():
        vectors = official.encode(weights, x)
        vectors = F.conv2d(vectors, *(weights[f"quant_conv.{leaf}"] for leaf in ("weight", "bias")))
        vectors = vectors.movedim(1, -1)
        index, margin = official.nearest(F.normalize(vectors, dim=-1) if normed else vectors, table)
        ours = network.encode(x).indices[:, 0]
        assert torch.equal(ours[margin > 1e-3], index[margin > 1e-3])
        index = torch.randint(codes, index.shape)
        z_q = table[index].movedim(-1, 1)
        z_q = F.conv2d(z_q, *(weights[f"post_quant_conv.{leaf}"] for leaf in ("weight", "bias")))
        expected = official.decode(weights, z_q)
        torch.testing.assert_close(network.decode(Codes(index[:, None])), expected, **CLOSE)


@pytest.mark.parametrize("seed", range(6))
def test_emu3(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    levels, blocks, halvings = random.randint(1, 3), random.randint(1, 2), random.randint(1, 2)
    mult = [random.randint(1, 2) for _ in range(levels)]
    attended = [i for i in range(levels) if random.random() < 0.5]
    z, codes = random.randint(3, 6), random.randint(7, 40)
    weights = drawn(keys.emu3(32, mult, blocks, attended, z, codes, halvings))
    options = {"ch": 32, "ch_mult": mult, "num_res_blocks": blocks, "attn_resolutions": attended}
    options |= {"temporal_downsample_factor": 2**halvings, "z_channels": z, "codebook_size": codes}
    network = imported("emu3", weights, options, tmp_path)
    side = 2 ** (levels - 1)
    clip = torch.rand(2, 3, 2**halvings * random.randint(1, 2), 2 * side, 3 * side) * 2 - 1
    with torch.no_grad():
        index, margin = official.nearest(
            official.emu3_encode(weights, clip), weights["quantize.embedding.weight"]
        )
        ours = network.encode(clip).indices
        assert torch.equal(ours[margin > 1e-3], index[margin > 1e-3])
        index = torch.randint(codes, index.shape)
        expected = official.emu3_decode(weights, index)
        torch.testing.assert_close(network.decode_clip(Codes(index)), expected, **CLOSE)
        still = clip[:, :, 0]
        index, margin = official.nearest(
            official.emu3_encode(weights, still[:, :, None].repeat_interleave(2**halvings, 2)),
            weights["quantize.embedding.weight"],
        )
        ours = network.encode(still).indices
        assert torch.equal(ours[margin > 1e-3], index[margin > 1e-3])
