"""Token caches: built once, whole or refused, and epochs that depend on their number alone."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmgen.data.dataset import ImageTextDataset
from mmgen.errors import CheckpointError, DataError, UserError
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import FSQConfig, KLConfig
from mmgen.train import tokens
from mmgen.train.datasets import DataConfig, held_out_pixels, open_train, readable
from mmgen.train.tokens import TokenBatch, TokenDataset, cached_tokens

COUNT = 11
ODD = 'a line\u2028break, \u2029\x85\x0b\x0c\x1c and \\n "quotes" 🦊'


def make_pictures(folder: Path, count: int = COUNT, first: int = 0) -> Path:
    """Pictures of 8x8 pixels, each with two captions of weights 1 and 3."""
    folder.mkdir(parents=True)
    lines = []
    for i in range(first, first + count):
        picture = Image.new("RGB", (8, 8), (20 * i % 256, 255 - 20 * i % 256, 7 * i % 256))
        picture.paste((0, 0, 0), (0, 0, 4, i % 7 + 1))
        picture.save(folder / f"{i:02}.png")
        captions = [[f"picture {i}", 1.0], [f"{ODD} {i}", 3.0]]
        lines.append(json.dumps({"file_name": f"{i:02}.png", "captions": captions}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def make_tokenizer(seed: int = 0) -> ConvTokenizer:
    torch.manual_seed(seed)
    config = ConvTokenizerConfig(
        FSQConfig(levels=(4, 3)), 4, (8,), 1, 1, (), False, z_channels=4, norm_groups=4
    )
    model = ConvTokenizer(config).eval()
    with torch.no_grad():
        model.to_code.weight *= 40  # else all pictures have the same codes
    return model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def vision() -> ConvTokenizer:
    return make_tokenizer()


@pytest.fixture(scope="module")
def built(
    pictures: Path, vision: ConvTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache") / "tokens"
    cached_tokens(vision, ImageTextDataset(pictures, 8), folder)
    yield folder


@pytest.fixture
def cache(built: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(built, tmp_path / "tokens"))


def same(one: list[TokenBatch], two: list[TokenBatch]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(tokens_of(a), tokens_of(b))
        and (a.captions, a.prompts, a.keys) == (b.captions, b.prompts, b.keys)
        for a, b in zip(one, two)
    )


def tokens_of(batch: TokenBatch) -> Tensor:
    tokens = batch.latents if batch.codes is None else batch.codes
    assert tokens is not None
    return tokens


# -- building ----------------------------------------------------------------------------------


def test_a_cache_holds_what_the_tokenizer_says(
    pictures: Path, vision: ConvTokenizer, built: Path
) -> None:
    data = ImageTextDataset(pictures, 8)
    cached = TokenDataset(built, vision.fingerprint)
    assert len(cached) == COUNT and cached.grid == (1, 2, 2)
    assert cached.keys == [f"{i:02}.png" for i in range(COUNT)]
    for i in range(COUNT):
        with torch.no_grad():
            indices = vision.encode(data[i].pixels[None]).indices
        assert indices is not None and torch.equal(cached.indices[i].long(), indices[0])
        assert [(c.text, c.weight) for c in cached.captions[i]] == [
            (f"picture {i}", 1.0),
            (f"{ODD} {i}", 3.0),
        ]
    assert len(cached.indices.flatten(1).unique(dim=0)) > 3


def test_a_cache_is_built_once(
    pictures: Path, vision: ConvTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "tokens"
    data = ImageTextDataset(pictures, 8)
    first = cached_tokens(vision, data, folder, lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, COUNT) for i in range(COUNT)]
    monkeypatch.setattr(ConvTokenizer, "encode", None)  # would fail if it were called
    second = cached_tokens(vision, data, folder)
    assert torch.equal(first.indices, second.indices) and first.captions == second.captions
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tokens"]


def test_several_shards_are_one_cache(
    pictures: Path,
    vision: ConvTokenizer,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "SHARD", 4)
    parts = cached_tokens(vision, ImageTextDataset(pictures, 8), tmp_path / "tokens")
    assert len(list((tmp_path / "tokens").glob("tokens-*.safetensors"))) == 3
    whole = TokenDataset(built, vision.fingerprint)
    assert torch.equal(parts.indices, whole.indices)
    assert (parts.keys, parts.captions) == (whole.keys, whole.captions)


def test_a_failed_build_leaves_nothing(
    pictures: Path, vision: ConvTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(vision, "encode", broken)
    with pytest.raises(ZeroDivisionError):
        cached_tokens(vision, ImageTextDataset(pictures, 8), tmp_path / "tokens")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_is_left_alone(pictures: Path, vision: ConvTokenizer) -> None:
    before = sorted(pictures.iterdir())
    with pytest.raises(CheckpointError, match="holds no tokens; name another folder"):
        cached_tokens(vision, ImageTextDataset(pictures, 8), pictures)
    with pytest.raises(CheckpointError, match="holds no tokens; name another folder"):
        cached_tokens(vision, ImageTextDataset(pictures, 8), pictures / "00.png")
    assert sorted(pictures.iterdir()) == before


def test_an_empty_folder_is_filled(pictures: Path, vision: ConvTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    assert len(cached_tokens(vision, ImageTextDataset(pictures, 8), tmp_path / "tokens")) == COUNT


# -- refusals ----------------------------------------------------------------------------------


def test_tokens_of_another_tokenizer_are_refused(pictures: Path, built: Path) -> None:
    other = make_tokenizer(seed=1)
    with pytest.raises(CheckpointError, match="were made by another tokenizer"):
        cached_tokens(other, ImageTextDataset(pictures, 8), built)


def test_a_better_decoder_keeps_the_tokens(pictures: Path, built: Path) -> None:
    sharper = make_tokenizer()
    with torch.no_grad():
        sharper.decoder.conv_out.weight += 1
    assert len(cached_tokens(sharper, ImageTextDataset(pictures, 8), built)) == COUNT


def test_tokens_of_other_pictures_are_refused(
    vision: ConvTokenizer, pictures: Path, built: Path, tmp_path: Path
) -> None:
    more = make_pictures(tmp_path / "more", COUNT, first=3)
    for dataset in (ImageTextDataset(more, 8), ImageTextDataset(pictures, 4)):
        with pytest.raises(
            CheckpointError, match="were made from other pictures or captions"
        ) as no:
            cached_tokens(vision, dataset, built)
        assert f"; delete the folder {built} to have them made anew" in str(no.value)


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _drop_line(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(lines[1:]), encoding="utf-8")


def _shorten(path: Path) -> None:
    save_file({"indices": load_file(path)["indices"][1:].clone()}, path)


SHARD, LINES, META = "tokens-00000.safetensors", "captions-00000.jsonl", "tokens.json"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (SHARD, _cut),
        (SHARD, Path.unlink),
        (SHARD, _shorten),
        (SHARD, lambda path: save_file({"x": torch.zeros(1)}, path)),
        (LINES, _cut),
        (LINES, Path.unlink),
        (LINES, _drop_line),
        (LINES, lambda path: path.write_text("")),
        (LINES, lambda path: _rewrite(path, '"key"', '"kex"')),
        (LINES, lambda path: path.write_bytes(b"\xff" + path.read_bytes())),
        (META, _cut),
        (META, lambda path: path.write_text("[]")),
        (META, lambda path: _rewrite(path, '"count"', '"cound"')),
        (META, lambda path: _rewrite(path, '"shards": 1', '"shards": 2')),
        (META, lambda path: _rewrite(path, '"shards": 1', '"shards": 0')),
        (META, lambda path: _rewrite(path, '"views": 1', '"views": 0')),
        (META, lambda path: _rewrite(path, f'"count": {COUNT}', '"count": 12')),
    ],
)
def test_a_damaged_cache_is_one_sentence(vision: ConvTokenizer, cache: Path, name, damage) -> None:  # type: ignore[no-untyped-def]
    damage(cache / name)
    with pytest.raises(UserError) as caught:
        TokenDataset(cache, vision.fingerprint)
    assert str(cache) in str(caught.value) and "\n" not in str(caught.value).strip()


def test_too_many_bad_pictures_are_refused(
    vision: ConvTokenizer, pictures: Path, tmp_path: Path
) -> None:
    spoilt = Path(shutil.copytree(pictures, tmp_path / "spoilt"))
    (spoilt / "03.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 bad of the 4 seen of 11 .*'03\.png' .* more than 1%"):
        cached_tokens(vision, ImageTextDataset(spoilt, 8), tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()
    data = ImageTextDataset(spoilt, 8, limit_bad=0.1)
    cached = cached_tokens(vision, data, tmp_path / "tokens")
    assert len(cached) == COUNT - 1 and "03.png" not in cached.keys
    assert list(json.loads((tmp_path / "tokens" / META).read_text())["bad"]) == ["03.png"]


def test_held_out_pictures_in_batches(pictures: Path, tmp_path: Path) -> None:
    data = open_train(DataConfig(str(pictures), image_size=8))
    batches = list(held_out_pixels(data, 4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    expected = torch.stack([data[i].pixels for i in range(COUNT)])
    assert torch.equal(torch.cat(batches), expected)
    spoilt = Path(shutil.copytree(pictures, tmp_path / "spoilt"))
    (spoilt / "03.png").unlink()
    allowing = ImageTextDataset(spoilt, 8, limit_bad=0.5)
    assert [item.key for item in readable(allowing)] == [
        f"{i:02}.png" for i in range(COUNT) if i != 3
    ]
    assert list(allowing.bad) == ["03.png"]
    with pytest.raises(DataError):
        list(held_out_pixels(ImageTextDataset(spoilt, 8), 4))
    for file in spoilt.glob("*.png"):
        file.unlink()
        file.symlink_to("nowhere")
    with pytest.raises(DataError, match="None is left"):
        list(readable(ImageTextDataset(spoilt, 8, limit_bad=1.0)))


# -- epochs ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(0, 2**40), st.integers(0, 12))
def test_resuming_at_any_batch_gives_the_unbroken_stream(
    built: Path, epoch: int, size: int, seed: int, start: int
) -> None:
    cached = TokenDataset(built, make_tokenizer().fingerprint)
    settings_of = {"seed": seed, "drop_caption": 0.3}
    whole = list(cached.epoch(epoch, size, **settings_of))  # type: ignore[arg-type]
    rest = list(cached.epoch(epoch, size, start_batch=start, **settings_of))  # type: ignore[arg-type]
    assert same(rest, whole[start:]) and len(whole) == COUNT // size
    keys = [key for batch in whole for key in batch.keys]
    assert len(set(keys)) == len(keys) == COUNT // size * size


def test_codes_captions_and_keys_stay_together(built: Path, vision: ConvTokenizer) -> None:
    cached = TokenDataset(built, vision.fingerprint)
    for batch in cached.epoch(1, 3, seed=2):
        assert batch.codes is not None and batch.latents is None
        assert batch.codes.dtype == torch.long and batch.codes.shape == (3, 1, 2, 2)
        for codes, caption, key in zip(batch.codes, batch.captions, batch.keys):
            i = int(key[:2])
            assert torch.equal(codes, cached.indices[i].long())
            assert caption in (f"picture {i}", f"{ODD} {i}")


def test_epochs_and_seeds_differ(built: Path, vision: ConvTokenizer) -> None:
    cached = TokenDataset(built, vision.fingerprint)
    runs = [list(cached.epoch(e, 5, seed=seed)) for e, seed in [(0, 0), (1, 0), (0, 1)]]
    orders = [[key for batch in run for key in batch.keys] for run in runs]
    drawn = [{k: c for b in run for k, c in zip(b.keys, b.captions)} for run in runs]
    for i in range(3):
        for j in range(i):
            assert orders[i] != orders[j]
            assert any(drawn[i][key] != drawn[j][key] for key in drawn[i].keys() & drawn[j].keys())


def test_captions_are_drawn_by_weight_and_dropped(built: Path, vision: ConvTokenizer) -> None:
    cached = TokenDataset(built, vision.fingerprint)
    drawn: Counter[str] = Counter()
    for epoch in range(60):
        for batch in cached.epoch(epoch, COUNT, seed=0, drop_caption=0.2):
            drawn.update(caption and caption[:2] for caption in batch.prompts)
            assert all(batch.captions)  # what is dropped for guidance is still the caption
    share = {start: count / drawn.total() for start, count in drawn.items()}
    assert abs(share[""] - 0.2) < 0.05
    assert abs(share["a "] - 0.6) < 0.06 and abs(share["pi"] - 0.2) < 0.05
    kept = [c for batch in cached.epoch(0, COUNT, seed=0) for c in batch.prompts]
    assert all(kept)


def test_batches_larger_than_the_data_are_refused(built: Path, vision: ConvTokenizer) -> None:
    cached = TokenDataset(built, vision.fingerprint)
    with pytest.raises(DataError, match="There are 11 pictures, fewer than one batch of 12"):
        next(cached.epoch(0, 12, seed=0))


# -- latents -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def continuous() -> ConvTokenizer:
    torch.manual_seed(0)
    bottleneck = KLConfig(channels=3, scale=0.5)
    config = ConvTokenizerConfig(bottleneck, 4, (8,), 1, 1, (), False, z_channels=4, norm_groups=4)
    return ConvTokenizer(config).eval()


@pytest.fixture(scope="module")
def latents(
    pictures: Path, continuous: ConvTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "latents"
    cached_tokens(continuous, ImageTextDataset(pictures, 8), folder)
    return folder


def test_a_cache_of_latents_holds_means_and_deviations(
    pictures: Path, continuous: ConvTokenizer, latents: Path
) -> None:
    data = ImageTextDataset(pictures, 8)
    cached = TokenDataset(latents, continuous.fingerprint)
    assert cached.continuous and cached.grid == (1, 2, 2) and len(cached) == COUNT
    for batch in cached.epoch(1, 3, seed=2):
        assert batch.codes is None and batch.latents is not None
        assert batch.latents.dtype == torch.float32 and batch.latents.shape == (3, 1, 2, 2, 3)
        pixels = torch.stack([data[int(key[:2])].pixels for key in batch.keys])
        with torch.no_grad():
            wanted = continuous.encode(pixels).latents
        torch.testing.assert_close(batch.latents, wanted, atol=1e-3, rtol=1e-3)


def test_samples_are_draws_of_the_posterior(
    pictures: Path, continuous: ConvTokenizer, latents: Path
) -> None:
    cached = TokenDataset(latents, continuous.fingerprint)
    drawn: dict[str, list[Tensor]] = {}
    for epoch in range(300):
        for batch in cached.epoch(epoch, COUNT, seed=0, sampled=True):
            for key, latent in zip(batch.keys, tokens_of(batch)):
                drawn.setdefault(key, []).append(latent)
    for item in readable(ImageTextDataset(pictures, 8)):
        samples = torch.stack(drawn[item.key])
        with torch.no_grad():
            codes = continuous.encode(item.pixels[None])
        assert codes.latents is not None and codes.deviations is not None
        off = (samples - codes.latents[0]) / codes.deviations[0]
        assert off.mean(0).abs().max() < 0.35 and (off.std(0) - 1).abs().max() < 0.25
        assert abs(float(off.mean())) < 0.06 and abs(float(off.std()) - 1) < 0.04


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(0, 2**62), st.integers(0, 12))
def test_a_draw_depends_on_its_epoch_and_index_alone(
    latents: Path, continuous: ConvTokenizer, epoch: int, size: int, seed: int, start: int
) -> None:
    cached = TokenDataset(latents, continuous.fingerprint)
    whole = list(cached.epoch(epoch, size, seed=seed, sampled=True))
    assert same(
        list(cached.epoch(epoch, size, seed=seed, sampled=True, start_batch=start)), whole[start:]
    )
    by_key = {key: latent for batch in whole for key, latent in zip(batch.keys, tokens_of(batch))}
    for batch in cached.epoch(epoch, 4, seed=seed, sampled=True):  # in other batches
        for key, latent in zip(batch.keys, tokens_of(batch)):
            assert key not in by_key or torch.equal(latent, by_key[key])
    later = next(cached.epoch(epoch + 1, COUNT, seed=seed, sampled=True))
    for key, latent in zip(later.keys, tokens_of(later)):
        assert key not in by_key or not torch.equal(latent, by_key[key])


def test_a_cache_of_half_a_posterior_is_damaged(
    continuous: ConvTokenizer, latents: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(latents, tmp_path / "latents"))
    shard = load_file(place / SHARD)
    save_file({"latents": shard["latents"]}, place / SHARD)
    with pytest.raises(CheckpointError, match="is damaged"):
        TokenDataset(place, continuous.fingerprint)
    save_file({**shard, "deviations": shard["deviations"][1:].clone()}, place / SHARD)
    with pytest.raises(CheckpointError, match="is damaged"):
        TokenDataset(place, continuous.fingerprint)
