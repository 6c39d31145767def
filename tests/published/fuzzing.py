"""Random official configurations, imported as a user would, and drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch
from official_gpt import Sizes
from torch import Tensor

from mmgen.components import load_component
from mmgen.models.units import plan_for
from mmgen.published.importing import import_files
from mmgen.sample.draw import DrawSettings
from mmgen.sample.engine import DecodeSettings, decode
from mmgen.sample.guidance import Guidance

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def drawn_sizes(random: Random, head: int = 4) -> Sizes:
    """Sizes of blocks whose heads are a multiple of `head`."""
    heads = random.randint(1, 6)
    return Sizes(
        width=heads * head * random.choice((1, 2, 3, 5)),
        heads=heads,
        kv=random.choice([kv for kv in range(1, heads + 1) if heads % kv == 0]),
        hidden=random.randint(3, 40),
        eps=random.choice((1e-3, 1e-5, 1e-6)),
        base=random.choice((100.0, 10000.0)),
    )


def imported(
    system: str, tensors: Mapping[str, Tensor], options: Mapping[str, Any], folder: Path
) -> Any:
    """The transformer that `mmgen import` makes of an official file, in evaluation mode."""
    torch.save({"model": dict(tensors)}, folder / "official.pt")
    import_files(system, [folder / "official.pt"], options, folder / "pipeline")
    return load_component(folder / "pipeline" / "transformer").eval()


def drawn(
    network: Any, condition: Any, scale: float, given: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw greedily: codes (B, N), and guided logits (B, n, V) of the drawn ones, by site."""
    config = network.config
    plan = plan_for(config.units[0], config.grid)
    with torch.inference_mode():
        prefix = network.prefix(condition, guided=scale != 1.0)
    seeds = torch.zeros(len(prefix.rows.x) // (1 + prefix.guided), dtype=torch.long)
    settings = DecodeSettings(DrawSettings(temperature=0.0), Guidance(scale))
    steps = list(decode(network, prefix, plan, "", seeds, settings, given=given))
    logits = torch.cat([step.logits for step in steps if step.logits is not None], 1)
    if given is None:
        logits = logits[:, torch.argsort(plan.schedule.site)]
    return steps[-1].codes.flatten(1), logits.clone()


def told(network: Any, condition: Any, codes: Tensor) -> Tensor:
    """Logits (B, N, V) by site that training sees, for codes (B, N) by site."""
    plan = plan_for(network.config.units[0], network.config.grid)
    site = plan.schedule.site
    with torch.no_grad():
        logits: Tensor = network(condition, codes[:, site], plan)
    return logits[:, torch.argsort(site)]
