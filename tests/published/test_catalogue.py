"""The list of published checkpoints, and what downloading does with it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import EntryNotFoundError, OfflineModeIsEnabled

from mmgen.errors import UserError
from mmgen.published.catalogue import COMPANIONS, SYSTEMS, cards, find_card, tasks, tokenizers_for
from mmgen.published.hub import download
from mmgen.published.systems import parts

ROOT = Path(__file__).resolve().parents[2]


def test_cards_are_unique_and_their_references_hold() -> None:
    assert len({(card.system, card.name) for card in cards()}) == len(cards())
    decoders = {card.name: card.system for card in cards() if card.task.endswith("tokenizer")}
    for card in cards():
        assert card.system in SYSTEMS and card.task and (card.repository or card.files)
        if card.tokenizer:
            assert decoders[card.tokenizer] in (card.system, *COMPANIONS.get(card.system, ()))
    assert {card.system for card in cards()} == set(SYSTEMS)
    assert "class-to-image" in tasks()


def test_parts_belong_to_listed_systems() -> None:
    for part in parts():
        assert part.system in SYSTEMS
        assert part.component, f"{part.name} of {part.system} names no component"


def test_import_lines() -> None:
    assert find_card("llamagen", "c2i_L_384").import_line == (
        "mmgen import llamagen --from-hub c2i_L_384 --out llamagen-c2i_L_384"
    )
    assert find_card("seed", "tokenizer-v1").import_line == (
        "mmgen import seed causal_qformer.pth seed_tokenizer.pth eva_vit_g.pth "
        "--out seed-tokenizer-v1"
    )
    with pytest.raises(UserError, match="no published 'c2i_L' of llamagen; did you mean 'c2i_"):
        find_card("llamagen", "c2i_L")


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys, mmgen.published.catalogue as c; c.cards(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# -- a stand-in for the hub --------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[str]]:
    """A hub of its own: repository -> files."""
    there: dict[str, list[str]] = {}

    def hf_hub_download(repository: str, name: str) -> str:
        if name not in there.get(repository, []):
            url = f"https://huggingface.co/{repository}/resolve/main/{name}"
            raise EntryNotFoundError(
                f"404 Client Error. (Request ID: Root=1-2;3)\n\nEntry Not Found for url: {url}."
            )
        return str(tmp_path / name)

    def list_repo_files(repository: str) -> list[str]:
        if repository not in there:
            raise OfflineModeIsEnabled(
                f"Cannot reach {repository}: offline mode is enabled. To disable it, please unset "
                "the `HF_HUB_OFFLINE` environment variable."
            )
        return there[repository]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", list_repo_files)
    return there


def test_the_tokenizer_comes_first(hub: dict[str, list[str]], tmp_path: Path) -> None:
    hub["FoundationVision/LlamaGen"] = ["vq_ds16_c2i.pt", "c2i_B_256.pt"]
    hub["yefly/NAR-imagenet-256-M"] = ["README.md", "model.pt"]
    files = download("llamagen", "c2i_B_256")
    assert files == [tmp_path / "vq_ds16_c2i.pt", tmp_path / "c2i_B_256.pt"]
    # A file whose name is not known: the only checkpoint there is.
    assert download("nar", "imagenet-256-M") == [files[0], tmp_path / "model.pt"]


def test_what_the_hub_does_not_give_is_one_sentence(hub: dict[str, list[str]]) -> None:
    hub["BAAI/Emu3-VisionTokenizer"] = ["a.safetensors", "b.safetensors"]
    for system, name, said in (
        (
            "llamagen",
            "vq_ds8_c2i",
            "FoundationVision/LlamaGen (Entry Not Found for url: https://huggingface.co/"
            "FoundationVision/LlamaGen/resolve/main/vq_ds8_c2i.pt); download the file yourself.",
        ),
        ("emu3", "Emu3-VisionTokenizer", "one checkpoint, but it has a.safetensors, b.safetens"),
        ("kl16", "kl16", "kl16 does not lie on the hub; get kl16.ckpt and give the files."),
        ("kl16", "kl61", "did you mean 'kl16'?"),
    ):
        with pytest.raises(UserError) as caught:
            download(system, name)
        assert said in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_network_the_reason_is_said(hub: dict[str, list[str]]) -> None:
    with pytest.raises(UserError, match=r"offline mode is enabled.*HF_HUB_OFFLINE") as caught:
        download("emu3", "Emu3-VisionTokenizer")
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_not_there_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # a port at which nobody listens
        taken.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("tried"))
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^The hub does not give FoundationVision/LlamaGen \("):
        download("llamagen", "vq_ds16_c2i")
    assert time.monotonic() - started < 8


def test_a_slow_hub_is_left_to_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", place)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _, name: f"got/{name}")
        assert download("llamagen", "vq_ds16_c2i") == [Path("got/vq_ds16_c2i.pt")]


def test_what_was_downloaded_before_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _, name: f"cache/{name}")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("tried"))
    files = download("llamagen", "c2i_B_256")
    assert files == [Path("cache/vq_ds16_c2i.pt"), Path("cache/c2i_B_256.pt")]


def test_the_tokenizer_of_a_file() -> None:
    def described(system: str, *files: str) -> list[str]:
        return [card.described for card in tokenizers_for(system, files)]

    assert described("llamagen", "c2i_B_256.pt") == ["vq_ds16_c2i.pt of FoundationVision/LlamaGen"]
    # A name that nobody knows: whatever the system draws with.
    assert described("llamagen", "mine.pt") == [
        "vq_ds16_c2i.pt of FoundationVision/LlamaGen",
        "vq_ds16_t2i.pt of peizesun/llamagen_t2i",
    ]
    (fitting,) = tokenizers_for("llamagen", ["mine.pt"], "class-to-image")
    assert fitting.name == "vq_ds16_c2i"
    (fitting,) = tokenizers_for("nar", ["mine.pt"], "class-to-video")
    assert fitting.name == "LARP-L-long-tokenizer"
    assert described("nbp", "x.ckpt")[0] == "magvit2_ucf.pt of ShuhuaiRen/NBP-tokenizer-ucf"
