"""`mmgen export diffusers`: what diffusers reads of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from fake_systems import tokenizer
from one_sentence import assert_one_sentence

from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.protocol import Codes
from mmgen.tokenizers_vis.quantizers import KLConfig

if TYPE_CHECKING:
    from conftest import Commands


def test_diffusers_reads_what_is_exported(mmgen: Commands, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    config = ConvTokenizerConfig(
        quantizer=KLConfig(channels=4, scale=0.5),
        widths=(8, 16),
        res_blocks=1,
        decoder_res_blocks=2,
        attention_levels=(1,),
        z_channels=4,
        norm_groups=4,
    )
    network = ConvTokenizer(config).eval()
    network.save_pretrained(tmp_path / "pipe" / "vision")
    done = mmgen("export", "diffusers", "pipe/vision", "--out", "theirs", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "written: theirs\n", "")
    theirs = AutoencoderKL.from_pretrained(tmp_path / "theirs").eval()
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = network.encode(pixels).latents
        assert latents is not None
        posterior = theirs.encode(pixels).latent_dist.mean
        told = posterior.permute(0, 2, 3, 1)[:, None] * theirs.config["scaling_factor"]
        torch.testing.assert_close(latents, told, atol=1e-4, rtol=1e-4)
        again = network.decode(Codes(None, latents))
        torch.testing.assert_close(again, theirs.decode(posterior).sample, atol=1e-3, rtol=1e-3)
    done = mmgen("export", "diffusers", "pipe/vision", "--out", "theirs", cwd=tmp_path)
    assert_one_sentence(done, "theirs already exists; choose another place")


def test_what_is_no_kl_tokenizer_is_refused(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path / "fsq")
    (tmp_path / "a-file").touch()
    for words, said in (
        (("fsq", "-o", "out"), "fsq has the bottleneck 'fsq'; only KL tokenizers"),
        ((tiny, "-o", "out"), "only KL tokenizers have diffusers' layout"),
        ((tiny / "transformer", "-o", "out"), "is a UnifiedModel; only KL tokenizers"),
        (("nowhere", "-o", "out"), "no pipeline 'nowhere'"),
        (("fsq", "-o", "a-file"), "a-file already exists"),
        (("nowhere", "-o", "a-file"), "a-file already exists"),  # before the model is looked for
        (("fsq", "-o", "a-file/out"), "a-file is a file, not a folder"),
    ):
        assert_one_sentence(mmgen("export", "diffusers", *words, cwd=tmp_path), said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-file", "fsq"]
