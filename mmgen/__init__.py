"""mmgen: visual tokenizers and unified image-text transformers that predict the next unit."""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__"]

# In a checkout `models/`, `train/` ... lie beside this package; an installed wheel has them inside.
if not (_Path(__file__).parent / "models").is_dir():
    __path__.append(str(_Path(__file__).parent.parent))

if TYPE_CHECKING:
    from mmgen.pipeline import Pipeline


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from mmgen.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module 'mmgen' has no attribute {name!r}")
