"""Bottlenecks of tokenizers, channels last, one file each: quantizers, and the continuous KL."""

from __future__ import annotations

from typing import TypeAlias

from mmgen.tokenizers_vis.protocol import Quantizer
from mmgen.tokenizers_vis.quantizers.fsq import FSQ, FSQConfig
from mmgen.tokenizers_vis.quantizers.ibq import IBQ, IBQConfig
from mmgen.tokenizers_vis.quantizers.kl import KL, KLConfig, divergence
from mmgen.tokenizers_vis.quantizers.lfq import LFQ, LFQConfig
from mmgen.tokenizers_vis.quantizers.vq import VQ, VQConfig

QuantizerConfig: TypeAlias = VQConfig | FSQConfig | LFQConfig | IBQConfig | KLConfig


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """Return the quantizer (a `torch.nn.Module`) that the configuration describes."""
    match config:
        case VQConfig():
            return VQ(config)
        case FSQConfig():
            return FSQ(config)
        case LFQConfig():
            return LFQ(config)
        case IBQConfig():
            return IBQ(config)
        case KLConfig():
            return KL(config)


__all__ = [
    "FSQ",
    "FSQConfig",
    "IBQ",
    "IBQConfig",
    "KL",
    "KLConfig",
    "LFQ",
    "LFQConfig",
    "Quantizer",
    "QuantizerConfig",
    "VQ",
    "VQConfig",
    "build_quantizer",
    "divergence",
]
