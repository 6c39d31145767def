"""LARP: a clip as a set of holistic tokens, each of which may look at all of it.

Learned queries stand beside the patches of the clip in a plain transformer; what it says at the
queries is quantized. The decoder does the reverse: queries of patches stand beside the tokens. A
token has no place, so its grid is (1, 1, n); NAR arranges the n indices as (t, h, w), and `decode`
takes any arrangement of them.

Shapes: pixels (B, 3, T, H, W) in [-1, 1] (the networks see [0, 1]); P patches, n tokens, C channels
of a code, W width. Paper: arXiv 2410.21264. Spec: nar.md 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmgen.errors import ConfigError, UserError
from mmgen.saving import Saved
from mmgen.tokenizers_vis.protocol import Codes, Quantized
from mmgen.tokenizers_vis.quantizers import VQConfig, build_quantizer
from mmgen.tokenizers_vis.vit import ViT, ViTConfig
from mmgen.waves import angles


@dataclass(frozen=True)
class LarpConfig:
    """Sizes of a `LarpTokenizer`.

    Args:
        quantizer: the bottleneck, on the unit sphere.
        encoder: transformer over patches and queries.
        decoder: transformer over tokens and patch queries.
        tokens: n.
        frames: T of every clip.
        size: H and W of every clip.
        patch: (frames, rows, columns) of an encoder patch.
        decoder_patch: the same in the decoder.
        token_base: base of the sine-cosine table of the tokens.
    """

    quantizer: VQConfig = field(
        default_factory=lambda: VQConfig(codebook_size=8192, channels=16, normalize=True)
    )
    encoder: ViTConfig = field(default_factory=ViTConfig)
    decoder: ViTConfig = field(default_factory=ViTConfig)
    tokens: int = 1024
    frames: int = 16
    size: int = 128
    patch: tuple[int, int, int] = (4, 8, 8)
    decoder_patch: tuple[int, int, int] = (4, 8, 8)
    token_base: float = 10000.0

    def __post_init__(self) -> None:
        """Refuse patches that do not tile the clip, and widths that the tables cannot share."""
        if self.tokens < 1:
            raise ConfigError("A LARP tokenizer needs at least 1 token.")
        if self.token_base <= 0:
            raise ConfigError(f"token_base must be above 0, not {self.token_base}.")
        for name in ("patch", "decoder_patch"):
            patch = getattr(self, name)
            if min(patch) < 1 or any(side % part for side, part in zip(self.clip, patch)):
                raise ConfigError(
                    f"{name} {patch} does not tile clips of {self.clip}; change one of them."
                )
        for name in ("encoder", "decoder"):
            if getattr(self, name).width % 4:
                raise ConfigError(f"The {name}'s width must be a multiple of 4.")

    @property
    def clip(self) -> tuple[int, int, int]:
        """(T, H, W)."""
        return self.frames, self.size, self.size

    def patches(self, patch: tuple[int, int, int]) -> tuple[int, int, int]:
        """Patches along time, rows and columns."""
        t, h, w = (side // part for side, part in zip(self.clip, patch))
        return t, h, w


class LarpTokenizer(nn.Module, Saved):
    """Clips to holistic codes and back; see `mmgen.tokenizers_vis.protocol.VisualTokenizer`.

    Encoding is deterministic: the code of the largest cosine. (Officially a code is drawn, even in
    evaluation, unless the quantizer is told otherwise.)
    """

    config_class: ClassVar[type] = LarpConfig
    patch_places: Tensor
    token_places: Tensor
    query_places: Tensor

    def __init__(self, config: LarpConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = build_quantizer(config.quantizer)
        self.codebook_size = self.quantizer.codebook_size
        self.channels: int = self.quantizer.channels
        wide, narrow = config.encoder.width, config.decoder.width
        self.patchify = nn.Conv3d(3, wide, config.patch, stride=config.patch)
        self.encoder_queries = nn.Parameter(torch.randn(config.tokens, wide) * 0.02)
        self.encoder = ViT(config.encoder)
        self.to_code = nn.Linear(wide, self.channels)
        self.from_code = nn.Linear(self.channels, narrow)
        self.query_type = nn.Parameter(torch.randn(narrow) * 0.02)
        self.decoder = ViT(config.decoder)
        self.norm_out = nn.LayerNorm(narrow, eps=1e-6)
        self.to_pixels = nn.Linear(narrow, 3 * int(torch.Size(config.decoder_patch).numel()))
        # Fixed tables, kept with the weights: published files bring theirs.
        grid, decoder_grid = config.patches(config.patch), config.patches(config.decoder_patch)
        places = torch.arange(config.tokens)
        self.register_buffer("patch_places", clip_places(grid, wide))
        self.register_buffer("token_places", sine_table(places, narrow, config.token_base).float())
        self.register_buffer("query_places", clip_places(decoder_grid, narrow))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct; returns pixels like the clip and the quantizer's output (B, n, ...)."""
        quantized = self.quantizer(self.features(pixels))
        return self.decode_embeddings(quantized.quantized), quantized

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the codes; the decoder may be trained on without changing it."""
        parts = ("patchify.", "patch_places", "encoder", "to_code.", "quantizer.")
        return self.hash_of_weights(parts)

    def read_clip(self, pixels: Tensor) -> Tensor:
        """What the encoder says at its queries, (B, n, W)."""
        self.grid_for(tuple(pixels.shape[2:]))
        clip = (pixels.to(self.to_code.weight.dtype) + 1) / 2
        patches = self.patchify(clip).flatten(2).transpose(1, 2) + self.patch_places  # (B, P, W)
        queries = self.encoder_queries.expand(len(pixels), -1, -1)
        rows: Tensor = self.encoder(torch.cat([patches, queries], dim=1))
        return rows[:, patches.shape[1] :]

    def features(self, pixels: Tensor) -> Tensor:
        """Encoder output before quantization: (B, n, C)."""
        z: Tensor = self.to_code(self.read_clip(pixels))
        return z

    def encode(self, pixels: Tensor) -> Codes:
        """Clips (B, 3, T, H, W) in [-1, 1] to `Codes` with indices (B, 1, 1, n)."""
        return Codes(indices=self.quantizer.assign(self.features(pixels))[:, None, None])

    def decode(self, codes: Codes) -> Tensor:
        """`Codes` with n indices, in any arrangement (B, t, h, w), to clips, not clamped."""
        if codes.indices is None or codes.indices[0].numel() != self.config.tokens:
            raise UserError(f"A clip of this tokenizer has {self.config.tokens} codes; give those.")
        return self.decode_embeddings(self.embed(codes.indices.flatten(1)))

    def decode_embeddings(self, embeddings: Tensor) -> Tensor:
        """Code embeddings (B, n, C) to clips (B, 3, T, H, W)."""
        tokens = self.from_code(embeddings.to(self.to_code.weight.dtype)) + self.token_places
        queries = (self.query_places + self.query_type).expand(len(tokens), -1, -1)
        rows = self.decoder(torch.cat([tokens, queries], dim=1))[:, tokens.shape[1] :]
        return self._unpatchify(self.to_pixels(self.norm_out(rows))) * 2 - 1

    def embed(self, indices: Tensor) -> Tensor:
        """Codebook embedding of each code: (...) long to (..., C)."""
        embedding: Tensor = self.quantizer.embed(indices)
        return embedding

    def grid_for(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        """Grid (1, 1, n) of a clip of `size` (T, H, W).

        Raises:
            UserError: any clip but those that it was made for.
        """
        if tuple(size) != self.config.clip:
            frames, side, _ = self.config.clip
            raise UserError(
                f"This tokenizer takes clips of {frames} frames of {side}x{side}; "
                f"cut or resize what you have ({'x'.join(map(str, size))})."
            )
        return 1, 1, self.config.tokens

    def _unpatchify(self, rows: Tensor) -> Tensor:
        """(B, P, frames * rows * columns * 3), colour fastest, to (B, 3, T, H, W)."""
        patch = self.config.decoder_patch
        x = rows.view(len(rows), *self.config.patches(patch), *patch, 3)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # (B, 3, t, pt, h, ph, w, pw)
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def sine_table(places: Tensor, width: int, base: float = 10000.0) -> Tensor:
    """Sines then cosines of `place * base ** (-k / (width / 2))`: (R,) to (R, width) float64."""
    angle = angles(places.double(), width // 2, base)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def clip_places(grid: tuple[int, int, int], width: int) -> Tensor:
    """Table (t * h * w, width): column and row share the width, time is added over all of it."""
    t, y, x = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    space = [sine_table(axis.flatten(), width // 2) for axis in (x, y)]
    return (torch.cat(space, dim=1) + sine_table(t.flatten(), width)).float()
