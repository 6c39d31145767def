"""Our KL tokenizers written in the layout of diffusers' `AutoencoderKL`, without diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from mmgen.errors import ConfigError
from mmgen.files import replacing, write_json
from mmgen.published.diffusers_kl import MATRICES, to_diffusers
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import KLConfig

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def export(tokenizer: nn.Module, folder: str | Path, where: str = "This network") -> None:
    """Write a KL tokenizer as a folder that `diffusers.AutoencoderKL.from_pretrained` reads.

    Args:
        tokenizer: a `ConvTokenizer` with a KL bottleneck.
        folder: created if it does not exist.
        where: what to call the tokenizer in messages.

    Raises:
        UserError: `AutoencoderKL` has no such network, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    if not isinstance(tokenizer, ConvTokenizer):
        raise ConfigError(
            f"{where} is a {type(tokenizer).__name__}; only KL tokenizers have diffusers' layout."
        )
    described = config_json(tokenizer.config, where)
    tensors = {to_diffusers(name): t for name, t in tokenizer.state_dict().items()}
    stored = {
        key: (t.flatten(1) if key.endswith(MATRICES) else t).contiguous().cpu()
        for key, t in tensors.items()
    }
    with replacing(Path(folder) / WEIGHTS_FILE) as temporary:
        save_file(stored, temporary, metadata={"format": "pt"})
    write_json(Path(folder) / "config.json", described)


def config_json(config: ConvTokenizerConfig, where: str) -> dict[str, Any]:
    """The configuration of the same `AutoencoderKL`.

    Raises:
        ConfigError: there is none.
    """
    quantizer, same = config.quantizer, config.decoder_widths in (None, config.widths)
    if not isinstance(quantizer, KLConfig):
        raise ConfigError(
            f"{where} has the bottleneck '{quantizer.kind}'; only KL tokenizers have diffusers' "
            "layout."
        )
    stem = config.stem_width in (None, config.widths[0])
    blocks = config.decoder_res_blocks == config.res_blocks + 1
    plain = config.family == "vqgan" and config.decoder_norm == "plain" and config.patch_size == 1
    square = quantizer.channels == config.z_channels
    if not (same and stem and blocks and plain and square):
        raise ConfigError(
            f"{where} has other sizes than diffusers' AutoencoderKL can describe: a decoder of the "
            "encoder's widths with one block a level more, and as many channels inside as out."
        )
    levels = range(len(config.widths))
    back = config.decoder_attention_levels
    decoder = config.attention_levels if back is None else back
    down = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D")
    up = ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": [down[i in config.attention_levels] for i in levels],
        "up_block_types": [up[i in decoder] for i in reversed(levels)],
        "block_out_channels": list(config.widths),
        "layers_per_block": config.res_blocks,
        "act_fn": "silu",
        "latent_channels": config.z_channels,
        "norm_num_groups": config.norm_groups,
        "scaling_factor": quantizer.scale,
        "mid_block_add_attention": config.middle_attention,
    }
