"""Downloads from the Hugging Face hub, of what the catalogue names and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from mmgen.errors import UserError
from mmgen.published.catalogue import Card, cards, find_card

WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")


def download(system: str, name: str) -> list[Path]:
    """Fetch a published checkpoint, its tokenizer first.

    Args:
        system: name of a published system.
        name: of a card of it, as in `mmgen models`.

    Returns:
        The files, in the hub's cache.

    Raises:
        UserError: there is no such card, it does not lie on the hub, or the hub does not give it.
    """
    card = find_card(system, name)
    needed = [c for c in cards() if c.name == card.tokenizer and c.is_tokenizer]
    return [path for one in (*needed, card) for path in _fetch(one)]


def _fetch(card: Card) -> list[Path]:
    if not card.repository:
        files = " and ".join(card.files)
        raise UserError(f"{card.name} does not lie on the hub; get {files} and give the files.")
    if there := _cached(card):
        return there
    from huggingface_hub import hf_hub_download

    try:
        check_reachable()
        names = card.files or _only_weights(card.repository)
        return [Path(hf_hub_download(card.repository, name)) for name in names]
    except UserError:
        raise
    except Exception as error:  # the hub's errors have no common class
        _refuse(card.repository, error)


def _cached(card: Card) -> list[Path]:
    """The files, if an earlier download left all of them here; they are published once."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(card.repository, name) for name in card.files]
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths if len(paths) == len(found) else []


def check_reachable() -> None:
    """Raise what is wrong if nobody is there: its client would try for a minute.

    Whatever is only slow is left to the client, which has patience of its own
    (HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT).
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:  # then its client says so at once
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # its clients' errors have no common class
        if _is_absent(error):
            raise


def _refuse(repository: str, error: Exception) -> NoReturn:
    raise UserError(
        f"The hub does not give {repository} ({_reason(error)}); download the file yourself."
    ) from None


def _is_absent(error: Exception) -> bool:
    """Whether a name is unknown or a connection refused; else an answer may still come."""
    return type(error).__name__ in ("ConnectError", "ConnectionError")  # of httpx, of requests


def _reason(error: Exception) -> str:
    """The line of the hub's message that says what is wrong: the second, where it has a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    heading = len(lines) > 1 and "Client Error. " in f"{lines[0]} "
    return (lines or [type(error).__name__])[int(heading)].rstrip(".:")


def _only_weights(repository: str) -> list[str]:
    """The one checkpoint in a repository whose file's name is not known."""
    from huggingface_hub import list_repo_files

    names = [name for name in list_repo_files(repository) if name.endswith(WEIGHTS)]
    if len(names) != 1:
        found = ", ".join(names[:5]) or "none"
        raise UserError(
            f"{repository} should hold one checkpoint, but it has {found}; download the right one "
            "yourself and give the file."
        )
    return names
