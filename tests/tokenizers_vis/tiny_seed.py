"""Small SEED tokenizers and small diffusers pipelines with random weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmgen.tokenizers_vis.eva import EvaConfig
from mmgen.tokenizers_vis.qformer import QFormerConfig
from mmgen.tokenizers_vis.quantizers import VQConfig
from mmgen.tokenizers_vis.seed import MLPHeadConfig, QueryHeadConfig, SeedConfig, SeedTokenizer

WIDTH, MEMORY = 24, 20

QFORMER = QFormerConfig(WIDTH, 3, 4, 40, MEMORY, causal=True)
HEAD_QFORMER = replace(QFORMER, depth=2, memory_width=WIDTH, causal=False)
V2 = SeedConfig(
    qformer=QFORMER,
    head=MLPHeadConfig(widths=(12, 6), out=16),
    quantizer=VQConfig(codebook_size=50, channels=5),
    vision=EvaConfig(28, 14, MEMORY, 2, 4, 40),
    tokens=8,
    decoder_depth=2,
)
V1 = replace(V2, head=QueryHeadConfig(qformer=HEAD_QFORMER, queries=7, out=16))


def tiny_seed(config: SeedConfig = V2) -> SeedTokenizer:
    """A tokenizer whose codes differ from picture to picture and along a picture."""
    torch.manual_seed(0)
    network = SeedTokenizer(config)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5 if "vision." in name else 0.15)
    return network.eval()


def tiny_unclip(folder: Path, **schedule: Any) -> Any:
    """diffusers' `StableUnCLIPImg2ImgPipeline` for embeddings of 16 channels."""
    from diffusers import DDIMScheduler, DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
        StableUnCLIPImageNormalizer,
    )

    torch.manual_seed(0)
    normalizer = StableUnCLIPImageNormalizer(16)
    nn.init.normal_(normalizer.mean)
    nn.init.uniform_(normalizer.std, 0.5, 2.0)
    pipeline = StableUnCLIPImg2ImgPipeline(
        feature_extractor=None,
        image_encoder=None,
        image_normalizer=normalizer.eval(),
        image_noising_scheduler=DDPMScheduler(**{"beta_schedule": "squaredcos_cap_v2", **schedule}),
        scheduler=DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=False),
        unet=_unet(class_embed_type="projection", projection_class_embeddings_input_dim=32),
        vae=_vae(),
        **_text_side(folder),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_stable_diffusion(folder: Path) -> Any:
    """diffusers' `StableDiffusionPipeline` for text features of 16 channels."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        unet=_unet(),
        vae=_vae(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **_text_side(folder),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        **more,
    ).eval()


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    ).eval()


def _text_side(folder: Path) -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 7})
    )
    config = CLIPTextConfig(
        vocab_size=3,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return {
        "text_encoder": CLIPTextModel(config).eval(),
        "tokenizer": CLIPTokenizer.from_pretrained(folder),
    }
