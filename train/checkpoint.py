"""Checkpoints that either are whole or do not exist.

`checkpoints/step-N/` holds safetensors files, `state.json` and, written last, `manifest.json` with
the size and SHA-256 of every file. The folder is written beside under a hidden name, flushed to
disk and renamed, so a process that is killed at any point leaves either the whole folder or
none. A folder without a matching manifest (a disk that failed, a copy cut short) does not count.
Nothing is pickled.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError, UserError
from mmgen.files import (
    read_json,
    remove_folder,
    sha256_of,
    unwritable_folder,
    write_json,
    write_text,
)
from mmgen.files import replacing_folder as replacing_any_folder
from mmgen.train.recipe import difference, dump, fingerprint, load_recipe

MANIFEST = "manifest.json"
STATE = "state.json"
RECIPE = "run.yaml"
FORMAT = 1

_ELSEWHERE = "name another folder by --out FOLDER or train.out=FOLDER"


@dataclass
class Checkpoint:
    """Everything that a run needs to go on.

    Attributes:
        tensors: `{part: {name: tensor}}`; each part is one safetensors file.
        state: plain JSON data (`step`, `epoch`, `batch`, ...).
    """

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of one part.

        Raises:
            CheckpointError: the checkpoint has no such part.
        """
        if name not in self.tensors:
            raise CheckpointError(
                f"The checkpoint of step {self.state['step']} has no '{name}'; it was written for "
                f"another task, so {_ELSEWHERE}."
            )
        return self.tensors[name]


def open_run(
    out: Path, recipe: Any, resume: bool, accelerator: Accelerator
) -> tuple[Path | None, list[str]]:
    """Open a run folder for a recipe: compare it with `run.yaml`, clean up, find the checkpoint.

    Args:
        out: the run folder; it need not exist.
        recipe: a dataclass; it may differ from the stored one in keys of its `FREE` only.
        resume: false: refuse a folder with checkpoints.
        accelerator: the main process writes, the others wait.

    Returns:
        The newest whole checkpoint, if any, and warnings about damaged ones.

    Raises:
        CheckpointError: the folder holds checkpoints of another recipe, or any and not `resume`.
    """
    folder = out / "checkpoints"
    if _steps(folder) and not resume:
        raise CheckpointError(f"{out} already holds a run; resume it or {_ELSEWHERE}.")
    refuse_other(out, recipe)
    found, warnings = newest(folder)
    if found and read_json(found / STATE)["recipe"] != fingerprint(recipe):
        raise CheckpointError(f"{found} belongs to another recipe; {_ELSEWHERE}.")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_text(out / RECIPE, dump(recipe))
        _remove_leftovers(out)
    return found, warnings


def refuse_other(out: Path, recipe: Any) -> None:
    """Refuse a folder that holds the run of another recipe.

    Args:
        out: the run folder; it need not exist.
        recipe: a dataclass.

    Raises:
        CheckpointError: it has checkpoints, and `run.yaml` beside them differs in a binding key.
    """
    stored = out / RECIPE
    if not _steps(out / "checkpoints") or not stored.is_file():
        return  # the fingerprint in the checkpoint still decides
    try:
        before = load_recipe(stored, type(recipe))
    except ConfigError as error:
        said = f"{out} holds a run of another recipe ({error})"
        raise CheckpointError(f"{said} Then {_ELSEWHERE}.") from None
    there, here = (getattr(each, "init", None) for each in (before, recipe))
    if there != here:
        raise CheckpointError(
            f"{out} holds a run that was started {_from(there)}, and this one is started "
            f"{_from(here)}; {_ELSEWHERE}."
        )
    different = difference(before, recipe)
    if different:
        raise CheckpointError(f"{out} holds a run of another recipe ({different}); {_ELSEWHERE}.")


def refuse_finished(out: Path, steps: int) -> None:
    """Refuse a run folder that is past its steps, before data and weights are loaded for it.

    Raises:
        ConfigError: its newest whole checkpoint is of a later step.
    """
    folder = out / "checkpoints"
    if max(_steps(folder), default=0) > steps:  # only then is it worth the hashing
        found, _ = newest(folder)
        refuse_past(out, read_json(found / STATE)["step"] if found else 0, steps)


def refuse_past(out: Path, step: int, steps: int) -> None:
    """Refuse to end before the step that a run has reached.

    Raises:
        ConfigError: `step` is past `steps`.
    """
    if step > steps:
        raise ConfigError(
            f"{out} has already trained {step} steps; ask for train.steps={step} or more, or "
            f"{_ELSEWHERE}."
        )


def save(folder: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Write `folder/step-N` (N is `state["step"]`), then remove all but the newest checkpoints.

    Args:
        folder: the `checkpoints` folder of a run.
        checkpoint: what to write.
        keep_last: number of checkpoints kept, this one included.

    Raises:
        UserError: the disk is full or not writable.
    """
    step = checkpoint.state["step"]
    target = folder / f"step-{step}"
    with replacing_folder(target) as place:
        for part, tensors in checkpoint.tensors.items():
            save_file(_separate(tensors), place / f"{part}.safetensors")
        write_json(place / STATE, checkpoint.state)
        write_json(place / MANIFEST, {"format": FORMAT, "files": _describe(place)})
    older = sorted((s for s in _steps(folder) if s < step), reverse=True)
    for old in older[keep_last - 1 :]:
        remove_folder(folder / f"step-{old}")
    return target


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint and one warning for each newer one that is damaged."""
    warnings: list[str] = []
    for step in sorted(_steps(folder), reverse=True):
        path = folder / f"step-{step}"
        fault = _fault(path)
        if fault is None:
            return path, warnings
        warnings.append(f"Checkpoint {path} is ignored: {fault}.")
    return None, warnings


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that `newest` returned.

    Raises:
        CheckpointError: a file cannot be read.
    """
    try:
        names = [Path(entry["name"]) for entry in read_json(path / MANIFEST)["files"]]
        files = [path / name.name for name in names if name.suffix == ".safetensors"]
        tensors = {file.stem: _read(file) for file in files}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete that folder.") from None
    return Checkpoint(tensors, read_json(path / STATE))


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; on success flush it and rename it to `target`.

    If the block raises, `target` keeps what it held and the new folder is removed.

    Raises:
        UserError: the files cannot be written.
    """
    try:
        with replacing_any_folder(target) as place:
            yield place
    except SafetensorError as error:
        raise unwritable_folder(target, error) from None


def _from(init: str | None) -> str:
    return f"from {init}" if init else "from nothing (no --from, no init)"


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed process left under hidden names."""
    for path in [*out.glob(".partial-*"), *(out / "checkpoints").glob(".partial-*")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in [*out.glob(".run.*"), *out.glob(".log.*"), *(out / "previews").glob(".step-*")]:
        path.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Tensor]:
    # Copies: the file's memory is mapped and unaligned, and sums may round by alignment.
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = [re.fullmatch(r"step-(0|[1-9][0-9]*)", path.name) for path in folder.iterdir()]
    return [int(match[1]) for match in matches if match]


def _describe(place: Path) -> list[dict[str, Any]]:
    return [
        {"name": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(place.iterdir())
    ]


def _fault(path: Path) -> str | None:
    """Return what is wrong with a checkpoint folder, or None."""
    if not (path / MANIFEST).is_file():
        return f"it has no {MANIFEST}"
    try:
        manifest = read_json(path / MANIFEST)
        entries = [(str(e["name"]), e["size"], e["sha256"]) for e in manifest["files"]]
        known = manifest["format"] == FORMAT and STATE in [name for name, _, _ in entries]
    except (UserError, KeyError, TypeError):
        known = False
    if not known:
        return f"its {MANIFEST} is damaged or of another version"
    for name, size, digest in entries:
        file = path / Path(name).name
        if not file.is_file() or file.stat().st_size != size or sha256_of(file) != digest:
            return f"{name} is missing or damaged"
    return None


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy to the CPU, each tensor with its own memory (tied weights share it)."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        result[name] = own
    return result
