"""NBP: its video tokenizer, and its transformers with the hybrid start or with given frames.

Official ids are ours turned by the number of ids before the first code (`shift_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from case import Case
from torch import Tensor

from mmgen.models.plan import NONE, Plan
from mmgen.models.rows import concatenate, row_mask
from mmgen.models.units import plan_for
from mmgen.published.nbp import shift_of
from mmgen.sample.deciding import CategoricalDecider, Decided, Turn
from mmgen.sample.draw import DrawSettings, filter_logits
from mmgen.sample.engine import DecodeSettings, Step, decode
from mmgen.sample.guidance import Guidance
from mmgen.tokenizers_vis.protocol import Codes, Quantized

GREEDY = DrawSettings(temperature=0.0)

# ---- the video tokenizer -----------------------------------------------------------------------


def _forward(case: Case, name: str) -> tuple[Tensor, Quantized]:
    reconstruction, quantized = case.network(case.inputs[name] * 2 - 1)
    return (reconstruction + 1) / 2, quantized


def _latents(case: Case, name: str) -> Tensor:
    return case.network.features(case.inputs[name] * 2 - 1).movedim(-1, 1)


def _indices(case: Case, name: str) -> Tensor:
    return case.network.encode(case.inputs[name] * 2 - 1).indices


def _perturbed(case: Case) -> Tensor:
    clip = case.inputs["video"].clone()
    start = case.settings["perturbed_from_frame"]
    clip[:, :, start:] = 1 - clip[:, :, start:]
    return case.network.encode(clip * 2 - 1).indices


def _loss(case: Case) -> Tensor:
    return F.mse_loss(_forward(case, "video")[0], case.inputs["video"])


def _gradient(case: Case, name: str) -> Tensor:
    parameter = case.network.get_parameter(name)
    return torch.autograd.grad(_loss(case), parameter)[0]


TOKENIZER: dict[str, Callable[[Case], Tensor]] = {
    "latents": partial(_latents, name="video"),
    "quantized": lambda case: _forward(case, "video")[1].quantized.movedim(-1, 1),
    "indices": partial(_indices, name="video"),
    "decoded": lambda case: _forward(case, "video")[0],
    "image_latents": partial(_latents, name="image"),
    "image_indices": partial(_indices, name="image"),
    "image_decoded": lambda case: _forward(case, "image")[0],
    "perturbed_indices": _perturbed,
    "given_codes": lambda case: case.network.embed(case.inputs["given_indices"]).movedim(-1, 1),
    "given_decoded": lambda case: (
        (case.network.decode(Codes(case.inputs["given_indices"])) + 1) / 2
    ),
    "mse_loss": _loss,
    "grad_encoder_conv_in": partial(_gradient, name="encoder.conv_in.conv.weight"),
    "grad_encoder_conv_in_beta1": partial(_gradient, name="encoder.levels.0.blocks.0.act1.beta"),
}

# ---- the transformer ---------------------------------------------------------------------------


def _plan(case: Case) -> Plan:
    grid = case.settings["latent_grid"]
    return plan_for(case.network.config.units[0], (grid[0], grid[1], grid[2]))


def _condition(case: Case) -> Tensor:
    codes = case.inputs["video_codes"]
    return case.inputs.get("condition", codes[:, :0])


def _official(case: Case, logits: Tensor) -> Tensor:
    return logits.roll(shift_of(case.network.config), -1)


def _official_ids(case: Case, ids: Tensor) -> Tensor:
    config = case.network.config
    return (ids + shift_of(config)) % (config.codebook_size + config.condition.extra_ids)


def _training(case: Case, *, dropped: bool = False) -> tuple[Tensor, Tensor]:
    """Logits and loss."""
    condition, codes, plan = _condition(case), case.inputs["video_codes"], _plan(case)
    if dropped:
        condition = case.network.condition.null(condition)
    predicted = (plan.reads != NONE).any(0)
    logits = case.network(condition, codes, plan)[:, predicted]
    return _official(case, logits), case.network.loss(condition, codes, plan)


def _targets(case: Case) -> Tensor:
    predicted = (_plan(case).reads != NONE).any(0)
    return _official_ids(case, case.inputs["video_codes"][:, predicted])


def _mask(case: Case) -> Tensor:
    """The official input ends with the last row that predicts something, ours goes on."""
    condition, codes, plan = _condition(case), case.inputs["video_codes"], _plan(case)
    mask = row_mask(case.network.sequence(condition, codes, plan))
    assert mask is not None
    words = 1 if condition.ndim == 1 else condition.shape[1]
    size = words + int((plan.reads != NONE).any(0).sum())
    return mask[:, :size, :size].long().expand(len(condition) if words else 1, -1, -1)


@dataclass
class Trace:
    """A decoding: what the steps yielded, and the logits of both branches at each."""

    steps: list[Step] = field(default_factory=list)
    branches: list[Tensor] = field(default_factory=list)

    @property
    def logits(self) -> Tensor:
        """(B, N, K), guided."""
        return torch.cat([step.logits for step in self.steps if step.logits is not None], 1)

    @property
    def codes(self) -> Tensor:
        """(B, N) in slot order, which is raster order here."""
        return self.steps[-1].codes.flatten(1)


class Tracing(CategoricalDecider):
    """Notes the logits of both branches before they are guided."""

    trace: Trace

    def decide(self, turn: Turn) -> Iterator[Decided]:
        said = turn.feed()
        self.trace.branches.append(self.model.logits(said, turn.tables))
        return super().decide(replace(turn, feed_rows=lambda *_: said))


def _run(case: Case, guidance: Guidance, given: Tensor | None = None) -> Trace:
    network, plan, condition = case.network, _plan(case), _condition(case)
    seeds = torch.zeros(len(condition), dtype=torch.long)
    decider, trace = Tracing(network, seeds, GREEDY), Trace()
    object.__setattr__(decider, "trace", trace)
    prefix = network.prefix(condition, guided=guidance.enabled)
    settings = DecodeSettings(GREEDY, guidance)
    steps = decode(network, prefix, plan, "", seeds, settings, decider=decider, given=given)
    trace.steps += steps
    assert len(trace.steps) == case.settings["steps"]
    return trace


def _unguided(case: Case) -> Trace:
    return _run(case, Guidance())


def _guided(case: Case, number: int) -> Trace:
    settings = case.settings["cfg"][number]
    ratio = settings["cfg_ratio"]
    if settings["scale_cfg"]:  # grows by the ratio at every step
        return _run(case, Guidance(1 + ratio * (case.settings["steps"] - 1), ramp="linear"))
    return _run(case, Guidance(1 + ratio))


def _continued(case: Case) -> Trace:
    return _run(case, Guidance(), given=_prefix(case))


def _prefix(case: Case) -> Tensor:
    _, height, width = case.settings["latent_grid"]
    return case.inputs["video_codes"][:, : case.settings["prefix_latent_frames"] * height * width]


def _prefill(case: Case) -> Tensor:
    """What the head says at every place of the prefix, though most of it is given."""
    network, plan = case.network, _plan(case)
    given = _prefix(case)
    prefix = network.prefix(_condition(case))
    rows = network.image_rows(plan, torch.arange(given.shape[1]), given, "", prefix.cursor)
    hidden = network.run(concatenate([prefix.rows, rows]))
    everywhere = torch.arange(given.shape[1])[None]
    return _official(case, network.logits(network.queries(hidden, plan.heads, everywhere)))


def _codes(case: Case) -> Tensor:
    return case.network.codes_of(case.once(_unguided).codes)


def _filtered(case: Case, top_k: int) -> Tensor:
    top_p = case.settings["filter"]["top_p"]
    return filter_logits(case.inputs["filter_in"], top_k, top_p).softmax(-1)


def _training_outputs(suffix: str = "", dropped: bool = False) -> dict[str, Any]:
    def compute(case: Case) -> tuple[Tensor, Tensor]:
        return _training(case, dropped=dropped)

    return {
        f"train_logits{suffix}": lambda case: case.once(compute)[0],
        f"train_loss{suffix}": lambda case: case.once(compute)[1],
    }


def _guided_outputs(number: int) -> dict[str, Any]:
    run = partial(_guided, number=number)

    def branch(case: Case, half: int) -> Tensor:
        return _official(case, torch.cat(case.once(run).branches, 1).chunk(2)[half])

    return {
        f"cfg{number}_cond_logits": partial(branch, half=0),
        f"cfg{number}_uncond_logits": partial(branch, half=1),
        f"cfg{number}_guided_logits": lambda case: _official(case, case.once(run).logits),
        f"cfg{number}_greedy_tokens": lambda case: _official_ids(case, case.once(run).codes),
    }


def _hybrid(case: Case) -> dict[str, Callable[[Case], Tensor]]:
    compare = {
        **_training_outputs(),
        **_training_outputs("_uncond", dropped=True),
        "train_targets": _targets,
        "attention_mask": _mask,
        "step_logits": lambda case: _official(case, case.once(_unguided).logits),
        "greedy_tokens": lambda case: _official_ids(case, case.once(_unguided).codes),
        "greedy_codes": _codes,
    }
    for number in range(len(case.settings.get("cfg") or [])):
        compare |= _guided_outputs(number)
    if case.settings.get("filter"):
        compare["filter_probs"] = lambda case: _filtered(case, case.settings["filter"]["top_k"])
        compare["filter_probs_p_only"] = lambda case: _filtered(case, 0)
    return compare


FRAMES: dict[str, Callable[[Case], Tensor]] = {
    **_training_outputs(),
    "train_targets": _targets,
    "attention_mask": _mask,
    "prefill_logits": _prefill,
    "step_logits": lambda case: _official(case, case.once(_continued).logits),
    "greedy_tokens": lambda case: case.once(_continued).codes[:, _prefix(case).shape[1] :],
    "greedy_video_codes": lambda case: case.once(_continued).codes,
}

COMPARE = {
    ("nbp", "video-tokenizer"): TOKENIZER,
    ("nbp", "class/text-to-video (hybrid start)"): _hybrid,
    ("nbp", "video frame prediction (prefix frames)"): FRAMES,
}
