"""The card of a pipeline as Markdown, rendered from its figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmgen.evaluation.prose import filled, table
from mmgen.evaluation.provenance import licences, spdx, training
from mmgen.evaluation.sets import SETS


def card_text(
    figures: dict[str, Any],
    *,
    licence: str = "Apache-2.0",
    hardware: str = "",
    failures: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> str:
    """Render README.md.

    Args:
        figures: content of figures.json.
        licence: of the weights, where the pipeline names none (SPDX).
        hardware: what the training ran on.
        failures: sentences on what was seen to go wrong, beside those that follow from figures.
        commands: that make the card again.
    """
    licence = figures["pipeline"]["licence"] or licence
    parts = [
        _head(figures, licence),
        _use(figures),
        licences(licence),
        training(figures, hardware),
        _losses(figures),
        _generated(figures),
        _units(figures),
        _failures(figures, failures),
        _again(figures, commands),
    ]
    return filled("\n\n".join(parts)) + "\n"


def _head(figures: dict[str, Any], licence: str) -> str:
    pipeline, data = figures["pipeline"], figures["protocol"]["data"]
    size, (t, h, w) = pipeline["image_size"], pipeline["grid"]
    sizes = {name: _millions(count) for name, count in pipeline["parameters"].items()}
    names = ", ".join(f"`{name}` ({u['steps']} steps)" for name, u in figures["units"].items())
    return f"""\
---
license: {spdx(licence)}
library_name: mmgen
pipeline_tag: text-to-image
---

# {pipeline["name"]}

Text to {size}x{size} pictures and back, trained on {data["splits"]["train"]} of
{data["pictures"]} emoji pictures ({data["concepts"]} concepts in up to six drawing styles); the
rest was held out. A visual tokenizer ({sizes["vision"]} parameters) turns a picture
into a grid of {t}x{h}x{w} codes out of {pipeline["codebook_size"]}; one transformer
({sizes["transformer"]}) predicts codes from words and words from codes. One set of weights knows
several units: {names}."""


def _use(figures: dict[str, Any]) -> str:
    unit = next(iter(figures["units"]))
    return f"""\
```python
from mmgen import Pipeline

pipe = Pipeline.from_pretrained("FOLDER")  # the folder of this card; none: the shipped pipeline
pipe("a red apple, noto style", seed=1, unit="{unit}").images[0].save("apple.png")
```

Styles are named in the prompt: `twemoji`, `noto`, `blob`, `flat`, `3d`, `ink`, as in "a rocket, 3d
style". The same things in every style:

![styles](styles.png)"""


def _losses(figures: dict[str, Any]) -> str:
    tokenizer, losses, ranks = figures["tokenizer"], figures["losses"], figures["captions"]
    splits = [
        [
            split,
            found["pictures"],
            f"{found['psnr']:.2f}",
            f"{found['ssim']:.3f}",
            f"{found['codes_used']:.1%}",
            f"{found['perplexity']:.0f}",
        ]
        for split, found in tokenizer.items()
    ]
    rows = [[name, f"{loss:.3f}"] for name, loss in losses["units"].items()]
    rows += [["picture to caption", f"{losses['caption']:.3f}"]]
    return f"""\
## Held-out losses

The visual tokenizer, reconstructing. The test splits were looked at once, for this card; `train` is
a sample; the last two columns depend on the number of pictures.

{table(["split", "pictures", "PSNR, dB", "SSIM", "codes used", "perplexity"], splits)}

The transformer on the {losses["pictures"]} pictures of `val`, in nats a token; knowing nothing
would cost {losses["uniform"]:.3f} for a code.

{table(["unit", "loss"], rows)}

The units see different contexts, so their losses do not rank them.

Of {ranks["pictures"]} pictures of `val`, the true caption is the likeliest of
{ranks["captions"]} captions that name the picture's style for {ranks["top1"]:.0%}, and among the
first five for {ranks["top5"]:.0%} (chance: {1 / ranks["captions"]:.0%} and
{min(1, 5 / ranks["captions"]):.0%})."""


def _generated(figures: dict[str, Any]) -> str:
    protocol = figures["protocol"]
    rows = []
    for name, found in figures["generated"].items():
        rows.append([SETS[name].title, "generated", *set_cells(found)])
        rows.append(["", "real", *set_cells(figures["real"][name])])
    styles = figures["generated"]["train"]["by_style"]
    real = figures["real"]["train"]["by_style"]
    by_style = [
        [style, found["count"], top(found), top(real[style])] for style, found in styles.items()
    ]
    heads = ["prompts", "pictures", "n", "concept top-1 / top-5", "style", "KID"]
    heads += ["nearest training picture, 5 % / median / 95 %", "of the same concept"]
    concepts = protocol["data"]["concepts"]
    silent = ("unit", "solver", "steps")  # the last two are of weights that draw latents
    said = {k: v for k, v in protocol["sampling"].items() if k not in silent and v != "constant"}
    sampling = ", ".join(f"{k} {v}" for k, v in said.items())
    return f"""\
## Generated pictures, beside real ones

One picture a prompt, unit `{protocol["unit"]}`, {sampling}. No picture was
left out. "real" are the set's own pictures of the same concepts and styles, judged
alike: what a perfect model would score.

{table(heads, rows)}

- Features: EfficientNet-Lite0 (weights {protocol["features"]["hash"]}), which nothing here was
  trained on{_sibling(figures)}.
- *Concept*: rank of the concept asked for among {concepts}, by the cosine to its real pictures in
  the other styles; chance is {1 / concepts:.4f} / {min(1, 5 / concepts):.4f}. Where a
  prompt names no style, a generated picture is scored in all styles and the best one counts; a real
  one is scored in its own.
- *Style*: share whose style, read by ridge regression, is the one that was named.
- *KID* against training pictures of the same styles, mean of {protocol["kid"]["draws"]} draws of
  {protocol["kid"]["size_at_most"]} pictures, or of as many as stand in brackets where a set has
  fewer. Its size depends on the features: compare it with this table alone, and with 0.028 for real
  pictures halved in resolution and 0.110 for quartered ones.
- *Nearest training picture*: cosine of raw features; a real one's search leaves out itself. Far
  above the real row means copying. [The nearest ones, side by side](results.png).

Concept top-1 / top-5 of trained pairs by style:

{table(["style", "n", "generated", "real"], by_style)}

![results](results.png)"""


def _sibling(figures: dict[str, Any]) -> str:
    """Own up to a perceptual loss: its network is a relative of the yardstick."""
    losses = [run["recipe"].get("loss", {}).get("perceptual") for run in figures["runs"]]
    return " (the tokenizer's perceptual loss used its sibling EfficientNet-Lite1)" * any(losses)


def _units(figures: dict[str, Any]) -> str:
    rows = [
        [
            f"`{name}`",
            found["order"],
            found["steps"],
            f"{found['seconds_a_picture']:.2f}",
            found["concept"]["count"],
            top(found["concept"]),
            share(found["style"]),
        ]
        for name, found in figures["units"].items()
    ]
    protocol = figures["protocol"]
    machine = protocol["machine"]
    heads = ["unit", "order", "steps", "seconds a picture", "n", "concept top-1 / top-5", "style"]
    return f"""\
## Units

The same trained prompts and seeds, in batches of {protocol["settings"]["batch"]}; with guidance and
pixel decoder, device {protocol["device"]}, {protocol["threads"]} thread(s) of {machine}.

{table(heads, rows)}

![units](units.png)"""


def _failures(figures: dict[str, Any], failures: Sequence[str]) -> str:
    made, real = figures["generated"], figures["real"]
    styles = made["train"]["by_style"]
    worst = min(styles, key=lambda style: styles[style]["top5"])
    found = [
        f"Of trained pairs, {1 - made['train']['concept']['top5']:.0%} are not recognised among "
        f"the first five concepts ({1 - real['train']['concept']['top5']:.0%} of real pictures); "
        f"style `{worst}` does worst ({styles[worst]['top5']:.0%} recognised)."
    ]
    if "test_concept" in made:
        unseen, ceiling = made["test_concept"]["concept"], real["test_concept"]["concept"]
        found.append(
            f"Things that training never showed are found among the first five concepts in "
            f"{unseen['top5']:.0%} of the cases ({ceiling['top5']:.0%} of real pictures): a name "
            "alone says little to a model that learned from emoji only."
        )
    found += [
        "It knows phrases like those of its captions. Scenes of several things, counts, places, "
        "written words and other languages were not trained.",
        "The best and the worst pictures by concept score, chosen by rule, close "
        "[results.png](results.png).",
    ]
    return "## Known failures\n\n" + "\n".join(f"- {line}" for line in [*found, *failures])


def _again(figures: dict[str, Any], commands: Sequence[str]) -> str:
    protocol = figures["protocol"]
    text = "\n".join(commands)
    return f"""\
## Making this card again

```
{text}
```

mmgen {protocol["mmgen"]}, torch {protocol["torch"]}, Python {protocol["python"]}; weights
`{protocol["weights"]}`, data `{protocol["data"]["hash"]}`, seed {protocol["settings"]["seed"]}.
Every number above, with its protocol, is in [figures.json](figures.json)."""


def set_cells(found: dict[str, Any]) -> list[str]:
    """Cells of a table: the figures of a set, from `n` to the share of the same concept."""
    kid, copying = found["kid"], found["copying"]
    return [
        str(found["concept"]["count"]),
        top(found["concept"]),
        share(found["style"]),
        "-" if kid is None else f"{kid:.4f} ({found['kid_size']})",
        f"{copying['low']:.2f} / {copying['median']:.2f} / {copying['high']:.2f}",
        share(found["same_concept"]),
    ]


def top(scores: dict[str, Any]) -> str:
    """Top-1 / top-5."""
    return f"{scores['top1']:.2f} / {scores['top5']:.2f}"


def share(value: float | None) -> str:
    """A share, or - for none."""
    return "-" if value is None else f"{value:.2f}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} million"
