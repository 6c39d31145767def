"""`mmgen import` and `mmgen models`: what they say, what they refuse, what they load."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fake_systems import PARTS, Evil, official_weights, save
from one_sentence import assert_one_sentence
from safetensors.torch import save_file
from typer.testing import CliRunner

from mmgen.errors import UserError

if TYPE_CHECKING:
    from conftest import Commands

HEAVY = {"torch", "numpy", "PIL", "yaml", "huggingface_hub"}


def test_models_is_quick_and_loads_nothing_heavy(python: Any, tmp_path: Path) -> None:
    done = python("-X", "importtime", "-m", "mmgen", "models", "--task", "tokenizer", cwd=tmp_path)
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert done.code == 0 and not loaded & HEAVY
    heading, first, *_ = done.out.splitlines()
    assert heading.split("  ")[0] == "system" and heading.rstrip().endswith("note")
    words = ["llamagen", "vq_ds16_c2i", "tokenizer", "288", "MB", "MIT"]
    assert first.split() == words
    assert "c2i_L_384" not in done.out


def test_models_as_json(mmgen: Commands, tmp_path: Path) -> None:
    done = mmgen("models", "--json", cwd=tmp_path)
    cards = {(card["system"], card["name"]): card for card in json.loads(done.out)}
    card = cards["llamagen", "c2i_L_384"]
    assert card["files"] == ["c2i_L_384.pt"] and card["tokenizer"] == "vq_ds16_c2i"
    assert card["import"].startswith("mmgen import llamagen --from-hub c2i_L_384")
    done = mmgen("models", "--task", "class-to-imag", cwd=tmp_path)
    assert_one_sentence(done, "no task 'class-to-imag'; did you mean 'class-to-image'?")


def test_models_of_one_system(mmgen: Commands, tmp_path: Path) -> None:
    lines = mmgen("models", "seed", cwd=tmp_path).out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["seed", "tokenizer-v2"],
        ["seed", "tokenizer-v1"],
    ]
    assert lines[1].split()[-1] == "1"
    table = mmgen("models", cwd=tmp_path).out.splitlines()
    assert table[0].startswith("system  ") and max(map(len, table)) <= 80
    card = json.loads(mmgen("show", "seed/tokenizer-v2", "--json", cwd=tmp_path).out)
    assert "eva_vit_g.pth" in card["goes_with"] and card["megabytes"] == 1230
    own = json.loads(mmgen("show", "emoji-64", "--json", cwd=tmp_path).out)
    assert own["units"]["block"] == {"order": "row:1", "prediction": "shift"}
    assert "concept_top-1" in own["figures"]["train"]
    assert mmgen("show", "llamagen", cwd=tmp_path).code == 2
    assert "note 1: eva_vit_g.pth: of LAVIS, BLIP-2" in lines
    both = mmgen("models", "xar", "--task", "class-to-image", "--json", cwd=tmp_path)
    assert [card["name"] for card in json.loads(both.out)] == ["xAR-B", "xAR-L", "xAR-H"]
    done = mmgen("models", "sed", cwd=tmp_path)
    assert_one_sentence(done, "no published system 'sed'; did you mean 'seed'?")
    done = mmgen("models", "xar", "--task", "tokenizer", cwd=tmp_path)
    assert_one_sentence(done, "Nothing of xar is for tokenizer; its tasks are: class-to-image.")


CASE = Path(__file__).resolve().parents[1] / "goldens" / "llamagen-c2i-tiny"


def test_a_whole_reference_case_may_be_the_configuration(mmgen: Commands, tmp_path: Path) -> None:
    words = ("import", "llamagen", CASE / "weights.safetensors", "--config", CASE / "case.json")
    done = mmgen(*words, "-o", "out", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == (
        "It cannot draw yet: import it again together with vq_ds16_c2i.pt of "
        "FoundationVision/LlamaGen, into another place or once this one is removed."
    )
    said = mmgen("sample", "--model", "out", "--class", "1", cwd=tmp_path)
    assert_one_sentence(said, "of only transformer cannot draw")
    (tmp_path / "c.json").write_text('{"system": "llamagen", "config": 3}')
    done = mmgen(*words[:3], "--config", "c.json", "-o", "no", cwd=tmp_path)
    assert_one_sentence(done, "c.json must hold a mapping of option names to values")


def test_a_checkpoint_is_no_pipeline(mmgen: Commands, tmp_path: Path) -> None:
    (tmp_path / "x.pt").touch()
    done = mmgen("sample", "--model", "x.pt", "--class", "1", cwd=tmp_path)
    assert_one_sentence(done, "x.pt is a file", "`mmgen import SYSTEM x.pt --out FOLDER`")


def _evil(path: Path) -> None:
    save(path, {"model": {"w": torch.ones(1)}, "x": Evil()})


def _cut(path: Path) -> None:
    save(path, {"w": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:500])


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no pickle")


def _broken_header(path: Path) -> None:
    path.write_bytes((50).to_bytes(8, "little") + b"{not json" + b" " * 100)


FILES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("evil.pt", _evil, "evil.pt asks for code that is not run ('posix.system')"),
    ("cut.pt", _cut, "cut.pt is damaged or no checkpoint"),
    ("cut.safetensors", lambda path: path.write_bytes(b"123"), "cut.safetensors is damaged ("),
    ("folder", Path.mkdir, "folder is a folder; give the checkpoint file"),
    ("empty.pt", Path.touch, "empty.pt is empty"),
    ("missing.pt", lambda path: None, "There is no file missing.pt"),
    ("text.pt", lambda path: path.write_text("some text"), "text.pt is damaged or no checkpoint"),
    ("other.pt", _zip, "other.pt is damaged or no checkpoint"),
    ("head.safetensors", _broken_header, "head.safetensors is damaged ("),
    ("strange.safetensors", lambda p: save_file({"w": torch.ones(1)}, p), "it holds 'w'"),
]


@pytest.mark.parametrize(("name", "make", "said"), FILES)
def test_a_file_is_refused(
    name: str, make: Callable[[Path], Any], said: str, mmgen: Commands, tmp_path: Path
) -> None:
    make(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    done = mmgen("import", "llamagen", name, "--out", "new/pipeline", cwd=tmp_path)
    assert_one_sentence(done, said)
    assert sorted(tmp_path.rglob("*")) == before


MISTAKES = [
    (("lamagen", "x.pt", "-o", "out"), "no published system 'lamagen'; did you mean 'llamagen'?"),
    (("llamagen", "x.pt"), "with --out FOLDER"),
    (("llamagen", "-o", "out"), "Give the files to import, or --from-hub NAME"),
    (("llamagen", "dim=8", "-o", "out"), "Give the files to import"),
    (("llamagen", "x.pt", "-o", "a-file"), "a-file already exists"),
    (("llamagen", "x.pt", "-o", "."), ". already exists"),
    (("llamagen", "x.pt", "-o", "a-file/out"), "a-file is a file, not a folder"),
    (("llamagen", "x.pt", "-o", "out", "--config", "c.json"), "no file c.json"),
    (("llamagen", "x.pt", "-o", "out", "--config", "a-file"), "a-file is not valid JSON"),
    (("llamagen", "x.pt", "-o", "out", "=3"), "'=3' is not an override; write key=value"),
    (("llamagen", "x.pt", "-o", "out", "a=[1"), "the value of 'a=[1'"),
    (("llamagen", "x.pt", "-o", "out", "a=" + "1" * 500), "no file x.pt"),
    (("llamagen", "--from-hub", "c2i", "-o", "out"), "no published 'c2i' of llamagen"),
    (("kl16", "--from-hub", "kl16", "-o", "out"), "kl16 does not lie on the hub"),
    (("llamagen", "--from-hub", "c2i_B_256", "-o", "out"), "The hub does not give Foundation"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES)
def test_import_refuses(words: tuple[str, ...], said: str, mmgen: Commands, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    assert_one_sentence(mmgen("import", *words, cwd=tmp_path), said)
    assert [path.name for path in tmp_path.rglob("*")] == ["a-file"]


def test_a_taken_place_is_refused_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmgen.cli import app
    from mmgen.published import hub

    monkeypatch.setattr(hub, "download", lambda *_: pytest.fail("downloaded"))
    words = ["import", "llamagen", "--from-hub", "c2i_B_256", "-o", str(tmp_path)]
    (tmp_path / "here").touch()
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UserError)
    assert (
        str(done.exception)
        == f"{tmp_path} already exists; choose another place, or remove it first."
    )


def test_a_tokenizer_is_imported_and_checked(
    mmgen: Commands, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmgen.cli import app
    from mmgen.published import catalogue, importing

    monkeypatch.setattr(catalogue, "SYSTEMS", ("apple",))
    monkeypatch.setattr(importing, "SYSTEMS", ("apple",))
    monkeypatch.setattr(importing, "parts", lambda: PARTS)
    file, config, out = (tmp_path / name for name in ("vq.pt", "config.json", "out"))
    save(file, {"model": official_weights()})
    config.write_text('{"ch": 16}')
    words = ["import", "apple", str(file), "ch=8", "--config", str(config), "-o", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0].startswith("vision: VQ tokenizer of apple, ")
    assert done.output.splitlines()[-1] == f"written: {out}"
    checked = mmgen("tokenizer", "check", out, pictures, cwd=tmp_path)
    assert (checked.code, checked.err) == (0, "")
    assert "bits        " in checked.out and "(16 tokens)" in checked.out
