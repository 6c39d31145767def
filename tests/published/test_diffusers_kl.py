"""KL tokenizers in diffusers' layout: diffusers itself is the oracle, both ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import official_conv as keys
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmgen.errors import ConfigError, UserError
from mmgen.published import diffusers_kl, kl16
from mmgen.published.diffusers_kl_export import WEIGHTS_FILE, export
from mmgen.published.importing import import_files
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.quantizers import FSQConfig, KLConfig

SIZES = ConvTokenizerConfig(
    quantizer=KLConfig(channels=5, scale=0.2325),
    widths=(16, 16, 32),
    res_blocks=1,
    decoder_res_blocks=2,
    attention_levels=(2,),
    decoder_attention_levels=(),
    z_channels=5,
    norm_groups=4,
)


def tokenizer(**changes: Any) -> ConvTokenizer:
    network = ConvTokenizer(replace(SIZES, **changes)).eval()
    for parameter in network.parameters():  # fresh biases and norms would hide a swapped key
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def pictures() -> Tensor:
    return torch.rand(2, 3, 16, 24) * 2 - 1


def check_against_diffusers(network: ConvTokenizer, folder: Path) -> None:
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL.from_pretrained(folder).eval()
    assert isinstance(network.config.quantizer, KLConfig)
    assert theirs.config["scaling_factor"] == network.config.quantizer.scale
    x = pictures()
    with torch.no_grad():
        posterior = theirs.encode(x).latent_dist
        latents = network.encode(x).latents
        assert latents is not None
        scaled = (posterior.mean * theirs.config["scaling_factor"]).permute(0, 2, 3, 1)
        torch.testing.assert_close(latents[:, 0], scaled, atol=1e-4, rtol=1e-4)
        decoded = network.decode(Codes(None, latents))
        torch.testing.assert_close(
            decoded, theirs.decode(posterior.mean).sample, atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_levels": (0, 2), "decoder_attention_levels": (1,)},
        {"res_blocks": 2, "decoder_res_blocks": 3},
    ],
    ids=str,
)
def test_what_is_written_is_the_same_network_there(changes: dict[str, Any], tmp_path: Path) -> None:
    network = tokenizer(**changes)
    export(network, tmp_path)
    check_against_diffusers(network, tmp_path)


def test_what_diffusers_writes_is_the_same_network_here(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL(
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=8,
        scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    )
    theirs.save_pretrained(tmp_path / "theirs")
    options = json.loads((tmp_path / "theirs" / "config.json").read_text())
    weights = tmp_path / "theirs" / WEIGHTS_FILE
    lines = import_files("kl16", [weights], options, tmp_path / "ours")
    assert "latent scale 0.5" in lines[0]
    network = ConvTokenizer.from_pretrained(tmp_path / "ours" / "vision")
    check_against_diffusers(network, tmp_path / "theirs")


def test_the_official_file_goes_there_and_back(tmp_path: Path) -> None:
    official = keys.drawn(keys.kl(32, (1, 2), 1, (1,), 4, 4))
    network = kl16.convert_tokenizer(official, {}, "file").network
    assert isinstance(network, ConvTokenizer)
    export(network, tmp_path)
    check_against_diffusers(network, tmp_path)
    stored = load_file(tmp_path / WEIGHTS_FILE)
    again: Any = diffusers_kl.convert_tokenizer(stored, {"scaling_factor": 0.2325}, "file").network
    assert again.config == network.config and again.fingerprint == network.fingerprint


def test_names_come_back() -> None:
    names = tokenizer(decoder_attention_levels=(1,)).state_dict()
    theirs = {name: diffusers_kl.to_diffusers(name) for name in names}
    assert {diffusers_kl.from_diffusers(key): key for key in theirs.values()} == theirs
    assert theirs["encoder.levels.2.attentions.0.norm.weight"] == (
        "encoder.down_blocks.2.attentions.0.group_norm.weight"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantizer": FSQConfig(levels=(4, 4, 4, 4, 4))}, "the bottleneck 'fsq'; only KL"),
        ({"quantizer": KLConfig(channels=4)}, "other sizes than diffusers"),
        ({"decoder_res_blocks": 1}, "other sizes than diffusers"),
        ({"patch_size": 2}, "other sizes than diffusers"),
        ({"decoder_widths": (16, 16, 16)}, "other sizes than diffusers"),
        ({"stem_width": 8}, "other sizes than diffusers"),
        ({"decoder_norm": "spatial"}, "other sizes than diffusers"),
    ],
    ids=str,
)
def test_networks_that_are_not_there(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"here (has )?{said}"):
        export(tokenizer(**changes), tmp_path, "here")
    with pytest.raises(ConfigError, match="This network is a Linear; only KL"):
        export(torch.nn.Linear(1, 1), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_attention_of_other_axes_is_named(tmp_path: Path) -> None:
    export(tokenizer(), tmp_path)
    stored = load_file(tmp_path / WEIGHTS_FILE)
    scale = {"scaling_factor": 0.2, "norm_num_groups": 4}
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        key = f"encoder.mid_block.attentions.0.{name}.weight"
        wrong = {**stored, key: stored[key][:, :, None, None]}
        with pytest.raises(UserError, match=rf"file holds '{key}' of shape .* 2 axes; get the"):
            diffusers_kl.convert_tokenizer(wrong, scale, "file")
    assert diffusers_kl.convert_tokenizer(stored, scale, "file").component == "vision"


def test_options_that_are_not_supported() -> None:
    stored = {"encoder.conv_in.weight": torch.zeros(1)}
    with pytest.raises(UserError, match="shift_factor"):
        diffusers_kl.convert_tokenizer(stored, {"shift_factor": 0.1}, "file")
    for name in ("latents_mean", "latents_std"):
        with pytest.raises(UserError, match=name):
            diffusers_kl.convert_tokenizer(stored, {name: [0.1, 0.2]}, "file")
    with pytest.raises(UserError, match="act_fn cannot be 'gelu'"):
        diffusers_kl.convert_tokenizer(stored, {"act_fn": "gelu"}, "file")
    with pytest.raises(UserError, match="no option 'scale'"):
        diffusers_kl.convert_tokenizer(stored, {"scale": 0.1}, "file")


def test_a_scale_that_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    export(tokenizer(decoder_attention_levels=None), tmp_path)
    stored = load_file(tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match="say scaling_factor="):
        diffusers_kl.convert_tokenizer(stored, {"norm_num_groups": 4}, "file")
    whole = json.loads((tmp_path / "config.json").read_text())
    del whole["scaling_factor"]
    network: Any = diffusers_kl.convert_tokenizer(stored, whole, "file").network
    assert network.config.quantizer.scale == 0.18215
