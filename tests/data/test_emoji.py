from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mmgen.data.emoji as emoji
from mmgen.data.emoji_styles import STYLES, Style, icon_svg, key_of, open_style, slug
from mmgen.data.npm import Package, cache_folder, obtain, read_members
from mmgen.data.sources import open_source
from mmgen.errors import ConfigError, DataError, UserError
from mmgen.files import sha256_of

SHARED = Path(os.environ.get("MMGEN_SHARED", Path(__file__).parents[2] / ".." / "shared"))
PACKAGES = Path(os.environ.get("MMGEN_EMOJI_PACKAGES", cache_folder()))
FACTS = json.loads(resources.files("mmgen.data").joinpath("emoji_checks.json").read_text())

needs_shared = pytest.mark.skipif(
    not (SHARED / "data" / "concepts.tsv").is_file(), reason="the shared data folder is not here"
)
needs_packages = pytest.mark.skipif(
    not all((PACKAGES / style.package.file).is_file() for style in STYLES),
    reason="the emoji packages are not here: set MMGEN_EMOJI_PACKAGES or run `mmgen data emoji`",
)


def tgz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def made_package(folder: Path, members: dict[str, bytes]) -> Package:
    content = tgz(members)
    package = Package("@some/thing", "1.0.0", hashlib.sha256(content).hexdigest())
    (folder / package.file).write_bytes(content)
    return package


# The list and its splits


@needs_shared
def test_shipped_facts_are_the_shared_ones() -> None:
    shipped = resources.files("mmgen.data").joinpath("concepts.tsv").read_bytes()
    assert shipped == (SHARED / "data" / "concepts.tsv").read_bytes()
    checks = json.loads((SHARED / "data" / "checks.json").read_text())
    expected = {
        "splits": checks["stills"],
        "pixels64": checks["pixels64"],
        "clips": checks["clips"],
    }
    assert expected == FACTS


def test_splits_have_the_published_ids() -> None:
    items = emoji.all_items()
    emoji.check_splits(items, FACTS["splits"])
    assert len({item.id for item in items}) == len(items) == 7782
    assert Counter(item.style for item in items) == {
        "noto": 1370,
        "twemoji": 1366,
        "flat": 1362,
        "3d": 1360,
        "ink": 1304,
        "blob": 1020,
    }


def test_no_held_out_concept_is_in_another_split() -> None:
    by_split = {split: set() for split in emoji.SPLITS}
    for item in emoji.all_items():
        by_split[item.split].add(item.concept.key)
    assert not by_split["test_concept"] & (by_split["train"] | by_split["val"])
    assert len(by_split["test_concept"]) == 88


def test_a_changed_split_is_refused() -> None:
    items = emoji.all_items()
    with pytest.raises(DataError, match="'train'"):
        emoji.check_splits(items[:-1], FACTS["splits"])
    with pytest.raises(DataError):
        emoji.check_splits([*items, items[0]], FACTS["splits"])


# Names


def test_key_examples() -> None:
    assert key_of("0023-FE0F-20E3") == "23-20e3"
    assert key_of("00a9") == "a9"
    assert key_of("1F441-fe0f-200D-1F5E8-FE0F") == "1f441-200d-1f5e8"


@given(st.lists(st.integers(1, 0x1FFFF), min_size=1, max_size=5), st.booleans())
def test_a_key_is_the_key_of_itself_and_of_every_spelling(codes: list[int], upper: bool) -> None:
    plain = "-".join(f"{code:x}" for code in codes if code != 0xFE0F)
    spelled = "-fe0f-".join(f"{code:06x}" for code in codes)
    assert key_of(spelled.upper() if upper else spelled) == plain == key_of(plain)


def test_slug_examples() -> None:
    assert slug("man\u2019s shoe") == slug("man's shoe") == "mans-shoe"
    assert slug("Piñata (old)!") == "pinata-old"
    assert slug("1st place medal") == "1st-place-medal"


def test_icons_take_their_box_from_the_icon_then_from_the_set() -> None:
    icons = {
        "width": 32,
        "height": 24,
        "icons": {"a": {"body": "<g/>"}, "b": {"body": "", "left": 1, "top": 2, "width": 5}},
        "aliases": {"c": {"parent": "d"}, "d": {"parent": "a"}, "x": {"parent": "x"}},
    }
    assert 'viewBox="0 0 32 24" width="32" height="24" color="#000"><g/>' in icon_svg(icons, "a")
    assert 'viewBox="1 2 5 24"' in icon_svg(icons, "b")
    assert icon_svg(icons, "c") == icon_svg(icons, "a")
    for name in ("none", "x"):
        with pytest.raises(KeyError):
            icon_svg(icons, name)


# Packages


def test_packages_are_named_as_npm_names_them() -> None:
    assert STYLES[0].package.file == "discordapp-twemoji-16.0.1.tgz"
    assert STYLES[0].package.spec == "@discordapp/twemoji@16.0.1"


def test_without_npm_there_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MMGEN_CACHE", str(tmp_path / "cache"))
    said = list[str]()
    with pytest.raises(UserError, match=r"npm is needed.*--packages"):
        emoji.build_emoji(tmp_path / "out", say=said.append)
    assert said == ["Fetching @discordapp/twemoji@16.0.1 (package 1 of 6)."]
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a shell script")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'npm ERR! code E404' >&2; exit 1", "could not fetch.*E404"),
        ("exit 3", "exit code 3"),
        ("exit 0", "left no .tgz"),
        ('echo x > "$4/some-thing-1.0.0.tgz"', "not the published"),
    ],
)
def test_a_failing_npm_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("MMGEN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=words):
        obtain(Package("@some/thing", "1.0.0", "0" * 64))


def test_fetched_files_lie_in_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MMGEN_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg/mmgen/packages"
    monkeypatch.setenv("MMGEN_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own/packages"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a shell script")
def test_npm_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words; exit 3\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("MMGEN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError):
        obtain(Package("@some/thing", "1.0.0", "0" * 64))
    words = (tmp_path / "words").read_text().split()
    assert {"--fetch-retries=1", "--fetch-timeout=20000", "--fetch-retry-maxtimeout=2000"} <= set(
        words
    )


def test_a_folder_of_packages_must_hold_the_published_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"npm pack @discordapp/twemoji@16\.0\.1"):
        obtain(STYLES[0].package, tmp_path)
    (tmp_path / STYLES[0].package.file).write_bytes(b"something else")
    with pytest.raises(DataError, match="not the published"):
        obtain(STYLES[0].package, tmp_path)


def test_only_wanted_regular_files_are_read(tmp_path: Path) -> None:
    package = made_package(
        tmp_path, {"package/a.json": b"1", "package/../../b.json": b"2", "package/c.js": b"3"}
    )
    found = read_members(obtain(package, tmp_path), lambda name: name.endswith("a.json"))
    assert found == {"a.json": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == [package.file]


def test_damaged_packages_are_one_error(tmp_path: Path) -> None:
    whole = tgz({"package/a.json": os.urandom(5000)})
    for content in (whole[: len(whole) // 2], b"", b"text", whole[:100] + b"\0" * 900):
        (tmp_path / "x.tgz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_members(tmp_path / "x.tgz", lambda name: True)


def test_a_package_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tgz").write_bytes(tgz({f"package/{i}": bytes(1000) for i in range(9)}))
    for name, limit in (("MEMBER_LIMIT", 999), ("TOTAL_LIMIT", 8999)):
        with monkeypatch.context() as patch:
            patch.setattr(f"mmgen.data.npm.{name}", limit)
            with pytest.raises(DataError, match="far too much"):
                read_members(tmp_path / "x.tgz", lambda name: True)
    assert len(read_members(tmp_path / "x.tgz", lambda name: True)) == 9


def test_a_package_without_icons_or_without_a_drawing_is_one_error(tmp_path: Path) -> None:
    for members in ({}, {"package/icons.json": b"{}"}, {"package/icons.json": b"\xff"}):
        with pytest.raises(DataError, match=r"icons\.json"):
            open_style(Style("noto", made_package(tmp_path, members), "icons"), tmp_path)
    draw = open_style(Style("twemoji", made_package(tmp_path, {}), "svg"), tmp_path)
    with pytest.raises(DataError, match="no drawing for 1f600"):
        draw("1f600", "grinning face")


def test_drawings_that_are_not_square_stand_in_the_middle_on_white(tmp_path: Path) -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 5">'
        '<rect width="10" height="5" fill="#00f"/></svg>'
    )
    package = made_package(tmp_path, {"package/dist/svg/00A9.svg".lower(): svg.encode()})
    picture = open_style(Style("twemoji", package, "svg"), tmp_path)("a9", "copyright")
    assert (picture.size, picture.mode) == ((256, 256), "RGB")
    assert [picture.getpixel((5, y)) for y in (60, 68, 187, 196)] == [
        (255, 255, 255),
        (0, 0, 255),
        (0, 0, 255),
        (255, 255, 255),
    ]


def test_the_right_3d_file_is_chosen_and_put_on_white(tmp_path: Path) -> None:
    members = {}
    for name, colour in [("a9-fe0f", (0, 255, 0, 255)), ("a9", (255, 0, 0, 255))]:
        buffer = io.BytesIO()
        picture = Image.new("RGBA", (256, 264), (0, 0, 0, 0))
        picture.paste(colour, (0, 0, 128, 264))
        for row in range(0, 264, 2):  # stripes at the far right tell the filter
            picture.paste((0, 0, 0, 255), (255, row, 256, row + 1))
        picture.save(buffer, "WEBP", lossless=True)
        members[f"package/assets/{name}.webp"] = buffer.getvalue()
    draw = open_style(Style("3d", made_package(tmp_path, members), "webp"), tmp_path)
    drawn = draw("a9", "copyright")
    assert drawn.size == (256, 256)
    assert [drawn.getpixel((x, 128)) for x in (10, 250)] == [(0, 255, 0), (255, 255, 255)]
    assert any(0 < drawn.getpixel((255, y))[0] < 255 for y in range(256))


# Pixels and shards


@needs_packages
def test_sixty_pictures_have_the_published_pixels() -> None:
    wanted = {item.id: item for item in emoji.all_items() if item.id in FACTS["pixels64"]}
    assert len(wanted) == 60
    for style in STYLES:
        draw = open_style(style, PACKAGES)
        for name, item in wanted.items():
            if item.style == style.word:
                picture = draw(item.concept.key, item.concept.label).reduce(4)
                emoji.check_pixels(name, picture, FACTS["pixels64"][name])


def test_a_picture_that_is_off_is_refused() -> None:
    picture = Image.new("RGB", (64, 64), (10, 20, 30))
    right = {"rgb": [10, 20, 30], "grey4": [20] * 16}
    emoji.check_pixels("a", picture, right)
    emoji.check_pixels("a", picture, {"rgb": [11, 19, 30.9], "grey4": [20.9] * 16})
    picture.paste((255, 255, 255), (48, 0, 64, 16))
    with pytest.raises(DataError, match="picture a is off by"):
        emoji.check_pixels(
            "a", picture, {**right, "rgb": list(picture.resize((1, 1)).getpixel((0, 0)))}
        )
    with pytest.raises(DataError):
        emoji.check_pixels("a", picture, right)


@pytest.fixture
def small_set(monkeypatch: pytest.MonkeyPatch) -> list[emoji.Item]:
    """Shrink the set to every 40th concept, drawn as flat colours."""
    some = [*emoji.concepts()[::40], *(c for c in emoji.concepts() if c.split != "train")][:60]
    monkeypatch.setattr(emoji, "concepts", lambda: some)
    monkeypatch.setattr(emoji, "SHARD_ITEMS", 50)
    items = emoji.all_items()
    facts = {}
    for split in emoji.SPLITS:
        ids = sorted(item.id for item in items if item.split == split)
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        facts[split] = {"count": len(ids), "sha256": digest}
    monkeypatch.setattr(emoji, "published_facts", lambda: {"splits": facts, "pixels64": {}})

    def flat(style: Style, packages: Path | None) -> object:
        return lambda key, label: Image.new("RGB", (256, 256), (len(key), len(label), 9))

    monkeypatch.setattr(emoji, "open_style", flat)
    monkeypatch.setattr(emoji, "obtain_all", lambda *_words: None)
    return items


@pytest.mark.parametrize("size", [32, 64, 256])
def test_shards_are_readable_complete_and_repeatable(
    tmp_path: Path, small_set: list[emoji.Item], size: int
) -> None:
    seen: list[tuple[int, int]] = []
    manifest = emoji.build_emoji(tmp_path / "a", size, progress=lambda *now: seen.append(now))
    assert seen == [(i + 1, len(small_set)) for i in range(len(small_set))]
    assert manifest == emoji.build_emoji(tmp_path / "b", size)
    assert manifest == json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        *manifest["shards"],
        "manifest.json",
        "LICENSES.md",
    }
    by_key = {f"{item.style}_{item.concept.key}": item for item in small_set}
    found = []
    for name, shard in manifest["shards"].items():
        assert sha256_of(tmp_path / "a" / name) == shard["sha256"]
        assert sha256_of(tmp_path / "b" / name) == shard["sha256"]
        source = open_source(tmp_path / "a" / name)
        assert len(source) == shard["count"] <= 50
        for i in range(len(source)):
            sample = source.read(i)
            item = by_key[sample.key]
            assert name.startswith(f"{item.split}-")
            assert "." not in sample.key
            colour = (len(item.concept.key), len(item.concept.label), 9)
            assert sample.image.size == (size, size) and sample.image.getpixel((3, 3)) == colour
            assert any(f"{item.style} style" in caption.text for caption in sample.captions)
            found.append(sample.key)
    assert sorted(found) == sorted(by_key)


def test_a_record_holds_what_was_promised(tmp_path: Path, small_set: list[emoji.Item]) -> None:
    emoji.build_emoji(tmp_path)
    with tarfile.open(tmp_path / "train-0000.tar") as tar:
        names = tar.getnames()
        record = json.load(tar.extractfile(next(n for n in names if n.endswith(".json"))))
    fields = {"id", "key", "style", "phrase", "label", "group", "keywords", "split", "captions"}
    assert set(record) == fields
    assert record["id"] == f"{record['style']}/{record['key']}" and record["split"] == "train"
    assert all(isinstance(text, str) and weight > 0 for text, weight in record["captions"])


def test_a_build_that_stops_while_drawing_leaves_the_old_set(
    tmp_path: Path, small_set: list[emoji.Item]
) -> None:
    emoji.build_emoji(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stop(done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emoji.build_emoji(tmp_path, progress=stop)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_build_that_stops_while_writing_is_not_taken_for_whole_and_can_be_repeated(
    tmp_path: Path, small_set: list[emoji.Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_words: object) -> None:
        raise KeyboardInterrupt

    whole = emoji.build_emoji(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(emoji, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            emoji.build_emoji(tmp_path)
    assert "size" not in json.loads((tmp_path / "manifest.json").read_text())
    assert emoji.build_emoji(tmp_path) == whole


@pytest.mark.parametrize("manifest", [None, "{}", "[1]", "no json", '{"format": "another"}'])
def test_folders_of_other_things_are_refused_and_stay(
    tmp_path: Path, small_set: list[emoji.Item], manifest: str | None
) -> None:
    (tmp_path / "train-0000.tar").write_bytes(b"mine")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not emoji.is_emoji_set(tmp_path)
    with pytest.raises(UserError, match=r"holds something else; .* another place"):
        emoji.build_emoji(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_wrong_sizes_and_places_are_refused(tmp_path: Path) -> None:
    for size in (0, -64, 48, 512):
        with pytest.raises(ConfigError, match="one of 16, 32"):
            emoji.build_emoji(tmp_path, size)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="Cannot write"):
        emoji.build_emoji(tmp_path / "file")


def test_the_notices_name_every_package_and_licence() -> None:
    for style in STYLES:
        assert style.package.name in emoji.NOTICES
    for words in ("CC BY 4.0", "Apache-2.0", "MIT", "Unicode-3.0", "Twitter, Inc."):
        assert words in emoji.NOTICES
