"""Files of ADM's evaluator (guided-diffusion): batches of samples and of reference statistics.

A batch of samples is an .npz with `arr_0` (N, H, W, 3) uint8. A reference holds `mu` (2048,) and
`sigma`, and for sFID `mu_s` (2023,) and `sigma_s`, beside `arr_0` or without it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import DataError, first_line
from mmgen.evaluation.features import Pictures
from mmgen.evaluation.standard import Array, Gaussian
from mmgen.files import replacing

PICTURES = "arr_0"
_STATISTICS = {"pooled": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}


@dataclass(frozen=True)
class AdmBatch:
    """What an .npz holds.

    Args:
        pictures: (N, H, W, 3) uint8; None: statistics alone.
        pooled: of pool3. `spatial`: of mixed_6. None where the file has none.
    """

    pictures: Pictures | None
    pooled: Gaussian | None
    spatial: Gaussian | None


def read_batch(path: str | Path) -> AdmBatch:
    """Read a batch of samples or a reference; nothing in it is unpickled.

    Raises:
        DataError: the file is missing, damaged, or holds neither pictures nor statistics.
    """
    with _opened(path) as file:
        pictures = file.get(PICTURES)
        if pictures is not None:
            _check_pictures(pictures, path)
        found = {
            kind: _gaussian(file, names, path)
            for kind, names in _STATISTICS.items()
            if all(name in file for name in names)
        }
    if pictures is None and "pooled" not in found:
        raise DataError(f"{path} holds neither {PICTURES} nor mu and sigma; give an ADM batch.")
    return AdmBatch(pictures, found.get("pooled"), found.get("spatial"))


def write_samples(path: str | Path, batches: Iterable[Pictures], count: int) -> None:
    """Write `count` pictures as a batch of samples, without holding them in memory together.

    Args:
        path: an .npz file.
        batches: of (B, H, W, 3) uint8, `count` pictures in all.
        count: N, which stands before the pictures in the file.
    """
    written = 0
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        archive.open(f"{PICTURES}.npy", "w", force_zip64=True) as file,
    ):
        for batch in batches:
            if not written:
                _write_header(file, (count, *batch.shape[1:]))
            file.write(np.ascontiguousarray(batch, np.uint8).tobytes())
            written += len(batch)
        if written != count:
            raise ValueError(f"{written} pictures came, not {count}")


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    if not Path(path).is_file():
        raise DataError(f"There is no file {path}; check the path.")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no archive")
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = first_line(error)
        raise DataError(f"{path} is not a plain .npz file ({reason}); get it again.") from None


def _check_pictures(pictures: NDArray[Any], path: str | Path) -> None:
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise DataError(
            f"{PICTURES} in {path} must be (N, H, W, 3) uint8, not {pictures.shape} "
            f"{pictures.dtype}; write it as ADM does."
        )


def _gaussian(file: Any, names: tuple[str, str], path: str | Path) -> Gaussian:
    mean, covariance = (np.asarray(file[name]) for name in names)
    numbers = all(a.dtype.kind == "f" for a in (mean, covariance))
    if not numbers or mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(
            f"{names[0]} and {names[1]} in {path} are {mean.shape} and {covariance.shape}; a mean "
            "(D,) and a covariance (D, D) are needed."
        )
    wide: tuple[Array, Array] = (mean.astype(np.float64), covariance.astype(np.float64))
    return Gaussian(*wide)
