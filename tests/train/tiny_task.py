"""A task that trains in milliseconds and uses every part of the loop.

Two networks (an autoencoder with dropout and a buffer, a critic that starts late), extra state,
and a data order from (seed, epoch).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from mmgen.train.loop import train
from mmgen.train.recipe import TrainConfig

SAMPLES = 40


@dataclass(frozen=True)
class TinyRecipe:
    train: TrainConfig
    width: int = 8
    dropout: float = 0.1
    names: dict[str, str] = field(default_factory=dict)


class TinyTask:
    def __init__(self, recipe: TinyRecipe) -> None:
        self.recipe, self.config = recipe, recipe.train
        generator = torch.Generator().manual_seed(self.config.seed)
        self.data = torch.randn(SAMPLES, 4, generator=generator)
        torch.manual_seed(self.config.seed)
        self.model = nn.Sequential(
            nn.Linear(4, recipe.width),
            nn.BatchNorm1d(recipe.width),
            nn.Dropout(recipe.dropout),
            nn.Unflatten(1, (2, recipe.width // 4, 2)),
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Flatten(),
            nn.Linear(recipe.width * 3 // 2, 4),
        )
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critic = nn.Linear(4, 1)
        self.noise_seen = torch.zeros(1)
        self.metrics: dict[str, float] = {}
        self.renewed: dict[str, Tensor] = {}
        self.phases: list[tuple[int, str]] = []

    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.model, "critic": self.critic}

    def batches(self, epoch: int, start_batch: int) -> Iterator[Tensor]:
        size = self.config.batch_size
        generator = torch.Generator().manual_seed(1000 * self.config.seed + epoch)
        order = torch.randperm(SAMPLES, generator=generator)
        for start in range(start_batch * size, SAMPLES - size + 1, size):
            yield self.data[order[start : start + size]]

    def losses(self, batch: Tensor, step: int, phase: str) -> dict[str, Tensor]:
        self.phases.append((step, phase))
        time.sleep(float(os.environ.get("TINY_PAUSE", "0")))
        drawn = self.model(batch)
        if phase == "critic":
            if step < 5:
                return {}
            return {"critic": (self.critic(drawn) - self.critic(batch)).mean()}
        losses = {"pixel": (drawn - batch).square().mean()}
        if step >= 5:
            losses["fool"] = -0.1 * self.critic(drawn).mean()
        self.metrics["size"] = float(drawn.detach().abs().mean())
        return losses

    def after_step(self, step: int) -> list[str]:
        self.noise_seen += torch.rand(1)
        return []

    def state(self) -> dict[str, Tensor]:
        return {"noise_seen": self.noise_seen}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.noise_seen.copy_(tensors["noise_seen"])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"error": float((model(self.data) - self.data).square().mean())}

    def preview(self, model: nn.Module) -> Image.Image | None:
        return Image.new("RGB", (4, 4), (self.config.seed, 0, 0))

    def remarks(self) -> list[str]:
        return ["Two samples were odd."]

    def export(self, model: nn.Module, folder: Path) -> None:
        tensors = {f"model.{name}": t.contiguous() for name, t in model.state_dict().items()}
        tensors["noise_seen"] = self.noise_seen
        save_file(tensors, folder / "model.safetensors")


def tiny_config(out: Path, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "steps": 30,
        "out": str(out),
        "batch_size": 8,
        "warmup_steps": 4,
        "learning_rate": 1e-2,
        "log_every": 1,
        "eval_every": 10,
        "preview_every": 10,
        "save_every": 4,
        "threads": 1,
    }
    return TrainConfig(**values | changes)


def run_tiny(out: Path, resume: bool = True, **changes: Any) -> Path:
    recipe = TinyRecipe(tiny_config(out, **changes))
    return train(TinyTask(recipe), recipe.train, recipe=recipe, resume=resume)


def run_apart(out: Path, told: Path, environment: dict[str, str], changes: dict[str, Any]) -> None:
    """Train in a process of its own, with what it prints in the file `told`."""
    os.environ.update(environment)
    with open(told, "a") as file:
        os.dup2(file.fileno(), 1)
    run_tiny(out, **changes)


def die_in_call(out: Path, number: int, changes: dict[str, Any]) -> None:
    """Train, and be killed at the `number`-th system call on files of the run folder."""
    count = 0
    calls = ("open", "os.rename", "os.mkdir", "os.chmod")
    removals = ("os.remove", "os.rmdir")  # their paths may be relative to a folder's handle

    def deadly(event: str, words: tuple[Any, ...]) -> None:
        nonlocal count
        if event in removals or (event in calls and str(words[0]).startswith(str(out))):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(deadly)
    run_apart(out, Path(os.devnull), {}, changes)
