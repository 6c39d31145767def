"""`mmgen caption`: text from pictures, by the weights that draw them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli.loading import check_model, check_threads, load, picture_at
from mmgen.cli.options import AsJson, Device, Model, Threads
from mmgen.cli.values import check_settings
from mmgen.errors import UserError
from mmgen.progress import progress_of

if TYPE_CHECKING:
    from mmgen.scoring import Score

MOST = 1000  # captions of a picture; what lies above is a slip of the pen


def caption(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures of any size.")],
    *,
    count: Annotated[int, typer.Option("-n", "--count", help="Captions of each picture.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(help="0: the likeliest words; default: 0 for one caption, 1 for several."),
    ] = None,
    top_p: Annotated[
        float, typer.Option(help="Only the likeliest tokens that make up this share; 1: all.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Caption i has seed SEED + i.")] = 0,
    scores: Annotated[
        bool, typer.Option("--scores", help="Log-likelihood of each caption and its tokens.")
    ] = False,
    as_json: AsJson = False,
    threads: Threads = None,
    device: Device = None,
    model: Model = None,
) -> None:
    """Say what pictures show."""
    check_threads(threads)
    if not 1 <= count <= MOST:
        raise UserError(f"-n is {count}; give 1 to {MOST}.")
    if count > 1 and temperature == 0:
        raise UserError(
            f"At temperature 0 all {count} captions are the same; raise it, or use -n 1."
        )
    warmth = temperature if temperature is not None else float(count > 1)
    check_model(model)
    whole = count * len(images)
    check_settings(
        {"seed": seed, "num_images_per_prompt": whole, "temperature": warmth, "top_p": top_p}
    )
    with progress_of("Captioning") as update:
        opened = [picture_at(image) for image in images]
        pictures = [picture for picture in opened for _ in range(count)]
        pipe = load(model, threads, device)
        texts = pipe.caption(pictures, seed=seed, temperature=warmth, top_p=top_p, progress=update)
        found: list[Score] | None = None
        if scores:
            from mmgen.scoring import score_captions

            found = score_captions(pipe, pictures, texts)
    named = [str(image) for image in images for _ in range(count)]
    if as_json:
        typer.echo(json.dumps(_listed(named, texts, found), indent=2, ensure_ascii=False))
        return
    for i, (name, text) in enumerate(zip(named, texts)):
        typer.echo(text if len(images) == 1 else f"{name}: {text}")
        if found:
            typer.echo(f"  {in_words(found[i])}")


def in_words(score: Score) -> str:
    """The likelihood of a text and of each of its tokens in one line."""
    parts = "  ".join(
        f"{token or '(end)'} {value:.2f}"
        for token, value in zip(score.tokens, score.log_likelihoods)
    )
    return f"{score.total:.2f}, {score.mean:.2f} a token: {parts}"


def as_data(score: Score) -> dict[str, Any]:
    """A score for JSON."""
    return {
        "log_likelihood": score.total,
        "mean": score.mean,
        "tokens": [list(pair) for pair in zip(score.tokens, score.log_likelihoods)],
    }


def _listed(names: list[str], texts: list[str], scores: list[Score] | None) -> list[dict[str, Any]]:
    told = [as_data(score) for score in scores] if scores else [{} for _ in texts]
    return [
        {"image": name, "caption": text, **more} for name, text, more in zip(names, texts, told)
    ]
