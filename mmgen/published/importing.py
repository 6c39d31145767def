"""From official files to a pipeline folder: read, match, convert, write beside, rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgen.config import to_dict
from mmgen.errors import ConfigError, UserError
from mmgen.files import write_json
from mmgen.pipeline_folder import FORMAT, PIPELINE_FILE, PipelineInfo, SamplingDefaults, Source
from mmgen.published.catalogue import SYSTEMS, refuse_system
from mmgen.published.matching import Match, match
from mmgen.published.reading import read_checkpoint
from mmgen.published.systems import Converted, Part, parts

IMAGE_SIZE = 256  # pixels a side, where no file says: what nearly all published systems draw


def import_files(
    system: str,
    files: Sequence[str | Path],
    options: Mapping[str, Any],
    out: str | Path,
    known: Sequence[Part] | None = None,
) -> list[str]:
    """Make a pipeline folder of official files.

    Args:
        system: name of a published system, such as "llamagen".
        files: its files, in any order: a tokenizer, a transformer, or several shares of one.
        options: official configuration names; where there are several components, by component.
        out: folder to make; nothing may be there.
        known: parts to choose from (default: those of all systems).

    Returns:
        What to tell the user, a line each.

    Raises:
        UserError: the place is taken, or a file or an option does not fit; nothing is written.
    """
    refuse_system(system, SYSTEMS if known is None else [part.system for part in known])
    out = Path(out)
    refuse_taken(out)
    known = parts() if known is None else known
    matches = match(system, [read_checkpoint(file) for file in files], known)
    shares = share_out(options, [found.part for found in matches])
    converted = [_convert(found, own) for found, own in zip(matches, shares)]
    _refuse_twins(matches, converted)
    sources = [_source(*pair) for pair in zip(matches, converted)]
    info = _info(out.resolve().name, converted, sources)
    _write(out.resolve(), converted, info)
    return [*map(_line, converted, sources), f"licence: {info.licence}", f"written: {out}"]


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


def share_out(options: Mapping[str, Any], chosen: Sequence[Part]) -> list[Mapping[str, Any]]:
    """What each part gets of the options.

    Args:
        options: official names, or (needed where there are several parts) those by component.
        chosen: the parts.

    Raises:
        ConfigError: there are several parts, and an option does not say whose it is.
    """
    names = [part.component for part in chosen]
    by_component = all(k in names and isinstance(v, Mapping) for k, v in options.items())
    if by_component:
        return [options.get(name, {}) for name in names]
    if len(chosen) == 1:
        return [options]
    name = next(key for key in options if key not in names)
    raise ConfigError(
        f"Several components are made, so say whose option '{name}' is, such as "
        f"{names[-1]}.{name}=...; there are: {', '.join(names)}."
    )


def _convert(found: Match, options: Mapping[str, Any]) -> Converted:
    recorded: Mapping[str, Any] = {}
    if found.part.recorded:
        extras = [share.checkpoint.extras for share in found.shares]
        recorded = found.part.recorded({k: v for extra in extras for k, v in extra.items()})
    return found.part.convert(found.tensors(), {**recorded, **options}, found.where)


def _refuse_twins(matches: Sequence[Match], converted: Sequence[Converted]) -> None:
    places: dict[str, str] = {}
    for found, one in zip(matches, converted):
        if one.component in places:
            raise UserError(
                f"{places[one.component]} and {found.where} both become {one.component}; give one."
            )
        places[one.component] = found.where


def _source(found: Match, converted: Converted) -> Source:
    """The record of a component; several files are joined by " + "."""
    checkpoints = [share.checkpoint for share in found.shares]
    notes = (*dict.fromkeys(c.note for c in checkpoints if c.note), *converted.notes)
    return Source(
        component=converted.component,
        system=found.part.system,
        part=found.part.name,
        file=" + ".join(c.path.name for c in checkpoints),
        sha256=" + ".join(c.sha256 for c in checkpoints),
        licence=found.part.licence,
        repository=found.part.source,
        notes=notes,
    )


def _info(name: str, converted: Sequence[Converted], sources: Sequence[Source]) -> PipelineInfo:
    # What draws knows best what it was trained on and how it is evaluated: it comes last.
    ordered = sorted(converted, key=lambda one: one.component == "transformer")
    sizes = [one.image_size for one in ordered if one.image_size]
    settings = [one.sampling for one in ordered if one.sampling]
    return PipelineInfo(
        format=FORMAT,
        name=name,
        image_size=sizes[-1] if sizes else IMAGE_SIZE,
        sampling=settings[-1] if settings else SamplingDefaults(),
        licence="; ".join(dict.fromkeys(f"{s.licence} ({s.repository})" for s in sources)),
        sources=tuple(sources),
    )


def _write(out: Path, converted: Sequence[Converted], info: PipelineInfo) -> None:
    """Write the folder beside its place and rename it: it is whole, or not there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror}; choose another place.") from None
    try:
        for one in converted:
            one.network.save_pretrained(beside / one.component)  # type: ignore[operator]
        write_json(beside / PIPELINE_FILE, to_dict(info))
        beside.chmod(0o755)  # mkdtemp's folders are for their owner alone
        os.replace(beside, out)
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror}; choose another place.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _line(converted: Converted, source: Source) -> str:
    count = sum(p.numel() for p in converted.network.parameters())
    size = f"{count / 1e6:.1f} M" if count >= 1e5 else str(count)
    notes = f" ({'; '.join(source.notes)})" if source.notes else ""
    return (
        f"{source.component}: {source.part} of {source.system}, {size} parameters, "
        f"from {source.file}{notes}"
    )
