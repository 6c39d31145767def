"""From official files to a pipeline folder: read, match, convert, write beside, rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgen.config import to_dict
from mmgen.errors import CheckpointError, UserError
from mmgen.files import refuse_taken, write_json
from mmgen.pieces import PIXELS, facts, is_clip, stride_of
from mmgen.pipeline_folder import (
    FORMAT,
    PIPELINE_FILE,
    PipelineInfo,
    SamplingDefaults,
    Source,
)
from mmgen.published.catalogue import SYSTEMS, refuse_system, tokenizers_for
from mmgen.published.matching import Match, match
from mmgen.published.options import UnknownOptions, refuse_absurd, spelled
from mmgen.published.reading import read_checkpoint
from mmgen.published.systems import ASSUMED, Converted, Part, parts

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
    converted = convert_all(matches, options)
    _refuse_twins(matches, converted)
    size = _image_size(converted) or IMAGE_SIZE
    sources = [_source(*pair, size) for pair in zip(matches, converted)]
    info = _info(out.resolve().name, converted, sources, size)
    _refuse_strangers(matches, converted, info)
    _write(out.resolve(), converted, info)
    said = [line for pair in zip(converted, sources) for line in _lines(*pair)]
    return [
        *said,
        *_size_line(converted, info),
        f"licence: {info.licence}",
        f"written: {out}",
        *_lacking_line(system, matches, converted),
    ]


def convert_all(matches: Sequence[Match], options: Mapping[str, Any]) -> list[Converted]:
    """Convert every component with the options that it knows.

    Args:
        matches: the components' files.
        options: official names, each for all components that know it, or those of one component
            under its name.

    Raises:
        UnknownOptions: no component knows one.
        UserError: a file or an option does not fit.
    """
    refuse_absurd(options)
    components = [found.part.component for found in matches]
    own = {k: v for k, v in options.items() if k in components and isinstance(v, Mapping)}
    free = {name: value for name, value in options.items() if name not in own}
    if len(matches) == 1:
        return [_convert(found, {**free, **own.get(found.part.component, {})}) for found in matches]
    # All are asked before any is made fit: a name that none knows is the first thing to say.
    asked = [_asked(found, free, own.get(found.part.component, {})) for found in matches]
    refused = [answer for answer in asked if isinstance(answer, UnknownOptions)]
    for name in free:
        if len(refused) == len(asked) and all(name in unknown.names for unknown in refused):
            known = [word for unknown in refused for word in unknown.known]
            files = " and ".join(found.where for found in matches)
            raise UnknownOptions(files, [name], list(dict.fromkeys(known)), "have")
    return [
        _convert_knowing(found, free, own.get(found.part.component, {}), answer)
        if isinstance(answer, UnknownOptions)
        else answer
        for found, answer in zip(matches, asked)
    ]


def _convert_knowing(
    found: Match, free: Mapping[str, Any], own: Mapping[str, Any], unknown: UnknownOptions
) -> Converted:
    """Convert with those of the free options that the component knows."""
    kept = {name: value for name, value in free.items() if name not in unknown.names}
    return _convert(found, {**kept, **own})


def _asked(
    found: Match, free: Mapping[str, Any], own: Mapping[str, Any]
) -> Converted | UnknownOptions:
    """Convert with all free options, or say which of them the component does not know."""
    try:
        return _convert(found, {**free, **own})
    except UnknownOptions as unknown:
        if set(unknown.names) & set(own):
            raise
        return unknown


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


def _refuse_strangers(
    matches: Sequence[Match], converted: Sequence[Converted], info: PipelineInfo
) -> None:
    """Refuse a tokenizer and a transformer that were not made for each other.

    Raises:
        CheckpointError: their codes, latents or grids differ.
    """
    networks: dict[str, Any] = {one.component: one.network for one in converted}
    if not {"vision", "transformer"} <= networks.keys():
        return
    files = {one.component: found.where for found, one in zip(matches, converted)}
    draws = next(one for one in converted if one.component == "transformer")
    stated = draws.image_size if draws.size_by not in ("", ASSUMED) else info.image_size
    for fact in facts(networks["vision"], networks["transformer"], stated or info.image_size):
        if fact.have == fact.needed:
            continue
        said = str(fact)
        if fact.what == PIXELS:
            said = f"its tokens would make {fact.needed} {PIXELS} there, not {fact.have}"
        raise CheckpointError(
            f"{files['vision']} is not the tokenizer of {files['transformer']} ({said}); give the "
            "one that it was trained with."
        )


def _source(found: Match, converted: Converted, size: int) -> Source:
    """The record of a component; several files are joined by " + ".

    Args:
        found: its files. `converted`: what became of them.
        size: pixels a side of the pictures.
    """
    checkpoints = [share.checkpoint for share in found.shares]
    told = dict.fromkeys(c.note for c in checkpoints if c.note)
    notes = (*told, *converted.notes, *_size_note(converted, size), *_taken_notes(converted))
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


def _size_note(converted: Converted, size: int) -> tuple[str, ...]:
    if converted.size_by == ASSUMED:
        hint = "say block_size= (tokens of a picture) if it is another size"
        return (f"{size} pixels assumed; {hint}",)
    return (f"{size} pixels, {converted.size_by}",) if converted.size_by else ()


def _info(
    name: str, converted: Sequence[Converted], sources: Sequence[Source], size: int
) -> PipelineInfo:
    # What draws knows best what it was trained on and how it is evaluated: it comes last.
    ordered = sorted(converted, key=lambda one: one.component == "transformer")
    settings = [one.sampling for one in ordered if one.sampling]
    return PipelineInfo(
        format=FORMAT,
        name=name,
        image_size=size,
        sampling=settings[-1] if settings else SamplingDefaults(),
        licence="; ".join(dict.fromkeys(f"{s.licence} ({s.repository})" for s in sources)),
        sources=tuple(sources),
    )


def _image_size(converted: Sequence[Converted]) -> int | None:
    """Pixels a side: the grid of codes and the tokenizer, else what draws says; None: nobody."""
    found = {one.component: one for one in converted if one.image_size}
    networks: dict[str, Any] = {one.component: one.network for one in converted}
    vision, transformer = found.get("vision"), found.get("transformer")
    if vision and "transformer" in networks:
        # Whatever draws codes knows their grid alone, not the pixels of a code.
        draws, stride = networks["transformer"], stride_of(vision.network)
        if stride and (is_clip(draws) or networks["vision"].codebook_size):
            return stride * int(draws.config.grid[1])
        if is_clip(draws):
            return vision.image_size
    told = transformer or vision or next(iter(found.values()), None)
    return told.image_size if told else None


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


def _lines(converted: Converted, source: Source) -> list[str]:
    count = sum(p.numel() for p in converted.network.parameters())
    size = f"{count / 1e6:.1f} M" if count >= 1e5 else str(count)
    told = [note for note in source.notes if note not in _taken_notes(converted)]
    notes = f" ({'; '.join(told)})" if told else ""
    lines = [
        f"{source.component}: {source.part} of {source.system}, {size} parameters, "
        f"from {source.file}{notes}"
    ]
    if taken := _taken(converted):
        values = f"{', '.join(taken)} (KEY=VALUE says another)"
        lines.append(f"assumed, since {source.file} does not tell: {values}")
    return lines


def _taken(converted: Converted) -> list[str]:
    """What was assumed, as the user would say it."""
    return [f"{name}={spelled(value)}" for name, value in converted.assumed.items()]


def _taken_notes(converted: Converted) -> list[str]:
    """The same in the record, which the lines of an import say apart."""
    return [f"assumed {taken}" for taken in _taken(converted)]


def _size_line(converted: Sequence[Converted], info: PipelineInfo) -> list[str]:
    draws = any(one.component in ("vision", "transformer") for one in converted)
    if _image_size(converted) or not draws:
        return []
    return [f"assumed: pictures of {info.image_size} pixels a side (image_size of {PIPELINE_FILE})"]


def _lacking_line(
    system: str, matches: Sequence[Match], converted: Sequence[Converted]
) -> list[str]:
    """What is missing before it can draw."""
    networks: dict[str, Any] = {one.component: one.network for one in converted}
    if "transformer" not in networks or "vision" in networks:
        return []
    files = [share.checkpoint.path.name for found in matches for share in found.shares]
    cards = tokenizers_for(system, files, _task(networks["transformer"]))
    names = " or ".join(card.described for card in cards) or "its visual tokenizer"
    return [
        f"It cannot draw yet: import it again together with {names}, into another place or once "
        "this one is removed."
    ]


def _task(transformer: Any) -> str:
    """What a transformer does, as the catalogue calls it; "" where that is not plain."""
    kind = getattr(getattr(transformer.config, "condition", None), "kind", "")
    source = {"class": "class", "features": "text"}.get(kind)
    return f"{source}-to-{'video' if is_clip(transformer) else 'image'}" if source else ""
