"""What `mmgen show` knows, against the networks themselves and the catalogue."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_drawing import conditional_pipeline
from tiny_pipeline import tiny_pipeline

from mmgen.errors import UserError
from mmgen.pipeline import Pipeline
from mmgen.published import fetching, hub, importing
from mmgen.published.catalogue import cards
from mmgen.showing import parameters, show


def test_the_shipped_pipeline_is_told_as_it_is() -> None:
    told, pipe = show("emoji-64"), Pipeline.from_pretrained("emoji-64")
    config = pipe.transformer.config
    assert told["grid"] == f"1 x 8 x 8 of {config.codebook_size} codes"
    assert [line.split()[0] for line in told["units"]] == [unit.name for unit in config.units]
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
    with pytest.raises(UserError, match="`mmgen models` lists them"):
        show("zzzzzz")


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
    monkeypatch.setenv(fetching.CACHE, str(tmp_path / "cache"))
    for _ in range(2):
        pipe = Pipeline.from_pretrained("llamagen/c2i_B_256")
        assert pipe(class_labels=1, seed=0, output_type="codes").codes.shape[0] == 1
    assert fetched == [("llamagen", "c2i_B_256")]
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match="did you mean 'c2i_B_256'"):
        Pipeline.from_pretrained("llamagen/c2i_B_25")
