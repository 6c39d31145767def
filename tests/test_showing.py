"""What `mmgen show` knows, against the networks themselves and the catalogue."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_drawing import conditional_pipeline
from tiny_pipeline import tiny_pipeline

from mmgen.errors import UserError
from mmgen.files import CACHE
from mmgen.pipeline import Pipeline
from mmgen.pipeline_folder import (
    find_pipeline,
    locate_pipeline,
    shipped_tokenizers,
    tokenizer_folder,
)
from mmgen.published import fetching, hub, importing
from mmgen.published.catalogue import Card, cards
from mmgen.showing import parameters, shipped_cards, show, stored_bytes


def test_the_shipped_pipeline_is_told_as_it_is() -> None:
    told, pipe = show("emoji-64"), Pipeline.from_pretrained("emoji-64")
    config = pipe.transformer.config
    assert told["grid"] == f"1 x 8 x 8 of {config.codebook_size} codes"
    assert told["units"] == {
        unit.name: {"order": unit.order, "prediction": unit.prediction} for unit in config.units
    }
    for part in ("vision", "transformer"):
        held = getattr(pipe, part).state_dict().values()
        assert told["weights"][part] == sum(tensor.numel() for tensor in held)
    assert told["task"] == "text-to-image, image-to-text" and "Apache-2.0" in told["licence"]
    assert 0 <= told["figures"]["train"]["concept top-1"] <= 1


def test_folders_are_told_by_what_they_read(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "own")
    conditional_pipeline().save_pretrained(tmp_path / "classes")
    assert show(str(tmp_path / "own"))["task"] == "text-to-image, image-to-text"
    assert show(str(tmp_path / "classes"))["task"] == "class-to-image"
    assert show(str(tmp_path / "own"))["figures"] == {}


@pytest.mark.parametrize("kept", [0, 7, 40])
def test_damaged_weights_are_one_sentence(kept: int, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    file = tmp_path / "tiny/vision/model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="missing or damaged; copy the folder again"):
        show(str(tmp_path / "tiny"))
    with pytest.raises(UserError, match="missing or damaged"):
        parameters(tmp_path / "nothing")


def test_every_published_name_is_told_once() -> None:
    for card in cards():
        assert show(f"{card.system}/{card.name}")["import"] == card.import_line
    assert show("vq_ds8_c2i")["name"] == "llamagen/vq_ds8_c2i"
    with pytest.raises(UserError, match="did you mean 'llamagen/vq_ds8_c2i'"):
        show("vq_ds8_c2")
    with pytest.raises(UserError, match="is a system of several models; `mmgen models llamagen`"):
        show("llamagen")
    with pytest.raises(UserError, match="`mmgen models` lists them"):
        show("zzzzzz")


def test_only_what_draws_is_downloaded_as_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def folder(card: Card) -> Path:
        asked.append(card.name)
        raise UserError("no network")

    monkeypatch.setattr(fetching, "published_folder", folder)
    for card in cards():
        name = f"{card.system}/{card.name}"
        said = "cannot draw; use it with `mmgen tokenizer" if card.is_tokenizer else "no network"
        with pytest.raises(UserError, match=said):
            Pipeline.from_pretrained(name)
        assert (locate_pipeline(name) if not card.is_tokenizer else card) == card
    assert asked == [card.name for card in cards() if not card.is_tokenizer]
    with pytest.raises(UserError, match="no network"):  # a tokenizer is found as what it is
        tokenizer_folder("llamagen/vq_ds8_c2i")
    with pytest.raises(UserError, match=r"'ucf-base'; did you mean 'nbp/ucf-base'\?$"):
        Pipeline.from_pretrained("ucf-base")
    with pytest.raises(UserError, match="did you mean 'ibq/AR_256_B' or 'open-magvit2/AR_256_B'"):
        Pipeline.from_pretrained("AR_256_B")


def test_sizes_of_shipped_pipelines_are_those_of_their_files() -> None:
    for card in shipped_cards():
        tokenizer = card.name in shipped_tokenizers()
        folder = tokenizer_folder(card.name) if tokenizer else find_pipeline(card.name)
        stored = sum(path.stat().st_size for path in folder.rglob("model.safetensors"))
        assert card.megabytes is not None and abs(card.megabytes - stored / 1e6) < 1


def test_stored_bytes_follow_the_type(tmp_path: Path) -> None:
    pipe = tiny_pipeline()
    for dtype, width in ((torch.float32, 4), (torch.float16, 2)):
        pipe.save_pretrained(tmp_path / str(width), dtype)
        file = tmp_path / str(width) / "transformer/model.safetensors"
        assert stored_bytes(file) == width * parameters(file)


def test_a_published_name_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, str]] = []

    def download(system: str, name: str) -> list[Path]:
        fetched.append((system, name))
        return [tmp_path / "weights.pt"]

    def import_files(system: str, files: list[str], options: object, out: Path) -> list[str]:
        assert files == [str(tmp_path / "weights.pt")] and not options
        conditional_pipeline().save_pretrained(out)
        return []

    monkeypatch.setattr(hub, "download", download)
    monkeypatch.setattr(importing, "import_files", import_files)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    for _ in range(2):
        pipe = Pipeline.from_pretrained("llamagen/c2i_B_256")
        assert pipe(class_labels=1, seed=0, output_type="codes").codes.shape[0] == 1
    assert fetched == [("llamagen", "c2i_B_256")]
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match="did you mean 'c2i_B_256'"):
        Pipeline.from_pretrained("llamagen/c2i_B_25")
