"""Saving and loading of networks: a folder with `config.json` and `model.safetensors`.

Strict both ways: an unknown configuration key, a missing or an unexpected tensor is an error,
and nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mmgen.config import from_dict, to_dict, without_later
from mmgen.errors import CheckpointError
from mmgen.files import read_json, replacing, write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Saved:
    """Mixin of a `torch.nn.Module` whose constructor takes one typed configuration.

    A subclass names its dataclass in `config_class` and keeps the instance as `self.config`.
    """

    config_class: ClassVar[type[Any]]
    config: Any

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write configuration and weights to `folder`.

        Args:
            folder: created if it does not exist.
            dtype: floating-point weights are stored in this type (default: as they are).
        """
        from safetensors.torch import save_file

        tensors = {
            name: (t.to(dtype) if dtype and t.is_floating_point() else t).contiguous().cpu()
            for name, t in self.state_dict().items()  # type: ignore[attr-defined]
        }
        described = {"class": type(self).__name__, **to_dict(self.config)}
        write_json(Path(folder) / CONFIG_FILE, described)
        with replacing(Path(folder) / WEIGHTS_FILE) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a network from a folder that `save_pretrained` wrote; float weights become float32.

        Raises:
            CheckpointError: the folder or a file is missing or damaged, or the tensors do not fit.
            ConfigError: the configuration has an unknown key or a value of the wrong type.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(f"There is no folder {folder}; give one that holds a model.")
        data = read_json(folder / CONFIG_FILE)
        if not isinstance(data, dict):
            raise CheckpointError(f"{folder / CONFIG_FILE} is damaged; copy the folder again.")
        found = data.pop("class", cls.__name__)
        if found != cls.__name__:
            raise CheckpointError(f"{folder} holds a {found}, not a {cls.__name__}.")
        config = from_dict(cls.config_class, data, str(folder / CONFIG_FILE))
        model: Any = cls(config)  # type: ignore[call-arg]
        load_strictly(model, read_tensors(folder / WEIGHTS_FILE), str(folder / WEIGHTS_FILE))
        return model.eval()  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> str:
        """Hash of configuration and weights (first 16 hexadecimal digits of SHA-256)."""
        return self.hash_of_weights()

    def hash_of_weights(self, prefixes: tuple[str, ...] = ("",)) -> str:
        """Hash of the configuration and of the tensors whose names begin with a prefix."""
        described = json.dumps(without_later(self.config), sort_keys=True)
        digest = hashlib.sha256(described.encode())
        for name, tensor in sorted(self.state_dict().items()):  # type: ignore[attr-defined]
            if name.startswith(prefixes):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
        return digest.hexdigest()[:16]


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; half-precision floats become float32.

    Raises:
        CheckpointError: the file is missing or is not a whole safetensors file.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}; the folder is incomplete.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it again.") from None
    half = (torch.float16, torch.bfloat16)
    return {name: t.float() if t.dtype in half else t for name, t in tensors.items()}


def load_strictly(network: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Load a state dict into a network, strictly both ways.

    Args:
        network: whose tensors are overwritten.
        tensors: by name.
        where: what to call the file in messages.

    Raises:
        CheckpointError: as `refuse_misfits`; the network stays as it was.
    """
    refuse_misfits(network.state_dict(), tensors, where)
    network.load_state_dict(tensors)


def refuse_misfits(
    own: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    where: str,
    called: Callable[[str], str] = str,
) -> None:
    """Refuse tensors that are not those of a network.

    Args:
        own: the network's, by name.
        tensors: those that shall take their place.
        where: what to call the file in messages.
        called: what to call a tensor in messages, by its name.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; names the first three.
    """
    faults = {
        "lacks": [name for name in own if name not in tensors],
        "has": [name for name in tensors if name not in own],
    }
    for verb, names in faults.items():
        if names:
            raise CheckpointError(
                f"{where} {verb} {listed('tensor', names, called)} for this network."
            )
    shapes = [
        f"{called(name)} {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if tensors[name].shape != tensor.shape
    ]
    if shapes:
        raise CheckpointError(
            f"{where} holds other sizes ({'; '.join(shapes[:3])}); check the configuration."
        )


def listed(noun: str, names: Sequence[str], called: Callable[[str], str] = str) -> str:
    """The first three of several things by name: "the tensors a, b, c and 4 more"."""
    first = ", ".join(map(called, names[:3]))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the {noun}{'s' if len(names) > 1 else ''} {first}{more}"
