"""Pipelines of clips: from class names, from given frames; files of clips; the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mmgen.data.clips import read_clip
from mmgen.errors import DataError, UserError
from mmgen.models.conditional import ConditionalModel
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo, SamplingDefaults
from mmgen.request import Frames
from mmgen.sample.clip_files import save_clip
from mmgen.tokenizers_vis.causal_video import CausalVideoTokenizer, CausalVideoTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig
from tests.tiny_blocks import hybrid, plain


def clip_pipeline(transformer: ConditionalModel) -> Pipeline:
    """Clips of 3 frames of 4x4 pixels as 2x2x2 codes."""
    torch.manual_seed(0)
    config = CausalVideoTokenizerConfig(
        FSQConfig(levels=(5, 5, 5)), (4, 4), (2,), res_blocks=1, norm_groups=2, pixels="unit"
    )
    usual = SamplingDefaults(guidance_scale=1.0, top_k=100, top_p=0.9)
    info = PipelineInfo(format=FORMAT, name="clips", image_size=4, sampling=usual)
    return Pipeline(None, CausalVideoTokenizer(config), transformer, info)


NAMES = {"apply eye makeup": (1, 3, 2), "archery": (1, 4, 2)}


@pytest.fixture(scope="module")
def named() -> Pipeline:
    return clip_pipeline(hybrid(texts=NAMES))


@pytest.fixture(scope="module")
def going_on() -> Pipeline:
    return clip_pipeline(plain())


@pytest.fixture(scope="module")
def gif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "ball.gif"
    frames = [Image.new("RGB", (9, 6), (40 * i, 10, 200 - 40 * i)) for i in range(4)]
    save_clip(frames, path, {})
    return path


def test_classes_by_name_and_by_label_are_the_same(named: Pipeline) -> None:
    by_name = named("ApplyEyeMakeup", seed=3)
    by_label = named(class_labels=0, seed=3)
    assert torch.equal(by_name.codes, by_label.codes)
    assert [len(clip) for clip in by_name.frames] == [3]
    assert by_name.frames[0][0].size == (4, 4)
    assert by_name.images == []
    other = named("archery", seed=3)
    assert not torch.equal(other.codes, by_name.codes)


def test_a_word_that_is_drawn_becomes_code_0(named: Pipeline) -> None:
    drawn = named(class_labels=[0, 1], num_images_per_prompt=8, seed=0, top_p=1.0, top_k=0)
    assert int(drawn.codes.max()) < 125
    steps = list(named.stream("archery", seed=0, top_p=1.0, top_k=0))
    assert all(int(step.codes.max()) < 125 for step in steps)


def test_guidance_leads_away_from_the_null_rows(named: Pipeline) -> None:
    one, two = (named("archery", seed=1, guidance_scale=s, temperature=0).codes for s in (1, 9))
    assert not torch.equal(one, two)


def test_a_clip_goes_on_from_its_first_frames(going_on: Pipeline, gif: Path) -> None:
    pixels = read_clip(gif, 1, 4)
    output = going_on(frames=[Frames("ball", pixels)], seed=[1])
    given = going_on.vision.encode(pixels[None]).indices
    assert torch.equal(output.codes[:, :1], given)
    assert len(output.frames[0]) == 3
    assert output.recipes[0]["frames"] == "ball"
    tensor = going_on(frames=pixels[None], seed=[1])
    assert torch.equal(tensor.codes, output.codes)


def test_what_cannot_be_drawn_is_said(named: Pipeline, going_on: Pipeline) -> None:
    with pytest.raises(UserError, match="go on from frames; give some"):
        going_on("archery")
    with pytest.raises(UserError, match="do not go on from frames"):
        named(frames=torch.zeros(1, 3, 1, 4, 4))
    with pytest.raises(UserError, match="2 frames of 4x4, and the clip will have 3; give 1 of"):
        going_on(frames=torch.zeros(1, 3, 2, 4, 4))
    with pytest.raises(UserError, match=r"tensor \(B, 3, T, H, W\)"):
        going_on(frames=torch.zeros(3, 1, 4, 4))
    with pytest.raises(UserError, match="leave the prompt out"):
        going_on("a", frames=torch.zeros(1, 3, 1, 4, 4))
    with pytest.raises(UserError, match="not several of them"):
        named("archery", class_labels=1)
    with pytest.raises(UserError, match="draw clips of 3 frames only"):
        named("archery", num_frames=5)
    with pytest.raises(UserError, match="know no 'bowling'"):
        named("bowling")


def test_a_saved_pipeline_of_clips(named: Pipeline, tmp_path: Path) -> None:
    named.save_pretrained(tmp_path / "clips")
    loaded = Pipeline.from_pretrained(tmp_path / "clips")
    assert torch.equal(loaded("archery", seed=5).codes, named("archery", seed=5).codes)


def test_clips_are_read_from_animations_and_folders(gif: Path, tmp_path: Path) -> None:
    clip = read_clip(gif, 3, 8)
    assert clip.shape == (3, 3, 8, 8)
    assert clip[0].mean((1, 2)).diff().gt(0).all()
    for i in range(3):
        Image.new("RGB", (5, 5), (0, 80 * i, 0)).save(tmp_path / f"{i}.png")
    assert read_clip(tmp_path, 3, 4)[1].mean((1, 2)).diff().gt(0).all()


def test_clips_that_cannot_be_read(gif: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 4 frames, and 5 are needed"):
        read_clip(gif, 5, 8)
    with pytest.raises(DataError, match="There is no file"):
        read_clip(tmp_path / "none.gif", 1, 8)
    with pytest.raises(DataError, match="xx cannot be read: File name too long"):
        read_clip("x" * 5000, 1, 8)
    (tmp_path / "bad.gif").write_bytes(b"GIF89a no")
    with pytest.raises(DataError, match="no animation"):
        read_clip(tmp_path / "bad.gif", 1, 8)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match=r"no film|PyAV"):
        read_clip(tmp_path / "bad.mp4", 1, 8)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_clip(tmp_path, 1, 8)
