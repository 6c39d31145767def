"""What `mmgen data check` says of a data set beside its samples."""

from __future__ import annotations

from pathlib import Path

from mmgen.data.folders import texts_alone
from mmgen.data.sources import files_of
from mmgen.data.tables import KEPT_BYTES, Columns, is_saved_dataset, largest_group

_MIB = 1 << 20
_NAMED = 5  # texts


def remarks_on(path: str, columns: Columns, also: tuple[str, ...] = ()) -> list[str]:
    """Sentences about a data set that can be opened.

    Args:
        path: as `open_source` takes it.
        columns: of a table.
        also: endings that count as pictures do.
    """
    place = Path(path)
    if is_saved_dataset(place):
        return []
    files = files_of(place, also)
    if files == [place] and place.is_dir():
        return _on_folder(place, also)
    if all(file.suffix.lower() == ".parquet" for file in files):
        return _on_groups(*largest_group(files, columns))
    return []


def _on_folder(folder: Path, also: tuple[str, ...]) -> list[str]:
    alone = texts_alone(folder, also)
    if not alone:
        return []
    more = f" and {len(alone) - _NAMED} more" if len(alone) > _NAMED else ""
    return [f"{len(alone)} .txt without a picture of that name: {', '.join(alone[:_NAMED])}{more}"]


def _on_groups(largest: int, whole: int) -> list[str]:
    # What fits into memory is decoded once, however large its groups are.
    if whole <= KEPT_BYTES:
        return []
    return [
        f"row groups of up to {largest / _MIB:.0f} MiB, of which {KEPT_BYTES // _MIB} are kept: "
        "training reads at random and decodes a group for each picture; make shards with "
        "`mmgen data pack`"
    ]
