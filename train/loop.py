"""One training loop for every task: `train(task, config)`.

Exact resume: a run that is killed at any point and started again ends with the same bits as one
that was not (CPU, same number of threads). Everything random is drawn from generators that are
seeded with a hash of (seed, step, phase, batch of the step) immediately before use, and batches
come from (seed, epoch, position); so no generator state has to be stored.

Several processes (`accelerate launch`): process r takes every world-th batch of a step, gradients
are averaged, the main process writes. Two processes equal two accumulated batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from mmgen.config import to_dict
from mmgen.errors import UserError
from mmgen.files import replacing
from mmgen.train import checkpoint as checkpoints
from mmgen.train.launch import Stop, make_accelerator
from mmgen.train.log import Means, Reporter, RunLog
from mmgen.train.optim import learning_rate
from mmgen.train.recipe import TrainConfig, fingerprint, flatten
from mmgen.train.state import TrainState
from mmgen.train.step import seed_step, train_step
from mmgen.train.task import Task

__all__ = ["Task", "train"]


def train(task: Task, config: TrainConfig, *, recipe: Any = None, resume: bool = True) -> Path:
    """Train until `config.steps`, going on from the newest checkpoint in `config.out`.

    Args:
        task: what is trained.
        config: settings of the loop.
        recipe: the whole recipe (a dataclass that holds `config`), stored in `run.yaml`; a run
            folder is only continued with the same one. Default: `config` alone.
        resume: false: refuse a folder that already holds checkpoints.

    Returns:
        The folder with the task's final product (`out/final`).

    Raises:
        UserError: the folder belongs to another recipe, the loss is not finite, no data, ...
        SystemExit: SIGTERM or SIGINT came; the checkpoint is written and the exit code is 128 plus
            the signal's number, as a shell reports it.
    """
    accelerator = make_accelerator(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    run = _Run(task, config, config if recipe is None else recipe, accelerator)
    run.start(resume)
    try:
        return run.to_the_end()
    finally:
        run.close()


class _Run:
    """A run in its folder: what happens around the steps."""

    def __init__(
        self, task: Task, config: TrainConfig, recipe: Any, accelerator: Accelerator
    ) -> None:
        self.task, self.config, self.recipe, self.accelerator = task, config, recipe, accelerator
        self.out = Path(config.out)
        self.main = accelerator.is_main_process
        self.reporter = Reporter(config.steps, quiet=not self.main)
        self.state = TrainState(task, config, accelerator)
        self.log: RunLog | None = None

    def start(self, resume: bool) -> None:
        """Open the run folder and load the newest checkpoint if there is one."""
        state = self.state
        found, warnings = checkpoints.open_run(self.out, self.recipe, resume, self.accelerator)
        if found is not None:
            warnings += state.restore(found)
            self.reporter.say(f"Going on from step {state.step} ({found}).")
        self._warn(warnings)
        checkpoints.refuse_past(self.out, state.step, self.config.steps)
        if self.main:
            self.log = RunLog(self.out / "log.jsonl", state.step)
        if self.config.trackers:
            settings = {k: str(v) for k, v in flatten(to_dict(self.recipe)).items()}
            self.accelerator.init_trackers(self.out.name, settings)

    def to_the_end(self) -> Path:
        """Do the remaining steps and export, or stop early when a signal asks for it."""
        state, steps, stopping = self.state, self.config.steps, False
        with Stop(self.accelerator) as stop, self.reporter.live(state.step):
            while state.step < steps and not stopping:
                self._warn(train_step(state, self.config))
                self.reporter.advance(state.step)
                stopping = stop.requested()
                self._after_step(stopping)
        if state.step < steps:
            self.reporter.say(
                f"Stopped by {stop.name} after step {state.step}, which is saved in {self.out}; "
                "the same command goes on from there."
            )
            raise SystemExit(128 + stop.number)
        return self._export()

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _after_step(self, stopping: bool) -> None:
        """Evaluate, preview, log and save where it is time."""
        config, end = self.config, self.state.step == self.config.steps
        scores = self._evaluate() if self._due(config.eval_every, end) else {}
        if self._due(config.preview_every, end):
            self._preview()
        saving = self._due(config.save_every, end or stopping)
        logging = self._due(config.log_every, end) or bool(scores)
        if logging or saving:
            self._check_finite()
        if logging:
            self._report(scores)
        if saving and self.main:
            saved = self.state.checkpoint(fingerprint(self.recipe))
            checkpoints.save(self.out / "checkpoints", saved, config.keep_last)
        self.accelerator.wait_for_everyone()

    def _due(self, every: int, anyway: bool) -> bool:
        return every > 0 and (anyway or self.state.step % every == 0)

    @contextmanager
    def _averaged(self, purpose: str) -> Iterator[nn.Module]:
        seed_step(self.config.seed, self.state.step, purpose)
        with torch.no_grad(), self.state.ema.applied(self.state.model) as model:
            yield model

    def _evaluate(self) -> dict[str, float]:
        if not self.main:
            return {}
        with self._averaged("evaluate") as model:
            return self.task.evaluate(model)

    def _preview(self) -> None:
        if not self.main:
            return
        with self._averaged("preview") as model:
            picture = self.task.preview(model)
        if picture is not None:
            path = self.out / "previews" / f"step-{self.state.step}.png"
            with replacing(path) as temporary:
                picture.save(temporary)

    def _export(self) -> Path:
        folder = self.out / "final"
        if self.main:
            with (
                self._averaged("export") as model,
                checkpoints.replacing_folder(folder) as place,
            ):
                self.task.export(model, place)
            self.reporter.say(f"Trained {self.state.step} steps; the result is in {folder}.")
            for remark in self.task.remarks():
                self.reporter.say(remark)
        self.accelerator.wait_for_everyone()
        return folder

    def _check_finite(self) -> None:
        means = self.state.window.means()
        for group, what in (("losses", "loss"), ("grad_norm", "gradient norm of")):
            for name, value in means.get(group, {}).items():
                if not math.isfinite(value):
                    raise UserError(
                        f"The {what} '{name}' is {value} by step {self.state.step} of {self.out}; "
                        "lower learning_rate or clip_norm and train into another `out`."
                    )

    def _report(self, scores: dict[str, float]) -> None:
        state = self.state
        means, state.window = state.window.means(), Means()
        record: dict[str, Any] = {
            "step": state.step,
            "losses": self._over_processes(means.get("losses", {})),
            "metrics": means.get("metrics", {}),
            "lr": learning_rate(state.step - 1, self.config),
            "grad_norm": means.get("grad_norm", {}),
            **means["time"],
            "samples": state.samples,
        }
        if scores:
            record["eval"] = scores
        if self.log is not None:
            self.log.write(record)
        self.reporter.report(record)
        self.accelerator.log(flatten(record), step=state.step)

    def _over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return values
        numbers = torch.tensor(list(values.values()), device=self.accelerator.device)
        return dict(zip(values, self.accelerator.reduce(numbers, "mean").tolist()))

    def _warn(self, warnings: list[str]) -> None:
        for warning in warnings:
            self.reporter.say(f"Warning: {warning}")
