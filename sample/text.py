"""Text from a prefix, token by token: captions of pictures, answers to questions.

Shapes: B sequences, V ids of the text tokenizer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmgen.models.rows import Cursor, Rows, concatenate
from mmgen.models.text import BOS, EOS, PAD, UNK
from mmgen.models.unified import UnifiedModel
from mmgen.noise import Purpose
from mmgen.sample.draw import DrawSettings, draw


@torch.inference_mode()
def decode_text(
    model: UnifiedModel,
    rows: Rows,
    cursor: Cursor,
    seeds: Tensor,
    settings: DrawSettings,
    max_length: int,
) -> Tensor:
    """Write texts behind a prefix until every one has ended.

    Args:
        model: in evaluation mode.
        rows: what stands before, such as `model.seen_image_rows(...)`.
        cursor: where the text begins.
        seeds: (B,) int64.
        settings: temperature and filters.
        max_length: most ids of a text.

    Returns:
        ids (B, at most max_length) long, `<pad>` behind the first `<eos>`.
    """
    batch = len(seeds)
    cache = model.backbone.new_cache(batch, len(rows) + max_length + 1)
    ids = torch.full((batch, 1), BOS, device=rows.x.device)
    feed = concatenate([rows, model.text_rows(ids, torch.ones_like(ids).bool(), cursor)])
    written: list[Tensor] = []
    ended = torch.zeros(batch, dtype=torch.bool, device=ids.device)
    for position in range(max_length):
        logits = model.text_logits(model.run(feed, cache)[:, -1:])  # (B, 1, V)
        logits[..., [PAD, BOS, UNK]] = float("-inf")
        place = torch.tensor([position])
        ids = draw(logits, seeds, place, settings, purpose=Purpose.TEXT)
        ids = ids.masked_fill(ended[:, None], PAD)
        written.append(ids)
        ended |= ids[:, 0] == EOS
        if bool(ended.all()):
            break
        feed = model.text_rows(ids, torch.ones_like(ids).bool(), cursor)
    return torch.cat(written, dim=1)
