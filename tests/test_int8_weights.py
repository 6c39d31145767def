"""What integers cost in quality, on the weights that mmgen ships: errors of logits, honestly."""

from __future__ import annotations

import torch
from torch import Tensor

from mmgen.kernels.int8 import store_as_int8
from mmgen.models.heads import resolve_prefix
from mmgen.models.rows import concatenate
from mmgen.models.schedule import to_slots
from mmgen.models.unified import UnifiedModel
from mmgen.models.units import plan_for
from mmgen.pipeline import Pipeline

PROMPTS = ["a red apple", "a smiling cat", "a house with a garden, in the style of noto"]


def logits_of(model: UnifiedModel, unit: str, ids: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
    """(B, N, K) of every token of finished pictures."""
    plan = plan_for(model.config.unit(unit), model.config.grid)
    slots = to_slots(plan.schedule, codes)
    cursor, tables = model.begin(len(ids)), model.tables()
    text = model.text_rows(ids, valid, cursor)
    marker = model.marker_rows(unit, cursor)
    image = model.image_rows(plan, torch.arange(plan.rows), slots, unit, cursor, tables)
    hidden = model.run(concatenate([text, marker, image]))
    reads = resolve_prefix(plan.reads, len(text) + 1)
    return model.logits(model.queries(hidden, plan.heads, reads), tables)


@torch.inference_mode()
def test_the_shipped_weights_as_integers_tell_nearly_the_same() -> None:
    pipe = Pipeline.from_pretrained()
    model = pipe.two_way()[1]
    codes = pipe(PROMPTS, seed=0, output_type="codes").codes
    ids, valid = pipe.two_way()[0].encode(PROMPTS, model.config.max_text)
    told = {}
    for way in ("float", "int8"):
        if way == "int8":
            store_as_int8(model)
        told[way] = logits_of(model, "neighbor", ids, valid, codes)
    one, two = (each - each.mean(-1, keepdim=True) for each in told.values())
    error = float((two - one).norm() / one.norm())
    p, q = (each.log_softmax(-1) for each in told.values())
    divergence = float((p.exp() * (p - q)).sum(-1).mean())  # nats a token
    # Another code comes first only where two are nearly as likely, which depends on the weights.
    chosen = p.gather(-1, two.argmax(-1, keepdim=True)).squeeze(-1)
    regret = float((p.amax(-1) - chosen).max())  # nats
    same = float((one.argmax(-1) == two.argmax(-1)).float().mean())
    print(
        f"relative error {error:.4f}, divergence {divergence:.2e} nats, same first {same:.3f}, "
        f"regret {regret:.3f} nats"
    )
    assert error < 0.02 and divergence < 1e-3 and same > 0.95 and regret < 0.2
