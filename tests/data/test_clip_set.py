"""`ClipSet`: which files are clips, how much of them is read, what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmgen.data.clip_set import ClipSet
from mmgen.data.clips import read_clip
from mmgen.errors import DataError
from mmgen.sample.clip_files import save_clip


def clip(path: Path, frames: int, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_clip([Image.effect_noise(size, 40 + i).convert("RGB") for i in range(frames)], path, {})


def threes(frames: int) -> int:
    """A tokenizer that takes 3, 6, 9 ... frames."""
    return frames // 3 * 3


def test_too_few_frames_are_counted_and_named(tmp_path: Path) -> None:
    for name, frames in (("five", 5), ("nine", 9), ("two", 2)):
        clip(tmp_path / f"{name}.gif", frames)
    clips = ClipSet(tmp_path, 8, most=7, fitting=threes)
    assert len(clips) == 3
    assert [tuple(each.shape) for each in clips] == [(3, 3, 8, 8), (3, 6, 8, 8)]
    assert list(clips.bad) == ["two.gif"]
    assert "Skipped 1 bad of 3" in clips.report()
    assert "(it has 2 frames, too few for this tokenizer)" in clips.report()


def test_nested_folders_are_looked_through_and_other_files_left(tmp_path: Path) -> None:
    clip(tmp_path / "b/deep/er.gif", 3)
    clip(tmp_path / "a.webp", 3)
    (tmp_path / "b/notes.txt").write_text("no clip")
    clip(tmp_path / "b/.hidden.gif", 3)
    (tmp_path / "c.gif").mkdir()  # a folder, whatever its name says
    clips = ClipSet(tmp_path, 8, most=3, fitting=threes)
    assert clips.source.keys == ["a.webp", "b/deep/er.gif"]
    assert len(list(clips)) == 2 and not clips.bad


@pytest.mark.parametrize("name", ["torn.mp4", "torn.gif"])
def test_what_cannot_be_read_is_bad_and_the_rest_is_read(name: str, tmp_path: Path) -> None:
    clip(tmp_path / "good.gif", 3)
    (tmp_path / name).write_bytes(b"no film at all")
    clips = ClipSet(tmp_path, 8, most=3, fitting=threes)
    assert len(list(clips)) == 1
    assert list(clips.bad) == [name] and name in clips.report()


def test_cropped_clips_are_counted_once(tmp_path: Path) -> None:
    clip(tmp_path / "wide.gif", 3, (32, 16))
    clip(tmp_path / "square.gif", 3)
    clips = ClipSet(tmp_path, 8, most=3, fitting=threes)
    assert clips.cropping() is None  # nothing was read yet
    for _ in range(2):
        list(clips)
    said = f"1 of 2 in {tmp_path} are not square: only the middle square was kept."
    assert clips.cropping() == said


def test_a_folder_of_stills_is_many_clips_of_one_frame_and_one_clip_to_go_on_from(
    tmp_path: Path,
) -> None:
    for i in range(3):
        Image.new("RGB", (8, 8), (80 * i, 0, 0)).save(tmp_path / f"{i}.png")
    stills = list(ClipSet(tmp_path, 8, most=3, fitting=lambda frames: frames))
    assert [tuple(each.shape) for each in stills] == [(3, 1, 8, 8)] * 3
    assert read_clip(tmp_path, 3, 8).shape == (3, 3, 8, 8)


def test_no_clips_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no"):
        ClipSet(tmp_path / "none", 8, 3, threes)
    with pytest.raises(DataError, match=r"holds no clips; give animations"):
        ClipSet(tmp_path, 8, 3, threes)
