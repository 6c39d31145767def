"""Where commands write, and what they allow: refused before any work is done.

One rule for all of them: folders that are missing are made when something is written.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from mmgen.errors import UserError
from mmgen.files import PICTURE_FORMATS, is_picture_file


def check_place(out: Path, endings: Collection[str] = tuple(PICTURE_FORMATS)) -> None:
    """Refuse a place that cannot take pictures.

    Args:
        out: a picture or a folder; neither need exist.
        endings: that are known.

    Raises:
        UserError: another ending, a file where a folder is needed, or no permission.
    """
    try:
        is_picture = is_picture_file(out)
    except OSError as error:  # no permission, or a name that no file can have
        raise UserError(f"Cannot write {out}: {error.strerror}; choose another place.") from None
    if is_picture and out.suffix.lower() not in endings:
        known = ", ".join(dict.fromkeys(endings))
        raise UserError(f"{out} has no picture's ending; use one of {known}, or name a folder.")
    check_folder(out.parent if is_picture else out)


def check_folder(out: Path) -> None:
    """Refuse a folder that cannot take files; it need not exist.

    Raises:
        UserError: a file where a folder is needed, or no permission.
    """
    folder = out
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        is_folder = folder.is_dir()
    except OSError as error:  # no permission, or a name that no file can have
        raise UserError(f"Cannot write {out}: {error.strerror}; choose another place.") from None
    if not is_folder:
        raise UserError(f"{folder} is a file, not a folder; choose another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} may not be written to; choose another place.")


def check_share(allow_bad: float) -> None:
    """Refuse what is no share of bad samples.

    Raises:
        UserError: it is not from 0 to 1.
    """
    if not 0 <= allow_bad <= 1:
        raise UserError(f"--allow-bad is {allow_bad:g}; give a share from 0 to 1, such as 0.05.")
