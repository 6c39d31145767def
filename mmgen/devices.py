"""Which device work runs on: the one asked for, or the best that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmgen.errors import ConfigError

if TYPE_CHECKING:
    import torch


def usable_device(name: str | torch.device | None = None) -> torch.device:
    """Return a device that tensors can be put on.

    Args:
        name: such as "cpu", "cuda:1" or "mps"; None: a CUDA card if one answers, else the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:  # torch's own words list twenty kinds of device
        raise ConfigError(
            f"The device '{name}' cannot be used (no such kind); take cpu, cuda or mps."
        ) from None
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ConfigError(
            f"The device '{name}' cannot be used ({reason}); `mmgen doctor` says what can."
        ) from None
    if device.type == "meta":
        raise ConfigError("The device 'meta' computes nothing; take cpu, cuda or mps.")
    return device
