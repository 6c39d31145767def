"""The loop around a step: log, accumulation, phases, previews, refusals, several processes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import TinyRecipe, TinyTask, run_apart, run_tiny, tiny_config
from torch import Tensor

from mmgen.errors import CheckpointError, ConfigError, DataError, UserError
from mmgen.train.log import RunLog
from mmgen.train.loop import train
from mmgen.train.optim import learning_rate


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run_tiny(out, steps=20, log_every=3, save_every=8, keep_last=2) == out / "final"
    names = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.parent.name != "step-16")
    assert [n for n in names if "step-20/" not in n] == [
        "checkpoints",
        "checkpoints/step-16",
        "checkpoints/step-20",
        "final",
        "final/model.safetensors",
        "log.jsonl",
        "previews",
        "previews/step-10.png",
        "previews/step-20.png",
        "run.yaml",
    ]
    lines = log_of(out)
    assert [line["step"] for line in lines] == [3, 6, 9, 10, 12, 15, 18, 20]
    assert [line["samples"] for line in lines] == [8 * line["step"] for line in lines]
    assert [line["step"] for line in lines if "eval" in line] == [10, 20]
    config = tiny_config(out, steps=20)
    for line in lines:
        assert line["lr"] == learning_rate(line["step"] - 1, config)
        assert 0 < line["data_seconds"] < line["seconds"]
        assert set(line["losses"]) == {"pixel"} | (
            {"fool", "critic"} if line["step"] > 5 else set()
        )
        assert "model" in line["grad_norm"]
        assert "size" in line["metrics"]
    told = capsys.readouterr().out
    assert "step 18/20  pixel" in told
    assert "Trained 20 steps; the result is in" in told


def test_log_lines_are_means_of_the_steps_between(tmp_path: Path) -> None:
    run_tiny(tmp_path / "each", steps=10, log_every=1, eval_every=0)
    run_tiny(tmp_path / "five", steps=10, log_every=5, eval_every=0)
    each, five = log_of(tmp_path / "each"), log_of(tmp_path / "five")
    for line, part in zip(five, (each[:5], each[5:])):
        mean = sum(one["losses"]["pixel"] for one in part) / 5
        assert line["losses"]["pixel"] == pytest.approx(mean, rel=1e-6)
        mean = sum(one["grad_norm"]["model"] for one in part) / 5
        assert line["grad_norm"]["model"] == pytest.approx(mean, rel=1e-6)


def test_log_drops_what_comes_after_the_checkpoint_and_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 2}\n{"step": 4}\n{"step": 6}\n{"step": 8, "losses": {"\xff')
    log = RunLog(path, 4)
    log.write({"step": 6, "psnr": float("inf"), "deep": {"nan": float("nan")}})
    text = '{"step": 2}\n{"step": 4}\n{"step": 6, "psnr": null, "deep": {"nan": null}}\n'
    assert path.read_text() == text


class Linear(TinyTask):
    """One network whose loss is a mean over samples, without noise."""

    def __init__(self, recipe: TinyRecipe) -> None:
        super().__init__(recipe)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 4))

    def networks(self) -> dict[str, torch.nn.Module]:
        return {"model": self.model}

    def losses(self, batch: Tensor, step: int, phase: str) -> dict[str, Tensor]:
        self.phases.append((step, phase))
        error = (self.model(batch) - batch).square().mean()
        return {"half": error / 2, "other half": error / 2}


def final(task: type[TinyTask], out: Path, **changes: Any) -> dict[str, Tensor]:
    recipe = TinyRecipe(tiny_config(out, **changes))
    return load_file(train(task(recipe), recipe.train, recipe=recipe) / "model.safetensors")


@pytest.mark.parametrize("clip", [None, 0.5])
def test_accumulation_equals_a_big_batch(tmp_path: Path, clip: float | None) -> None:
    big = final(Linear, tmp_path / "1", batch_size=8, clip_norm=clip)
    small = final(Linear, tmp_path / "2", batch_size=2, accumulation=4, clip_norm=clip)
    other = final(Linear, tmp_path / "3", batch_size=2, accumulation=1, clip_norm=clip)
    for name in ("model.0.weight", "model.0.bias"):
        assert torch.allclose(big[name], small[name], atol=2e-6)
        assert not torch.allclose(big[name], other[name], atol=1e-3)
    # AdamW hardly sees the scale of a gradient; its norm does.
    norms = [[line["grad_norm"]["model"] for line in log_of(tmp_path / n)] for n in ("1", "2")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_phases_train_one_network_at_a_time(tmp_path: Path) -> None:
    class Watching(TinyTask):
        def losses(self, batch: Tensor, step: int, phase: str) -> dict[str, Tensor]:
            for name, network in self.networks().items():
                assert all(p.requires_grad == (name == phase) for p in network.parameters())
                assert all(p.grad is None for p in network.parameters())
            losses = super().losses(batch, step, phase)
            if losses:
                now = [p.detach().clone() for p in self.networks()[phase].parameters()]
                self.seen = getattr(self, "seen", {})
                before = self.seen.get(phase)
                assert before is None or not all(map(torch.equal, now, before))
                self.seen[phase] = now
            return losses

    recipe = TinyRecipe(tiny_config(tmp_path, steps=8))
    task = Watching(recipe)
    start = [p.clone() for p in task.critic.parameters()]
    train(task, recipe.train, recipe=recipe)
    assert task.phases == [(step, name) for step in range(8) for name in ("model", "critic")]
    assert all(p.requires_grad for n in task.networks().values() for p in n.parameters())
    assert not torch.equal(start[0], task.critic.weight)
    skipped = final(TinyTask, tmp_path / "5", steps=5)  # the critic's losses start at step 5
    assert skipped["noise_seen"].item() > 0
    assert "critic" not in log_of(tmp_path / "5")[-1]["grad_norm"]


def test_seed_decides(tmp_path: Path) -> None:
    first, same = (final(TinyTask, tmp_path / n, seed=1) for n in ("a", "b"))
    other = final(TinyTask, tmp_path / "c", seed=2)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["noise_seen"], other["noise_seen"])


def test_batches_follow_the_epochs(tmp_path: Path) -> None:
    calls = []

    class Asked(TinyTask):
        def batches(self, epoch: int, start_batch: int) -> Iterator[Tensor]:
            calls.append((epoch, start_batch))
            return super().batches(epoch, start_batch)

    for steps in (5, 7, 11):  # an epoch has 5 batches
        final(Asked, tmp_path, steps=steps)
    assert calls == [(0, 0), (0, 5), (1, 0), (1, 2), (2, 0)]


def test_no_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower batch_size"):
        final(TinyTask, tmp_path, batch_size=41)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops_before_saving(tmp_path: Path, value: float) -> None:
    class Bad(TinyTask):
        def losses(self, batch: Tensor, step: int, phase: str) -> dict[str, Tensor]:
            losses = super().losses(batch, step, phase)
            return {name: loss * value if step == 6 else loss for name, loss in losses.items()}

    with pytest.raises(UserError, match=r"The loss 'pixel' is .* by step 8"):
        final(Bad, tmp_path, log_every=100, eval_every=0, save_every=4)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-4"]


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    run_tiny(tmp_path, steps=4)
    with pytest.raises(
        CheckpointError, match=r"train\.learning_rate is 0\.01 there and 0\.02 here"
    ):
        run_tiny(tmp_path, steps=4, learning_rate=0.02)
    with pytest.raises(CheckpointError, match="already holds a run"):
        run_tiny(tmp_path, steps=4, resume=False)
    (tmp_path / "run.yaml").unlink()
    with pytest.raises(CheckpointError, match="belongs to another recipe"):
        run_tiny(tmp_path, steps=4, learning_rate=0.02)
    run_tiny(tmp_path, steps=6, log_every=2, save_every=3, keep_last=1, eval_every=3)
    with pytest.raises(ConfigError, match="already trained 6 steps"):
        run_tiny(tmp_path, steps=5)
    assert [line["step"] for line in log_of(tmp_path)] == [1, 2, 3, 4, 6]
    (tmp_path / "run.yaml").write_text("train: {steps: 3, out: x}\nheight: 3\n")
    with pytest.raises(CheckpointError, match=r"no key 'height'.* Then name another"):
        run_tiny(tmp_path, steps=6)


def test_a_failed_start_does_not_bind(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run_tiny(tmp_path, batch_size=41)
    run_tiny(tmp_path, steps=2, batch_size=8, resume=False)


def test_damaged_checkpoint_is_ignored_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tiny(tmp_path / "whole", steps=12)
    run_tiny(tmp_path / "hurt", steps=12)
    path = tmp_path / "hurt" / "checkpoints" / "step-12" / "network-model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    run_tiny(tmp_path / "hurt", steps=12)
    told = capsys.readouterr().out
    assert "step-12 is ignored: network-model.safetensors is missing or damaged" in told
    assert "Going on from step 8" in told
    same = [(tmp_path / n / "final" / "model.safetensors").read_bytes() for n in ("whole", "hurt")]
    assert same[0] == same[1]


def test_choices_that_cannot_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        run_tiny(tmp_path, trackers=("tensorbord",))
    with pytest.raises(ConfigError, match="'dvclive' is not installed"):
        run_tiny(tmp_path, trackers=("dvclive",))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="fp16 needs a GPU"):
            run_tiny(tmp_path, mixed_precision="fp16")
    assert list(tmp_path.iterdir()) == []


def test_precisions_in_one_process(tmp_path: Path) -> None:
    full = final(TinyTask, tmp_path / "full")
    half = final(TinyTask, tmp_path / "half", mixed_precision="bf16")
    assert not torch.equal(full["model.0.weight"], half["model.0.weight"])
    assert torch.allclose(full["model.0.weight"], half["model.0.weight"], atol=0.05)
    assert half["model.0.weight"].dtype == torch.float32


def test_training_outside_the_main_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=run_tiny, args=(tmp_path,), kwargs={"steps": 3})
    thread.start()
    thread.join()
    assert (tmp_path / "final" / "model.safetensors").is_file()


def test_two_processes_equal_two_accumulated_batches(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    running = []
    for rank in ("0", "1"):
        place = {**shared, "RANK": rank, "LOCAL_RANK": rank}
        arguments = (tmp_path / "two", tmp_path / rank, place, {"batch_size": 4})
        running.append(processes.Process(target=run_apart, args=arguments))
        running[-1].start()
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0, 0]
    assert "Trained 30 steps" in (tmp_path / "0").read_text()
    assert "step" not in (tmp_path / "1").read_text()
    run_tiny(tmp_path / "one", batch_size=4, accumulation=2)
    one, two = (
        load_file(tmp_path / name / "final" / "model.safetensors") for name in ("one", "two")
    )
    for name in (n for n in one if "running" not in n and "tracked" not in n):
        assert torch.allclose(one[name], two[name], atol=1e-5), name
    lines = zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"))
    for first, second in lines:
        assert first["step"] == second["step"]
        assert first["samples"] == second["samples"] == 8 * first["step"]
        for name, value in first["losses"].items():
            assert second["losses"][name] == pytest.approx(value, abs=1e-4)
