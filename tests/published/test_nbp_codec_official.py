"""Random small official video tokenizers of NBP: imported, codes and pixels are the same."""

from __future__ import annotations

from math import prod
from pathlib import Path
from random import Random

import official_conv as keys
import pytest
import torch
from official_nbp import nbp_tokenizer
from official_nbp_codec import Codec
from torch import Tensor

from mmgen.components import load_component
from mmgen.published.importing import import_files
from mmgen.tokenizers_vis.protocol import Codes


@pytest.mark.parametrize("seed", range(10))
def test_codes_and_pixels(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    groups, units = random.randint(1, 3), random.randint(1, 2)
    widths = tuple(groups * random.randint(1, 4) for _ in range(3))
    levels = random.choice(((5, 5), (8, 5, 3), (4, 7, 5, 2), (7,)))
    latent = random.choice((len(levels), len(levels) + 2))
    eps = random.choice((1e-3, 1e-5))
    shapes = nbp_tokenizer(widths, units, latent)
    if latent != len(levels):
        shapes |= keys.conv("quantizers.project_in", latent, len(levels))
        shapes |= keys.conv("quantizers.project_out", len(levels), latent)
    weights = {key: _drawn(key, shape) for key, shape in shapes.items()}
    torch.save(
        {"model_state_dict": {f"module.{k}": t for k, t in weights.items()}}, tmp_path / "a.pt"
    )
    options = {"fsq_levels": list(levels), "group_norm_groups": groups, "group_norm_eps": eps}
    options |= {"embed_dim": latent, "channels": list(widths), "codebook_size": prod(levels)}
    import_files("nbp", [tmp_path / "a.pt"], options, tmp_path / "out")
    network = load_component(tmp_path / "out" / "vision").eval()
    official = Codec(weights, units, levels, groups, eps)

    height, width = 8 * random.randint(1, 2), 8 * random.randint(1, 2)
    pixels = torch.rand(2, 3, random.choice((1, 4, 5, 9)), height, width)
    with torch.no_grad():
        bounded = official.bounded(pixels)
        ours = network.encode(pixels * 2 - 1).indices
        clear = ((bounded - bounded.round()).abs() < 0.499).all(-1)  # far from rounding otherwise
        assert clear.float().mean() > 0.9
        assert torch.equal(ours[clear], official.index(bounded)[clear])
        index = torch.randint(prod(levels), ours.shape)
        decoded = (network.decode(Codes(index)) + 1) / 2
        torch.testing.assert_close(decoded, official.decode(index), atol=1e-4, rtol=1e-4)


def _drawn(key: str, shape: tuple[int, ...]) -> Tensor:
    """Weights that keep the size of what they are fed; norms and slopes near 1."""
    if key.endswith(".beta") or (len(shape) == 1 and key.endswith("weight")):
        return 1 + 0.2 * torch.randn(shape)
    return torch.randn(shape) * (prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2)
