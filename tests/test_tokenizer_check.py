"""`check_tokenizer`: what data it takes, for tokenizers of pictures and of clips."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.distributions import Normal, kl_divergence

from mmgen.bottleneck_use import CodeUse, LatentUse
from mmgen.data.dataset import ImageTextDataset
from mmgen.data.sources import open_source
from mmgen.errors import UserError
from mmgen.sample.clip_files import save_clip
from mmgen.tokenizer_check import TokenizerCheck, check_tokenizer, load_tokenizer
from mmgen.train.datasets import held_out_pixels
from tests.golden.case import Case
from tests.tiny_pipeline import tiny_pipeline

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures without captions, and clips; some of each are no squares."""
    place = tmp_path_factory.mktemp("data")
    for folder in ("pictures", "clips"):
        (place / folder).mkdir()
    noise = [Image.effect_noise((48, 40), 90 + i).convert("RGB") for i in range(9)]
    for i in range(2):
        noise[i].resize((32, 32)).save(place / f"pictures/{i}.png")
    noise[2].save(place / "pictures/wide.png")
    save_clip([frame.resize((32, 32)) for frame in noise], place / "clips/a.gif", {})
    save_clip(noise[:5], place / "clips/b.webp", {})
    shutil.copy(place / "pictures/0.png", place / "clips/still.png")
    return place


def checked(model: str, data: Path, size: int | None = 32) -> TokenizerCheck:
    return check_tokenizer(model, str(data), size, 9, lambda done, total: None)


def test_pictures_need_no_captions(data: Path, tmp_path: Path) -> None:
    case = Case(GOLDENS / "lfq-tokenizer-tiny")
    found = checked(str(case.pipeline), data / "pictures")
    assert found.looked_at == "3 pictures" and isinstance(found.use, CodeUse)
    assert found.motion is None and not found.clips
    assert found.cropping is not None and found.cropping.startswith("1 of 3 in ")
    found.save(tmp_path / "all.png")
    with Image.open(tmp_path / "all.png") as sheet:
        assert sheet.size == (8 + 3 * 72, 8 + 2 * 72)
    one = checked(str(case.pipeline), data / "pictures/0.png")
    assert one.looked_at == "1 pictures" and one.cropping is None
    with pytest.raises(UserError, match="SSIM needs pictures of 11 pixels a side or more, not 8"):
        checked(str(case.pipeline), data / "pictures", 8)


def test_continuous_tokenizers_are_judged_by_their_latents(data: Path) -> None:
    case = Case(GOLDENS / "kl16-tiny")
    found = checked(str(case.pipeline), data / "pictures")
    tokenizer = load_tokenizer(str(case.pipeline))[0]
    source = open_source(str(data / "pictures"), captioned=False)
    pixels = next(held_out_pixels(ImageTextDataset(source, 32)))
    with torch.no_grad():
        codes = tokenizer.encode(pixels)
        latents, deviations = codes.latents, codes.deviations
        each = torch.stack(
            [tokenizer.encode(pixels, torch.randn_like(latents)).latents for _ in range(500)]
        )
    channels = latents.shape[-1]
    use = found.use
    assert isinstance(use, LatentUse) and use.scale == tokenizer.config.quantizer.scale
    assert use.tokens == latents[0, ..., 0].numel() and len(use.channel_std) == channels
    assert use.mean == pytest.approx(float(latents.mean()), abs=1e-5)
    assert use.std == pytest.approx(float(each.std()), rel=0.02)
    wanted = each.reshape(-1, channels).std(0).tolist()
    assert use.channel_std == pytest.approx(wanted, rel=0.05)
    mean, deviation = latents / use.scale, deviations / use.scale
    nats = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum() / len(pixels)
    assert use.nats == pytest.approx(float(nats), rel=1e-4)
    lines = found.lines()
    assert lines[3].startswith(f"latents     {use.tokens:g} a picture, {channels} channels, scale ")
    assert [line.split()[0] for line in lines[4:7]] == ["mean", "std", "by"]
    assert any(line.startswith("KL ") and "nats a picture" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "size", "clips", "bad"),
    [
        ("emu3-vq-tiny", 32, "3 clips (13 frames)", ()),
        ("larp-tokenizer-tiny", 16, "1 clips (8 frames)", ("b.webp", "still.png")),
    ],
)
def test_clips_and_stills(
    name: str, size: int, clips: str, bad: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    case = Case(GOLDENS / name)
    found = checked(str(case.pipeline), data / "clips", size)
    assert found.looked_at == clips and found.lines()[-2].endswith("tokens)")
    assert all(f"{each}' (it has" in found.report for each in bad)
    assert found.motion is not None and found.lines()[3].startswith("motion      ")
    found.save(tmp_path / "frames.gif")
    with Image.open(tmp_path / "frames.gif") as clip:
        columns = len(found.rows) // 2
        assert clip.n_frames > 1 and clip.size[0] == 8 + columns * (2 * size + 8)
    found.save(tmp_path / "frames.png")
    with Image.open(tmp_path / "frames.png") as sheet:  # the frames of a clip stand in a row
        assert sheet.size == (8 + 8 * (2 * size + 8), 8 + len(found.rows) * (2 * size + 8))


def test_clips_that_cannot_be_used(data: Path, tmp_path: Path) -> None:
    case = Case(GOLDENS / "emu3-vq-tiny")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.mp4").write_text("no film")
    for place, size, said in (
        (data / "nowhere", 32, "There is no .*nowhere; name a folder"),
        (tmp_path / "empty", 32, "holds no clips"),
        (data / "clips", 33, "do not fit this tokenizer"),
        (tmp_path / "bad.mp4", 32, "holds nothing that can be read. Skipped 1 bad of 1"),
    ):
        with pytest.raises(UserError, match=said):
            checked(str(case.pipeline), place, size)


def test_seed_has_no_pixels_to_compare(data: Path) -> None:
    case = Case(GOLDENS / "seed-v1-tiny")
    with pytest.raises(UserError, match="only through a diffusion model"):
        checked(str(case.pipeline), data / "pictures", None)


def test_the_tokenizer_in_a_pipeline_is_looked_at_with_the_pipelines_size(tmp_path: Path) -> None:
    place = tmp_path / "pipe"
    tiny_pipeline().save_pretrained(place)
    (tmp_path / "alone").symlink_to(place / "vision")
    found = [load_tokenizer(str(each))[1] for each in (place, place / "vision", tmp_path / "alone")]
    assert found == [16, 16, 64]
