"""Where a pipeline comes from, as Markdown: licences and notices, runs and recipes."""

from __future__ import annotations

import re
from typing import Any

from mmgen.evaluation.prose import table

_CURVES = """\
![training curves](curves.png)

Strong lines are running means where points are many, faint ones the points."""

ATTRIBUTION = """\
- Twemoji, graphics (c) Twitter, Inc. and other contributors, licensed under CC BY 4.0; rasterised
  (<https://github.com/discord/twemoji>, <https://creativecommons.org/licenses/by/4.0/>). Style word
  `twemoji`.
- Noto Emoji, Copyright Google LLC, Apache License 2.0; rasterised
  (<https://github.com/googlefonts/noto-emoji>, <https://www.apache.org/licenses/LICENSE-2.0>).
  Style words `noto` and `blob`.
- Fluent Emoji, Copyright (c) Microsoft Corporation, MIT License; rasterised or scaled, the 3d ones
  packed by LobeHub (<https://github.com/microsoft/fluentui-emoji>). Style words `flat`, `3d` and
  `ink`.
- Names and keywords: Unicode CLDR, Copyright (c) 1991-2025 Unicode, Inc., Unicode License v3
  (<https://www.unicode.org/license.txt>); articles and templates were added."""


def licences(licence: str) -> str:
    """The section on licences, with the notices that must go with the weights."""
    return f"""\
## Licences

Weights: {licence}. They were trained on drawings and names whose licences ask to be named wherever
these, or what was made from them, are given on. All notices are in [LICENSES.md](LICENSES.md).

{ATTRIBUTION}"""


def spdx(licence: str) -> str:
    """The word for a licence that model indexes understand."""
    found = re.search(r"apache-2\.0|mit\b|cc0|cc-by-4\.0", licence.lower())
    return {"cc0": "cc0-1.0"}.get(found[0], found[0]) if found else "other"


def training(figures: dict[str, Any], hardware: str) -> str:
    """The section on the training runs: length, curves, recipes."""
    parts = ["## Training"]
    if hardware:
        parts.append(f"Hardware: {hardware}.")
    runs = figures["runs"]
    if runs:
        rows = [
            [
                run["name"],
                run["steps"],
                run["samples"],
                _time(run["seconds"]),
                _setting(run, "batch_size"),
                _setting(run, "learning_rate"),
                _setting(run, "seed"),
                _setting(run, "threads"),
            ]
            for run in runs
        ]
        heads = ["run", "steps", "pictures seen", "time", "batch", "learning rate", "seed"]
        parts += [table([*heads, "threads"], rows), _CURVES]
        parts += [_recipe(run) for run in runs if run["recipe"]]
    return "\n\n".join(parts)


def _recipe(run: dict[str, Any]) -> str:
    import yaml

    text = yaml.safe_dump(run["recipe"], sort_keys=False, default_flow_style=None, width=100)
    return (
        f"<details><summary>Recipe of {run['name']}</summary>\n\n```yaml\n{text}```\n\n</details>"
    )


def _setting(run: dict[str, Any], name: str) -> Any:
    return run["recipe"].get("train", {}).get(name, "-")


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
