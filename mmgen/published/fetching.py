"""Published checkpoints by name: imported once into a folder of the user's cache."""

from __future__ import annotations

from pathlib import Path

from mmgen.files import cache_folder
from mmgen.pipeline_folder import PIPELINE_FILE
from mmgen.published.catalogue import Card


def published_folder(card: Card) -> Path:
    """The folder of a published checkpoint, downloaded and imported if it is not there yet.

    Args:
        card: of the catalogue.

    Raises:
        UserError: the hub does not give it, or it cannot be imported.
    """
    folder = cache_folder() / f"{card.system}-{card.name}"
    if not (folder / PIPELINE_FILE).is_file():
        from mmgen.published.hub import download
        from mmgen.published.importing import import_files

        files = [str(path) for path in download(card.system, card.name)]
        import_files(card.system, files, {}, folder)
    return folder
