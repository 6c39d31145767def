"""Emu3's vision tokenizer; its clips are (B, T, 3, H, W), ours (B, 3, T, H, W)."""

from __future__ import annotations

import torch
from case import Case
from computing import by_output
from torch import Tensor

from mmgen.tokenizers_vis.video_conv import VideoConvTokenizer


@torch.no_grad()
def outputs(case: Case) -> dict[str, Tensor]:
    network: VideoConvTokenizer = case.network
    image, clip = case.inputs["image"], case.inputs["video"].transpose(1, 2)
    pictures, clips = network.encode(image), network.encode(clip)
    assert pictures.indices is not None and clips.indices is not None
    return {
        "image_h": network.encoded(image).transpose(1, 2),
        "image_z": network.features(image).movedim(-1, 2),
        "video_z": network.features(clip).movedim(-1, 2),
        "image_codes": pictures.indices[:, 0],
        "video_codes": clips.indices,
        "image_rec": network.decode(pictures),
        "image_rec_all_frames": network.decode_clip(pictures).transpose(1, 2),
        "video_rec": network.decode_clip(clips).transpose(1, 2),
    }


NAMES = (
    *("image_h", "image_z", "video_z", "image_codes", "video_codes"),
    *("image_rec", "image_rec_all_frames", "video_rec"),
)
COMPARE = {("emu3", "vision tokenizer"): by_output({outputs: NAMES})}
