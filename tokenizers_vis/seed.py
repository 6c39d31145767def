"""SEED: a picture to 32 codes, ordered from left to right, and codes to what diffusion models take.

    pixels -> EVA tower -> norm -> causal Q-Former -> MLP -> nearest code        (encode)
    code vectors -> MLP -> transformer blocks -> head -> embedding               (to_embedding)

v1 (arXiv 2307.08041) ends in 77 vectors that stand for the text features of Stable Diffusion 1,
v2 (arXiv 2310.01218) in one image embedding of unCLIP. `mmgen.tokenizers_vis.diffusion` draws the
picture.

Shapes: B pictures, N = 32 tokens, V tower width, W = 768 width, C = 32 channels of a code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmgen.errors import ConfigError, UserError
from mmgen.saving import Saved
from mmgen.tokenizers_vis.eva import EvaConfig, build_eva
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.qformer import QFormer, QFormerConfig
from mmgen.tokenizers_vis.quantizers import VQ, VQConfig
from mmgen.tokenizers_vis.vit import transformer_blocks

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# The published quantizer puts 0.25 on the codebook's term, where the papers put it on the other.
QUANTIZER = VQConfig(codebook_size=8192, channels=32, codebook_weight=0.25, commitment_weight=1.0)


@dataclass(frozen=True)
class MLPHeadConfig:
    """Every token to a few numbers, all of them to one embedding (published v2).

    Args:
        widths: of the layers without bias that each token passes.
        out: channels of the embedding.
    """

    kind: Literal["mlp"] = "mlp"
    widths: tuple[int, ...] = (256, 128, 32)
    out: int = 1024


@dataclass(frozen=True)
class QueryHeadConfig:
    """Learned queries that read the tokens (v1: 77; v2's training code: one).

    Args:
        qformer: its width and memory width are the tokenizer's W.
        queries: how many vectors come out.
        out: channels of each.
    """

    kind: Literal["queries"] = "queries"
    qformer: QFormerConfig = field(default_factory=partial(QFormerConfig, 768, 4, memory_width=768))
    queries: int = 77
    out: int = 768


@dataclass(frozen=True)
class SeedConfig:
    """Sizes of a `SeedTokenizer`; the defaults are the published v2.

    Args:
        qformer: the causal Q-Former; its memory width is V.
        head: how tokens become an embedding.
        quantizer: kind and size of the bottleneck.
        vision: the image tower (None: tokens of a tower are given, pixels cannot be encoded).
        tokens: N, codes of a picture.
        decoder_depth: transformer blocks between codes and head.
        decoder_heads: their attention heads.
        reconstructs: also has the branch that predicts the Q-Former's output, a loss of training.
    """

    qformer: QFormerConfig = field(default_factory=partial(QFormerConfig, causal=True))
    head: MLPHeadConfig | QueryHeadConfig = field(default_factory=MLPHeadConfig)
    quantizer: VQConfig = QUANTIZER
    vision: EvaConfig | None = field(default_factory=EvaConfig)
    tokens: int = 32
    decoder_depth: int = 4
    decoder_heads: int = 12
    reconstructs: bool = True

    def __post_init__(self) -> None:
        """Refuse pieces that do not fit."""
        width, memory = self.qformer.width, self.qformer.memory_width
        if self.vision and self.vision.width != memory:
            raise ConfigError(
                f"SEED's tower has {self.vision.width} channels, its Q-Former reads {memory}."
            )
        if width % self.decoder_heads:
            raise ConfigError(f"SEED's decoder_heads {self.decoder_heads} do not divide {width}.")
        if isinstance(self.head, QueryHeadConfig):
            inner = self.head.qformer
            if (inner.width, inner.memory_width) != (width, width):
                raise ConfigError(f"The head's Q-Former must be {width} wide, and its memory too.")

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """Of one picture's embedding: (out,), or (queries, out) for several vectors."""
        if isinstance(self.head, QueryHeadConfig) and self.head.queries > 1:
            return self.head.queries, self.head.out
        return (self.head.out,)


class SeedTokenizer(nn.Module, Saved):
    """Pictures to codes on the grid (1, 1, N), and codes to the embedding of a diffusion model."""

    config_class: ClassVar[type] = SeedConfig

    def __init__(self, config: SeedConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.qformer.width, config.quantizer.channels
        self.codebook_size, self.channels = config.quantizer.codebook_size, channels
        self.vision = build_eva(config.vision) if config.vision else None
        self.vision_norm = nn.LayerNorm(config.qformer.memory_width, eps=1e-5)
        self.queries = nn.Parameter(0.02 * torch.randn(1, config.tokens, width))
        self.qformer = QFormer(config.qformer)
        self.to_code = _mlp(width, width, channels)
        self.quantizer = VQ(config.quantizer)
        self.from_code = _mlp(channels, channels, width)
        self.decoder = TokenBlocks(config)
        self.reconstructor = TokenBlocks(config) if config.reconstructs else None
        head = config.head
        self.head: nn.Module = (
            MLPHead(head, width, config.tokens)
            if isinstance(head, MLPHeadConfig)
            else QueryHead(head)
        )

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the codes; decoder and head may change without changing it."""
        parts = ("vision.", "vision_norm.", "queries", "qformer.", "to_code.", "quantizer.")
        return self.hash_of_weights(parts)

    def encode(self, pixels: Tensor) -> Codes:
        """Pixels (B, 3, S, S) in [-1, 1] to `Codes` with indices (B, 1, 1, N).

        Raises:
            UserError: another size than the tower's, or the tokenizer has no tower.
        """
        if self.vision is None:
            raise UserError(
                "This SEED tokenizer has no image tower; import it together with eva_vit_g.pth."
            )
        self.grid_for((pixels.shape[-2], pixels.shape[-1]))
        return self.encode_features(self.vision(clip_normalised(pixels).to(self.queries.dtype)))

    def encode_features(self, features: Tensor) -> Codes:
        """Tokens of the tower (B, 1 + patches, V), class token first, to indices (B, 1, 1, N)."""
        z = self.to_code(self.summary(self.vision_norm(features)))  # (B, N, C)
        return Codes(indices=self.quantizer.assign(z)[:, None, None])

    def summary(self, memory: Tensor) -> Tensor:
        """Normed tokens of the tower (B, M, V) to the Q-Former's output (B, N, W)."""
        found: Tensor = self.qformer(self.queries.expand(len(memory), -1, -1), memory)
        return found

    def to_embedding(self, codes: Codes) -> Tensor:
        """`Codes` with indices (B, 1, 1, N) to the embedding that a diffusion model takes.

        Returns:
            (B, out) for one vector, (B, queries, out) for several; not normalised.

        Raises:
            UserError: no indices, or another number of them.
        """
        if codes.indices is None or codes.indices.shape[1:] != (1, 1, self.config.tokens):
            raise UserError(
                f"A SEED tokenizer reads indices of the grid (1, 1, {self.config.tokens})."
            )
        up = self.from_code(self.embed(codes.indices[:, 0, 0]))  # (B, N, W)
        embedding: Tensor = self.head(self.decoder(up))
        return embedding

    def decode(self, codes: Codes) -> Tensor:
        """SEED has no pixels of its own.

        Raises:
            UserError: always; says what draws them.
        """
        raise UserError(
            "SEED codes become a picture through a diffusion model; wrap the tokenizer and a "
            "diffusers pipeline in mmgen.tokenizers_vis.diffusion.DiffusionTokenizer."
        )

    def embed(self, indices: Tensor) -> Tensor:
        """Codebook embedding of each code: (...) long to (..., C)."""
        return self.quantizer.embed(indices)

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Grid (1, 1, N) of a picture of `size` (H, W) pixels.

        Raises:
            UserError: the tower takes another size.
        """
        side = self.config.vision.image_size if self.config.vision else None
        if side and tuple(size[-2:]) != (side, side):
            raise UserError(
                f"A picture of {size[-1]}x{size[-2]} does not fit this tokenizer; "
                f"it takes {side}x{side}."
            )
        return 1, 1, self.config.tokens


class TokenBlocks(nn.Module):
    """Positions and plain pre-norm transformer blocks; no final norm."""

    def __init__(self, config: SeedConfig) -> None:
        super().__init__()
        width = config.qformer.width
        self.position = nn.Parameter(torch.zeros(1, config.tokens, width))
        self.blocks = transformer_blocks(
            config.decoder_depth, width, config.decoder_heads, eps=1e-6
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, W) to (B, N, W)."""
        out: Tensor = self.blocks(x + self.position)
        return out


class MLPHead(nn.Module):
    """(B, N, W) to (B, out)."""

    def __init__(self, config: MLPHeadConfig, width: int, tokens: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((width, *config.widths), config.widths):
            layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
        self.down = nn.Sequential(*layers[:-1])
        self.out = nn.Linear(tokens * config.widths[-1], config.out)

    def forward(self, x: Tensor) -> Tensor:
        """All numbers of token 0 first, then those of token 1."""
        out: Tensor = self.out(self.down(x).flatten(1))
        return out


class QueryHead(nn.Module):
    """(B, N, W) to (B, out) for one query, (B, queries, out) for several."""

    def __init__(self, config: QueryHeadConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(1, config.queries, config.qformer.width))
        self.qformer = QFormer(config.qformer)
        self.out = nn.Linear(config.qformer.width, config.out)

    def forward(self, x: Tensor) -> Tensor:
        """Read the tokens."""
        out: Tensor = self.out(self.qformer(self.queries.expand(len(x), -1, -1), x))
        return out[:, 0] if out.shape[1] == 1 else out


def clip_normalised(pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) from [-1, 1] to the mean and deviation of CLIP's pictures."""
    mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return ((pixels + 1) / 2 - mean) / std


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, out))
