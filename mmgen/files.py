"""Files that are never half-written: write beside, flush, rename; and their hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmgen.errors import UserError

# Endings of the picture files that we write, and Pillow's names of their formats.
PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF"}

# Likewise of the files of clips; films go through PyAV, which has names of its own. A .png holds
# the contact sheet of a clip.
ANIMATION_FORMATS = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}
FILM_FORMATS = {".mp4": "mp4", ".webm": "webm"}
CLIP_ENDINGS = (*ANIMATION_FORMATS, *FILM_FORMATS, ".png")
FPS = 8.0  # frames a second of a clip, unless somebody knows better

CACHE = "MMGEN_CACHE"  # environment variable that says where what was fetched lies

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def is_picture_file(out: Path) -> bool:
    """Whether `out` names a picture, not a folder of pictures."""
    return bool(out.suffix) and not out.is_dir()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`.

    If the block raises, `path` keeps what it held and the temporary file is removed.

    Args:
        path: the file to write; its folder is created.

    Raises:
        UserError: the place cannot be written to, or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix
        )
    except OSError as error:
        raise _unwritable(target, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _put_in_place(temporary, target)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise  # of the block, which may do more than write
        raise _unwritable(target, error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; on success flush it and rename it to `target`.

    If the block raises, `target` keeps what it held, and the new folder is removed with the
    folders that were made for it.

    Raises:
        UserError: the files cannot be written.
    """
    place = target.parent / f".partial-{target.name}-{os.getpid()}"
    made = [folder for folder in target.parents if not folder.exists()]  # the inner ones first
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        yield place
        for path in [*place.rglob("*"), place]:
            flush(path)
        if target.exists():
            remove_folder(target)
        place.rename(target)
        flush(target.parent)
    except OSError as error:
        raise unwritable_folder(target, error) from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it holds something, such as `target`
                folder.rmdir()


def unwritable_folder(target: Path, error: Exception) -> UserError:
    """What to say of a folder that could not be written."""
    return UserError(
        f"Cannot write {target} ({error}); see that the disk has room and is writable."
    )


def refuse_taken(out: Path) -> None:
    """Refuse a place where something is.

    Raises:
        UserError: there is a file, or a folder that is not empty.
    """
    try:
        taken = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    except OSError as error:  # no permission, or a name that no file can have
        raise UserError(f"Cannot write {out}: {error.strerror}; choose another place.") from None
    if taken:
        raise UserError(f"{out} already exists; choose another place, or remove it first.")


def remove_folder(path: Path) -> None:
    """Remove a folder: first out of sight, so that a kill in the middle leaves no half of it."""
    hidden = path.parent / f".partial-old-{path.name}-{os.getpid()}"
    shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, all of it or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, all of it or nothing."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; check the path.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore or rewrite it.") from None


def cache_folder() -> Path:
    """Where what was fetched lies: `$MMGEN_CACHE`, else `mmgen` in the user's cache."""
    if place := os.environ.get(CACHE):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmgen"


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _put_in_place(temporary: Path, target: Path) -> None:
    try:
        flush(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        flush(target.parent)
    except OSError as error:
        raise _unwritable(target, error) from None


def _unwritable(target: Path, error: OSError) -> UserError:
    return UserError(f"Cannot write {target}: {error.strerror}; choose another place.")


def flush(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows neither opens folders nor needs it
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The mask can only be read by setting it; mkstemp's 0600 would otherwise outlive the rename.
    mask = os.umask(0)
    os.umask(mask)
    return mask
