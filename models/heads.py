"""What turns hidden states into tokens, and tokens into rows: codebook-aware embeddings and heads.

Codes share their representation: the embedding that enters the network and the vector that a
logit is measured against are both computed from the code's own vector in the visual tokenizer
(ETT's idea, arXiv 2505.10562), plus a free part for each code. Codes that look alike then learn
together. A head is a direction (`x`, `y`, `t` for the neighbour that is predicted, `self` for a
query's own place); where several directions speak about one slot, their logits are averaged, and
because logits are affine in the head's output, the average is taken before the codebook product.

Shapes: B batch, R rows, S slots, W width, K codes, C channels of a code's vector, E of a logit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgen.kernels.linear import Linear, linear
from mmgen.models.backbone import BackboneConfig, make_norm
from mmgen.models.plan import NONE, PREFIX


class CodeTable(nn.Module):
    """One vector for each code: an MLP of the code's own vector plus a free part.

    Args:
        vectors: (K, C) embeddings of the visual tokenizer's codes, kept with the weights.
        width: channels of the result.
        scale: standard deviation at the start.
    """

    def __init__(self, codes: int, channels: int, width: int, scale: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width))
        self.free = nn.Embedding(codes, width)
        nn.init.normal_(self.free.weight, std=0.1 * scale)
        self.scale = scale

    def forward(self, vectors: Tensor) -> Tensor:
        """(K, C) to (K, width)."""
        shared = F.rms_norm(self.mlp(vectors), (self.free.embedding_dim,))
        return self.scale * shared + self.free.weight


class ProjectedCodes(nn.Module):
    """Codes enter as the vectors of the visual tokenizer's codebook, through an MLP (IBQ, ETT).

    Args:
        codes: K.
        channels: C of the codebook.
        width: W.
    """

    def __init__(self, codes: int, channels: int, width: int) -> None:
        super().__init__()
        self.codebook = nn.Embedding(codes, channels)
        self.inner = nn.Linear(channels, width)
        self.out = nn.Linear(width, width)

    def forward(self, codes: Tensor) -> Tensor:
        """(...) long to (..., W)."""
        hidden = F.gelu(self.inner(self.codebook(codes)), approximate="tanh")
        out: Tensor = self.out(hidden)
        return out


class CategoricalHead(nn.Module):
    """Logits over the visual codes from the rows that predict each slot.

    Args:
        backbone: for the width and the norm.
        directions: names of the heads, as in a plan.
        codes: K.
        channels: C.
        width: E.
    """

    def __init__(
        self,
        backbone: BackboneConfig,
        directions: tuple[str, ...],
        codes: int,
        channels: int,
        width: int,
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: make_norm(backbone) for name in directions})
        self.outs = nn.ModuleDict({name: Linear(backbone.width, width) for name in directions})
        self.table = CodeTable(codes, channels, width, scale=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(codes))

    def queries(self, hidden: Tensor, heads: tuple[str, ...], reads: Tensor) -> Tensor:
        """Average what the rows named by `reads` say about each slot.

        Args:
            hidden: (B, R, W) of the rows that were fed.
            heads: names, one for each line of `reads`.
            reads: (heads, S) index of a row, `PREFIX` already replaced, or `NONE`.

        Returns:
            (B, S, E), to be turned into logits.
        """
        total = hidden.new_zeros(hidden.shape[0], reads.shape[1], self.bias_width)
        for name, rows in zip(heads, reads):
            slots = (rows != NONE).nonzero().squeeze(1)
            if len(slots):
                spoken = self.outs[name](self.norms[name](hidden[:, rows[slots]]))
                total = total.index_add(1, slots, spoken.to(total.dtype))
        speakers = (reads != NONE).sum(0).clamp(min=1)
        return total / speakers[:, None]

    @property
    def bias_width(self) -> int:
        """E."""
        return self.table.free.embedding_dim

    def logits(self, queries: Tensor, table: Tensor) -> Tensor:
        """(B, S, E) to (B, S, K) float32, given the table (K, E) of all codes."""
        return linear(queries, table, self.bias).float()


def resolve_prefix(reads: Tensor, first_row: int) -> Tensor:
    """Rows of a plan to rows of a sequence whose plan begins at `first_row`.

    Args:
        reads: (heads, S) rows of the plan, `PREFIX` or `NONE`.
        first_row: where row 0 of the plan stands; the prefix's last row is the one before.
    """
    shifted = torch.where(reads >= 0, reads + first_row, reads)
    return torch.where(reads == PREFIX, first_row - 1, shifted)


class MatrixHead(nn.Module):
    """Logits from one norm and one matrix for each direction, as LlamaGen and NAR have them.

    What a head says stays a hidden state until the end, so that averaging and guidance cost a
    vector of width W and not K logits.

    Args:
        backbone: for the width and the norm.
        directions: names of the heads, as in a plan.
        codes: K.
        normed: with a norm; False where the hidden states have been through one already.
    """

    def __init__(
        self,
        backbone: BackboneConfig,
        directions: tuple[str, ...],
        codes: int,
        *,
        normed: bool = True,
    ) -> None:
        super().__init__()
        self.directions = directions
        norms = {name: make_norm(backbone) if normed else nn.Identity() for name in directions}
        self.norms = nn.ModuleDict(norms)
        outs = {name: Linear(backbone.width, codes, bias=False) for name in directions}
        for out in outs.values():
            nn.init.normal_(out.weight, std=0.02)
        self.outs = nn.ModuleDict(outs)

    def queries(self, states: dict[str, Tensor], heads: tuple[str, ...], reads: Tensor) -> Tensor:
        """What each direction says about each slot, divided by the number of those that speak.

        Args:
            states: (B, R, W) of the rows that were fed, for each direction.
            heads: names, one for each line of `reads`.
            reads: (heads, S) index of a row, `PREFIX` already replaced, or `NONE`.

        Returns:
            (B, S, directions, W), zero where a direction is silent.
        """
        speaks = (reads != NONE).to(next(iter(states.values())).dtype)
        share = speaks / speaks.sum(0).clamp(min=1)  # (heads, S)
        said = {
            name: self.norms[name](states[name][:, rows.clamp(min=0)]) * weight[:, None]
            for name, rows, weight in zip(heads, reads, share)
        }
        silent = torch.zeros_like(next(iter(said.values())))
        return torch.stack([said.get(name, silent) for name in self.directions], dim=2)

    def logits(self, queries: Tensor) -> Tensor:
        """(B, S, directions, W) to (B, S, K) float32."""
        queries = queries.to(next(self.parameters()).dtype)  # guidance returns float32
        logits: Tensor = self.outs[self.directions[0]](queries[:, :, 0]).float()
        for i, name in enumerate(self.directions[1:], start=1):
            logits += self.outs[name](queries[:, :, i]).float()
        return logits
