"""ADM's files: what is written can be read by numpy, and hostile files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmgen.errors import DataError
from mmgen.evaluation.adm import read_batch, write_samples
from mmgen.evaluation.standard import Gaussian


def pictures(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def test_samples_are_what_numpy_and_so_the_evaluator_reads(tmp_path: Path) -> None:
    shown = pictures()
    write_samples(tmp_path / "s.npz", iter([shown[:2], shown[2:]]), 5)
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        assert file.files == ["arr_0"]
        found = file["arr_0"]
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, shown)
    read = read_batch(tmp_path / "s.npz")
    np.testing.assert_array_equal(read.pictures, shown)
    assert read.pooled is None and read.spatial is None


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield pictures(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "s.npz", broken(), 5)
    assert not list(tmp_path.iterdir())


def test_a_reference_has_statistics(tmp_path: Path) -> None:
    whole = Gaussian.of(np.random.default_rng(1).normal(size=(9, 4)))
    np.savez(
        tmp_path / "r.npz",
        mu=whole.mean.astype(np.float32),
        sigma=whole.covariance,
        mu_s=whole.mean[:2],
        sigma_s=whole.covariance[:2, :2],
    )
    read = read_batch(tmp_path / "r.npz")
    assert read.pictures is None and read.pooled is not None and read.spatial is not None
    np.testing.assert_allclose(read.pooled.mean, whole.mean, rtol=1e-6)
    np.testing.assert_array_equal(read.pooled.covariance, whole.covariance)
    assert read.spatial.covariance.shape == (2, 2)


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match="There is no file"):
        read_batch(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"not a plain \.npz"):
        read_batch(path)
    np.save(tmp_path / "lone.npy", pictures())
    with pytest.raises(DataError, match=r"not a plain \.npz"):
        read_batch(tmp_path / "lone.npy")
    np.savez(path, other=np.zeros(3))
    with pytest.raises(DataError, match="neither arr_0 nor mu"):
        read_batch(path)
    np.savez(path, arr_0=pictures().astype(np.float32))
    with pytest.raises(DataError, match="uint8, not"):
        read_batch(path)
    np.savez(path, mu=np.zeros(3), sigma=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"mu and sigma in .* are \(3,\) and \(2, 2\)"):
        read_batch(path)
    np.savez(path, arr_0=pictures())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"not a plain \.npz"):
        read_batch(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "touched",))

    np.savez(tmp_path / "x.npz", arr_0=np.array([Hostile()], dtype=object))
    with pytest.raises(DataError, match=r"not a plain \.npz"):
        read_batch(tmp_path / "x.npz")
    assert not (tmp_path / "touched").exists()
