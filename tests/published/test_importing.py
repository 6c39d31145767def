"""From official files to a pipeline folder, on systems that do not exist."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_systems import PARTS, Official, generator, official_weights, save, tokenizer
from safetensors.torch import save_file
from small_cases import small_case

from mmgen.components import load_component
from mmgen.errors import CheckpointError, ConfigError, UserError
from mmgen.files import sha256_of
from mmgen.pipeline import Pipeline
from mmgen.pipeline_folder import read_info
from mmgen.published import catalogue, importing
from mmgen.published.catalogue import tokenizers_for
from mmgen.published.importing import import_files
from mmgen.published.options import official
from mmgen.published.systems import Converted, Part
from mmgen.tokenizers_vis.quantizers import FSQConfig


@pytest.fixture
def vq(tmp_path: Path) -> Path:
    return save(tmp_path / "vq.pt", {"model": official_weights()})


@pytest.fixture
def gpt(tmp_path: Path) -> Path:
    content = {"ema": official_weights("gpt."), "args": argparse.Namespace(ch=8)}
    return save(tmp_path / "gpt.pt", content)


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    weights = official_weights("")
    core = {f"core.{k}": v for k, v in weights.items() if not k.startswith("decoder")}
    head = {k: v for k, v in weights.items() if k.startswith("decoder")}
    save_file(head, tmp_path / "head.safetensors")
    return [save(tmp_path / "core.pth", {"model": core}), tmp_path / "head.safetensors"]


def run(system: str, files: list[Path], out: Path, **options: Any) -> list[str]:
    return import_files(system, files, options, out, known=PARTS)


def refused(system: str, files: list[Path], out: Path, **options: Any) -> str:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        run(system, files, out, **options)
    assert sorted(out.parent.rglob("*")) == before, "something was written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same_as_official(folder: Path) -> bool:
    made = generator() if folder.name == "transformer" else tokenizer()
    ours, expected = load_component(folder).state_dict(), made.state_dict()
    return all(torch.equal(ours[name], expected[name]) for name in expected)


def test_a_tokenizer_alone_becomes_a_folder(vq: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "apple"
    said = run("apple", [vq], out, ch=8, dropout=0.1)
    assert said == [
        "vision: VQ tokenizer of apple, 9123 parameters, from vq.pt (a tiny one)".replace(
            "9123", str(sum(p.numel() for p in tokenizer().parameters()))
        ),
        "licence: MIT (somebody/apple)",
        f"written: {out}",
    ]
    assert same_as_official(out / "vision")
    info = read_info(out)
    assert (info.name, info.image_size, info.licence) == ("apple", 16, "MIT (somebody/apple)")
    (source,) = info.sources
    assert (source.component, source.system, source.file) == ("vision", "apple", "vq.pt")
    assert source.sha256 == sha256_of(vq) and source.notes == ("a tiny one",)
    assert sorted(path.name for path in out.parent.iterdir()) == ["apple"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_is_filled(vq: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run("apple", [vq], tmp_path / "out")
    assert same_as_official(tmp_path / "out" / "vision")


@pytest.mark.parametrize("turned", [False, True])
def test_files_of_several_components_make_one_pipeline(
    turned: bool, vq: Path, gpt: Path, tmp_path: Path
) -> None:
    files = [gpt, vq] if turned else [vq, gpt]
    said = run("apple", files, tmp_path / "out", vision={"groups": 4}, transformer={"ch": 8})
    assert "from gpt.pt (EMA weights (ema); a tiny one)" in said[1]
    info = read_info(tmp_path / "out")
    # What draws decides on size and settings.
    assert (info.image_size, info.sampling.guidance_scale) == (24, 2.0)
    assert [source.component for source in info.sources] == ["vision", "transformer"]
    assert same_as_official(tmp_path / "out" / "transformer")


def test_files_of_one_component_are_joined(two: list[Path], tmp_path: Path) -> None:
    for order in (two, two[::-1]):
        out = tmp_path / order[0].stem
        run("pear", order, out)
        assert same_as_official(out / "vision")
        (source,) = read_info(out).sources
        assert source.file == f"{order[0].name} + {order[1].name}"
        assert source.sha256 == f"{sha256_of(order[0])} + {sha256_of(order[1])}"


def test_a_share_alone_is_not_enough(two: list[Path], tmp_path: Path) -> None:
    said = refused("pear", two[:1], tmp_path / "out")
    assert said == (
        f"{two[0]} is only a share of the two-piece tokenizer of pear; also give the file of its "
        "head."
    )


def test_a_file_of_another_system_is_named(vq: Path, two: list[Path], tmp_path: Path) -> None:
    said = refused("pear", [vq], tmp_path / "out")
    assert said == (
        f"{vq} is not of pear: it is the VQ tokenizer of apple; write `mmgen import apple`."
    )
    assert str(vq) in refused("pear", [*two, vq], tmp_path / "out")


def test_companions_come_along(
    gpt: Path, two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.COMPANIONS, "apple", ("pear",))
    run("apple", [*two, gpt], tmp_path / "out")
    assert {s.system for s in read_info(tmp_path / "out").sources} == {"apple", "pear"}
    # Alone they are still of another system.
    assert "share of" in refused("pear", two[:1], tmp_path / "alone")
    assert "is none of apple's files" in refused("apple", two, tmp_path / "alone")


def test_a_file_of_nobody_is_described(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pt", {"q": torch.ones(1), "r": torch.ones(1)})
    said = refused("apple", [path], tmp_path / "out")
    assert said == (
        f"{path} is none of apple's files (VQ tokenizer, generator): it holds 'q', 'r'."
    )
    path = save(tmp_path / "x.pt", {"a\n\x1b[31mred": torch.ones(1)})
    assert refused("apple", [path], tmp_path / "out").isprintable()


def test_the_same_part_twice_is_refused(vq: Path, tmp_path: Path) -> None:
    again = save(tmp_path / "again.pt", official_weights())
    said = refused("apple", [vq, again], tmp_path / "out")
    assert said == f"{vq} and {again} are both the VQ tokenizer of apple; give one."


def test_a_component_in_a_file_of_its_own_goes_first(vq: Path, tmp_path: Path) -> None:
    within = replace(PARTS[0], name="inner tokenizer", embedded=True)
    within = replace(within, recognise=lambda shapes: any(k.startswith("gpt.") for k in shapes))
    both = save(tmp_path / "both.pt", official_weights("gpt."))
    known = (within, *PARTS[:2])
    import_files("apple", [vq, both], {}, tmp_path / "out", known)
    parts = [source.part for source in read_info(tmp_path / "out").sources]
    assert parts == ["VQ tokenizer", "generator"]


def test_twins_are_refused(vq: Path, tmp_path: Path) -> None:
    known = (PARTS[0], replace(PARTS[0], name="another"))
    with pytest.raises(UserError, match="both become vision; give one"):
        import_files("apple", [vq], {}, tmp_path / "out", known)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chh": 8}, "has no option 'chh'; did you mean 'ch'?"),
        ({"ch": "wide"}, "ch must be of type int, not 'wide'."),
        ({"ch": 16}, "check the configuration."),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], said: str, vq: Path, tmp_path: Path
) -> None:
    assert said in refused("apple", [vq], tmp_path / "out", **options)


def test_options_say_whose_they_are(vq: Path, gpt: Path, tmp_path: Path) -> None:
    # One component needs no name, and may have it.
    run("apple", [vq], tmp_path / "a", ch=8)
    run("apple", [vq], tmp_path / "b", vision={"ch": 8})
    # Of several components, those that know an option get it.
    assert "assumed" in "\n".join(run("apple", [vq, gpt], tmp_path / "c", ch=8))
    said = run("apple", [vq, gpt], tmp_path / "d", rope_base=50.0, dropout=0.1, vision={"ch": 8})
    assert not any(line.startswith("assumed") for line in said)
    refusal = refused("apple", [vq, gpt], tmp_path / "out", ch=8, rope_bas=50.0)
    assert refusal == (f"{vq} and {gpt} have no option 'rope_bas'; did you mean 'rope_base'?")
    # Said of one component, it is that one's.
    refusal = refused("apple", [vq, gpt], tmp_path / "out", vision={"rope_base": 50.0})
    assert refusal.startswith(f"{vq} has no option 'rope_base'")
    assert "check the configuration" in refused("apple", [vq, gpt], tmp_path / "out", ch=16)


def test_pieces_that_were_not_made_for_each_other_are_refused(gpt: Path, tmp_path: Path) -> None:
    changes = {"quantizer": FSQConfig(levels=(4, 4, 4))}
    said = "64 codes, but the transformer was trained on 48"
    weights = {f"vq.{key}": tensor for key, tensor in tokenizer(**changes).state_dict().items()}
    other = save(tmp_path / "other.pt", weights)
    known = (_tokenizer_with(changes), *PARTS[1:])
    with pytest.raises(CheckpointError) as caught:
        import_files("apple", [other, gpt], {}, tmp_path / "out", known)
    assert str(caught.value) == (
        f"{other} is not the tokenizer of {gpt} ({said}); give the one that it was trained with."
    )
    assert not (tmp_path / "out").exists()


def test_the_grid_and_the_tokenizer_make_the_size(gpt: Path, tmp_path: Path) -> None:
    changes = {"patch_size": 8}
    weights = {f"vq.{key}": tensor for key, tensor in tokenizer(**changes).state_dict().items()}
    other, known = save(tmp_path / "other.pt", weights), (_tokenizer_with(changes), *PARTS[1:])
    import_files("apple", [other, gpt], {}, tmp_path / "out", known)
    assert read_info(tmp_path / "out").image_size == 48  # not what the transformer would assume


def test_a_stated_size_is_held_against_the_tokenizer(gpt: Path, tmp_path: Path) -> None:
    """VQ-8 and VQ-16 have one codebook: the stride alone tells them apart."""
    changes = {"patch_size": 8}
    weights = {f"vq.{key}": tensor for key, tensor in tokenizer(**changes).state_dict().items()}
    other = save(tmp_path / "other.pt", weights)
    generator = PARTS[1]

    def convert(tensors: Any, options: Any, where: str) -> Converted:
        return replace(generator.convert(tensors, options, where), size_by="as its name says")

    known = (_tokenizer_with(changes), replace(generator, convert=convert), *PARTS[2:])
    with pytest.raises(CheckpointError, match="would make 48 pixels a side there, not 24"):
        import_files("apple", [other, gpt], {}, tmp_path / "out", known)
    assert not (tmp_path / "out").exists()


def _tokenizer_with(changes: dict[str, Any]) -> Part:
    def convert(tensors: Any, options: Any, where: str) -> Converted:
        network = tokenizer(**changes)
        return Converted("vision", network, 16)

    return replace(PARTS[0], convert=convert)


def test_a_name_that_nobody_knows_is_refused_before_sizes_are_judged(
    vq: Path, gpt: Path, tmp_path: Path
) -> None:
    def convert(tensors: Any, options: Any, where: str) -> Converted:
        official(Official, options, where)
        raise CheckpointError("sizes that make no network")

    known = (replace(PARTS[0], convert=convert), *PARTS[1:])
    with pytest.raises(ConfigError, match="no option 'groupz'; did you mean 'groups'"):
        import_files("apple", [vq, gpt], {"groupz": 4}, tmp_path / "out", known)


def test_what_was_assumed_is_said_and_kept(gpt: Path, tmp_path: Path) -> None:
    said = run("apple", [gpt], tmp_path / "out")
    assert "assumed, since gpt.pt does not tell: rope_base=100.0 (KEY=VALUE says another)" in said
    assert "assumed rope_base=100.0" in read_info(tmp_path / "out").sources[0].notes
    said = run("apple", [gpt], tmp_path / "told", rope_base=100)
    assert not any(line.startswith("assumed") for line in said)


def test_a_generator_alone_names_its_tokenizer(
    gpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("apple", [gpt], tmp_path / "out")[-1] == (
        "It cannot draw yet: import it again together with its visual tokenizer, into another "
        "place or once this one is removed."
    )
    monkeypatch.setattr(importing, "tokenizers_for", lambda *_: tokenizers_for("xar", []))
    assert run("apple", [gpt], tmp_path / "again")[-1] == (
        "It cannot draw yet: import it again together with kl16.safetensors of jadechoghari/mar, "
        "into another place or once this one is removed."
    )


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        weights = official_weights()
        weights["vq.decoder.conv_in.weight"].view(-1)[3] = value
        said = refused("apple", [save(tmp_path / "x.pt", weights)], tmp_path / "out")
        assert "holds 'vq.decoder.conv_in.weight' with values that are not finite" in said


def test_what_a_checkpoint_records_counts_unless_said_otherwise(tmp_path: Path) -> None:
    content = {"model": official_weights("gpt."), "args": argparse.Namespace(ch=16)}
    path = save(tmp_path / "x.pt", content)
    assert "check the configuration" in refused("apple", [path], tmp_path / "out")
    run("apple", [path], tmp_path / "out", ch=8)


def test_wrong_systems_and_places_are_refused(vq: Path, tmp_path: Path) -> None:
    assert "did you mean 'apple'?" in refused("aple", [vq], tmp_path / "out")
    assert "already exists" in refused("apple", [vq], vq)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "already exists" in refused("apple", [vq], tmp_path / "full")
    assert "Cannot write" in refused("apple", [vq], vq / "in-a-file")


def test_nothing_is_left_of_an_import_that_fails_at_the_end(
    vq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    said = refused("apple", [vq], tmp_path / "out")
    assert "Cannot write" in said and "No space left on device" in said


def test_a_pipeline_that_cannot_draw_says_so(vq: Path, tmp_path: Path) -> None:
    run("apple", [vq], tmp_path / "out")
    with pytest.raises(UserError, match="of only vision cannot draw"):
        Pipeline.from_pretrained(tmp_path / "out")


def test_sources_survive_saving(vq: Path, tmp_path: Path) -> None:
    run("apple", [vq], tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "pipeline.json").read_text())
    assert stored["sources"][0]["notes"] == ["a tiny one"]


def test_an_unnamed_option_of_a_mapping_is_not_a_component(vq: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no option 'visoin'"):
        run("apple", [vq], tmp_path / "out", visoin={"ch": 8})


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("nbp-ntp-tiny", {"latent_grid": [2, 3, 3]}, 24),  # 8 pixels a token
        ("nbp-ntp-tiny", {}, 128),  # as published
        ("larp-tokenizer-tiny", {}, 16),
        ("llamagen-c2i-tiny", {}, 64),  # 16 pixels a token
    ],
)
def test_the_size_of_pictures_is_that_of_their_tokens(
    name: str, options: dict[str, Any], size: int, tmp_path: Path
) -> None:
    case = small_case(name)
    path = tmp_path / "x.safetensors"
    save_file(case.checkpoint.tensors, path)
    import_files(case.system, [path], {**case.config, **options}, tmp_path / "out")
    assert read_info(tmp_path / "out").image_size == size


def test_a_clip_has_the_size_that_its_tokenizer_makes_of_its_grid() -> None:
    video, drawing = Converted("vision", tokenizer(), 16), generator()
    drawing.config = replace(drawing.config, grid=(2, 5, 5))
    drawn = Converted("transformer", drawing)
    assert importing._image_size([video, drawn]) == 20
