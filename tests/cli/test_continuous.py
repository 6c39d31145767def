"""A continuous tokenizer as users make one: trained, looked at, gone on from, exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from one_sentence import assert_one_sentence
from PIL import Image

if TYPE_CHECKING:
    from conftest import Commands

SMALL = ("data.val=null", "data.image_size=16", "loss.perceptual=0", "model.norm_groups=4")
SMALL = (*SMALL, "model.widths=[8, 16]", "model.z_channels=8", "train.batch_size=4")
SMALL = (*SMALL, "train.learning_rate=1e-2", "train.warmup_steps=1", "train.out=run")


@pytest.fixture(scope="module")
def place(
    mmgen: Commands, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A folder with a run of the shipped recipe, and what training said."""
    place = tmp_path_factory.mktemp("continuous")
    words = ("train", "emoji64-kl", f"data.train={pictures}", *SMALL, "train.steps=3")
    done = mmgen(*words, cwd=place)
    assert (done.code, done.err) == (0, ""), done
    return place, done.out


def test_training_measures_the_scale(place: tuple[Path, str]) -> None:
    folder, said = place
    line = r"Latents are multiplied by (\S+) to have unit variance \(measured on 12 pictures\)\."
    found = re.search(line, said)
    assert found is not None
    assert f'"scale": {found[1]}' in (folder / "run/final/config.json").read_text()


def test_check_tells_what_the_latents_are_like(
    place: tuple[Path, str], mmgen: Commands, pictures: Path
) -> None:
    folder, _ = place
    done = mmgen("tokenizer", "check", "run/final", pictures, "--size", "16", cwd=folder)
    assert (done.code, done.err) == (0, ""), done
    lines = done.out.splitlines()
    assert lines[0].startswith("run/final on 12 pictures of ")
    assert re.fullmatch(r"latents     4 a picture, 16 channels, scale \S+", lines[3])
    found = re.fullmatch(r"std         (\S+) \(of posteriors alone \S+\)", lines[5])
    assert found is not None and abs(float(found[1]) - 1) < 0.002  # the pictures of its training
    assert re.fullmatch(r"by channel  \d\.\d\d( \d\.\d\d){15}", lines[6])
    assert re.match(r"KL          \d+ nats a picture", lines[7])
    with Image.open(folder / "tokenizer-check.png") as sheet:
        assert sheet.size == (8 + 12 * 40, 8 + 2 * 40)


def test_training_goes_on_from_it(place: tuple[Path, str], mmgen: Commands, pictures: Path) -> None:
    folder, _ = place
    words = ("train", "tokenizer", "--data", pictures, "--from", "run/final", "-o", "more")
    few = ("train.steps=2", "train.batch_size=4", "loss.perceptual=0", "data.held_out=0")
    done = mmgen(*words, "--size", 16, *few, cwd=folder)
    assert (done.code, done.err) == (0, ""), done
    assert "Latents are multiplied by " in done.out


def test_diffusers_has_no_patches(place: tuple[Path, str], mmgen: Commands) -> None:
    folder, _ = place
    done = mmgen("export", "diffusers", "run/final", "-o", "theirs", cwd=folder)
    assert_one_sentence(done, "other sizes than diffusers' AutoencoderKL can describe")


def test_a_bottleneck_is_one_word(mmgen: Commands, pictures: Path, tmp_path: Path) -> None:
    words = ("train", "tokenizer", "--data", pictures, "--size", "16", "--print-config")
    done = mmgen(*words, "model.quantizer={kind: kl, channels: 4}", cwd=tmp_path)
    assert (done.code, done.err) == (0, "") and "kind: kl" in done.out
    done = mmgen(*words, "model.quantizer={kind: kl, weight: -1}", cwd=tmp_path)
    assert_one_sentence(done, "A KL bottleneck needs a weight from 0 up, not -1.0")
