"""Training on latents: both contexts, the held-out loss, whole runs, resuming, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import (
    UNITS,
    generator_recipe,
    log_of,
    run_generator,
    same,
    sizes,
)
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.backbone import BackboneConfig
from mmgen.models.flow import Noised
from mmgen.models.plan import Plan
from mmgen.models.schedule import to_slots
from mmgen.models.unified import UnifiedModel, Unit
from mmgen.models.units import plan_for
from mmgen.pipeline import Pipeline, SamplingDefaults
from mmgen.sample.engine import decode, last_step, text_prefix
from mmgen.sample.flow import SOLVERS, FlowDecider, FlowSettings
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.quantizers import KLConfig
from mmgen.train.flow_losses import (
    STRATA,
    FlowConfig,
    flow_loss,
    held_out_flow_loss,
    held_out_slots,
)
from mmgen.train.generator_task import GeneratorRecipe, GeneratorTask
from tests.tiny_latents import ORDERS, latent_config, latent_model, latents_of, texts, unit_of

GRID = (1, 4, 4)
LATENT_UNITS = tuple(unit_of(order) for order in ("cell:2", "scale:1,2,4", "raster"))

# -- losses --------------------------------------------------------------------------------------


def spied(model: Any) -> list[tuple[Noised, Plan, Tensor]]:
    """What the model is asked, and what it says."""
    asked: list[tuple[Noised, Plan, Tensor]] = []
    say = model.image_velocities

    def spy(ids: Tensor, valid: Tensor, latents: Tensor, noised: Noised, plan: Plan, unit: str):
        said = say(ids, valid, latents, noised, plan, unit)
        asked.append((noised, plan, said))
        return said

    model.image_velocities = spy
    return asked


@pytest.mark.parametrize("context", ["noisy", "clean"])
@pytest.mark.parametrize("order", ORDERS)
def test_the_loss_is_the_squared_error_of_velocities(order: str, context: Any) -> None:
    model, plan = latent_model(), plan_for(unit_of(order), GRID)
    asked, latents = spied(model), to_slots(plan.schedule, latents_of(GRID, 150))
    with torch.no_grad():
        loss = flow_loss(model, *texts([2] * 150), latents, plan, unit_of(order).name, context)
    ((noised, used, said),) = asked
    assert used.lane.any() == (context == "clean")
    t = noised.time[:, plan.schedule.block_of_slot, None]
    noise = noised.velocity + latents
    torch.testing.assert_close(noised.latents, (1 - t) * latents + t * noise)
    torch.testing.assert_close(loss, (said - noised.velocity).square().mean())
    # Logit-normal times, each block its own; standard normal noise.
    normal = torch.logit(noised.time.double())
    assert abs(float(normal.mean())) < 0.2 and abs(float(normal.std()) - 1) < 0.15
    assert abs(float(noise.std()) - 1) < 0.05 and abs(float((noise * latents).mean())) < 0.05
    if plan.schedule.blocks > 1:
        assert abs(float(torch.corrcoef(normal.T)[0, 1])) < 0.3


@pytest.mark.parametrize("order", ORDERS)
def test_the_held_out_loss_never_changes(order: str) -> None:
    """Clean context, the same times and noise each time, whatever the batch and the generator."""
    model, plan = latent_model(), plan_for(unit_of(order), GRID, seed=1)
    asked, latents = spied(model), to_slots(plan.schedule, latents_of(GRID, 16))
    (ids, valid), name = texts([2] * 16), unit_of(order).name

    def loss(start: int, end: int) -> float:
        torch.manual_seed(start)
        part = ids[start:end], valid[start:end], latents[start:end]
        return float(held_out_flow_loss(model, *part, plan, name, start))

    whole = loss(0, 16)
    assert loss(0, 16) == whole
    assert abs(np.mean([loss(start, start + 4) for start in range(0, 16, 4)]) - whole) < 1e-5
    noised, used, said = asked[0]
    assert used.lane.any()
    for block in range(plan.schedule.blocks):
        times = sorted(noised.time[:STRATA, block].tolist())
        assert times == pytest.approx([(i + 0.5) / STRATA for i in range(STRATA)])
    fine = held_out_slots(plan.schedule)
    assert float(F.mse_loss(said[:, fine], noised.velocity[:, fine])) == pytest.approx(whole)


def test_a_site_has_the_same_held_out_noise_in_every_order() -> None:
    model, noise = latent_model(), []
    asked = spied(model)
    for order in ORDERS:
        plan = plan_for(unit_of(order), GRID, seed=1)
        latents = to_slots(plan.schedule, latents_of(GRID, 2))
        held_out_flow_loss(model, *texts([2, 2]), latents, plan, unit_of(order).name, 3)
        drawn, fine = asked[-1][0].velocity + latents, held_out_slots(plan.schedule)
        assert len(torch.unique(drawn[0, :, 0])) == plan.schedule.slots
        sites = to_slots(plan.schedule, torch.arange(16.0).view(*GRID, 1)[None])[0, :, 0]
        noise.append(drawn[:, fine][:, sites[fine].argsort()])
    for each in noise[1:]:
        torch.testing.assert_close(each, noise[0])


@pytest.mark.parametrize("order", [*ORDERS, "scale:1,2,4", "scale:1,3,4", "scale:2,3,4"])
def test_held_out_latents_are_asked_for_once_and_were_not_shown(order: str) -> None:
    schedule = plan_for(unit_of(order), GRID, seed=1).schedule
    numbers = torch.arange(16.0).view(1, *GRID, 1)
    values, asked = to_slots(schedule, numbers)[0, :, 0].tolist(), held_out_slots(schedule)
    block = schedule.block_of_slot.tolist()
    for slot in asked.nonzero().squeeze(1).tolist():
        shown = {value for value, at in zip(values, block) if at < block[slot]}
        assert values[slot] not in shown
    assert sorted(torch.tensor(values)[asked].tolist()) == numbers.flatten().tolist()


def test_means_are_no_latents_to_ask_for() -> None:
    schedule = plan_for(unit_of("scale:1,2,4:area"), GRID).schedule
    assert torch.equal(held_out_slots(schedule), schedule.site >= 0)


@pytest.mark.parametrize("context", ["noisy", "clean"])
def test_what_is_learned_is_drawn_from_its_caption(context: Any) -> None:
    """Four pictures by heart: each text draws its own, whatever the solver and the seed."""
    torch.manual_seed(0)
    model, pictures = UnifiedModel(latent_config(GRID, ("cell:2",))), latents_of(GRID, 4)
    unit, (ids, valid) = model.config.units[0], texts([3] * 4)
    plan = plan_for(unit, GRID)
    latents, optimizer = to_slots(plan.schedule, pictures), torch.optim.AdamW(model.parameters())
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 8e-3 * (1 - step / 100)
        pick = torch.randint(4, (16,))
        loss = flow_loss(model, ids[pick], valid[pick], latents[pick], plan, unit.name, context)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    for solver in SOLVERS:
        with torch.inference_mode():
            prefix = text_prefix(model, unit.name, ids, valid)
        settings, seeds = FlowSettings(solver, 8), torch.arange(4)  # type: ignore[arg-type]
        decider = FlowDecider(model, plan, prefix.cursor.condition, seeds, settings)
        steps = decode(model, prefix, plan, unit.name, seeds, decider=decider)
        far = torch.cdist(last_step(steps).codes.flatten(1), pictures.flatten(1))
        assert far.argmin(1).tolist() == [0, 1, 2, 3]
        assert far.diag().max() < 0.5 * far[far > far.diag().max()].min()


# -- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def continuous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of latents (3 channels, 4x4 of a 16x16 picture) near unit variance."""
    torch.manual_seed(0)
    model = ConvTokenizer(sizes(KLConfig(channels=3, scale=2.0)))
    with torch.no_grad():
        model.to_code.bias[3:] = -6  # narrow posteriors
        model.to_code.weight[3:] = 0
    folder = tmp_path_factory.mktemp("vision")
    model.save_pretrained(folder)
    return folder


def latent_recipe(pictures: Path, vision: Path, out: Path, *words: int, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "units": LATENT_UNITS,
        "backbone": BackboneConfig(width=32, depth=2, heads=2, dropout=0.1, adaln=True),
        "sampling": SamplingDefaults(guidance_scale=1.5, steps=2, solver="euler"),
    }
    return generator_recipe(pictures, vision, out, *words, **values | changes)


@pytest.fixture(scope="module")
def generated(pictures: Path, continuous: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of six steps without a break."""
    out = tmp_path_factory.mktemp("runs") / "latents"
    run_generator(latent_recipe(pictures, continuous, out))
    return out


def test_a_run_leaves_a_pipeline_that_draws_and_captions(generated: Path, continuous: Path) -> None:
    pipe = Pipeline.from_pretrained(generated / "final")
    assert pipe.transformer.config.units == LATENT_UNITS and pipe.transformer.config.continuous
    assert pipe.vision.fingerprint == ConvTokenizer.from_pretrained(continuous).fingerprint
    for unit in LATENT_UNITS:
        output = pipe("a red thing", unit=unit.name, seed=1)
        assert output.codes.shape == (1, 1, 4, 4, 3)
        assert isinstance(pipe.caption(output.images[0])[0], str)
    line = log_of(generated)[-1]
    wanted = {"val_caption", *(f"val_{unit.name}" for unit in LATENT_UNITS)}
    assert set(line["eval"]) == wanted and all(0.1 < v < 10 for v in line["eval"].values())
    assert (generated / "previews" / "step-6.png").is_file()


def test_a_resumed_run_ends_with_the_same_bits(
    pictures: Path, continuous: Path, generated: Path, tmp_path: Path
) -> None:
    for steps in (3, 6):
        final = run_generator(latent_recipe(pictures, continuous, tmp_path, steps))
    assert same(final, generated / "final")
    assert log_of(tmp_path)[-1]["eval"] == log_of(generated)[-1]["eval"]


def test_contexts_learn_different_weights_and_both_losses_fall(
    pictures: Path, continuous: Path, tmp_path: Path
) -> None:
    finals = []
    for context in ("noisy", "clean"):
        flow = FlowConfig(context)  # type: ignore[arg-type]
        changes: dict[str, Any] = {"flow": flow, "caption_share": 0.0, "units": LATENT_UNITS[:1]}
        recipe: GeneratorRecipe = latent_recipe(
            pictures, continuous, tmp_path / context, 40, **changes
        )
        quick = replace(recipe.train, eval_every=40, preview_every=0, save_every=40)
        finals.append(run_generator(replace(recipe, train=quick)))
        losses = [line["losses"]["image"] for line in log_of(tmp_path / context)]
        assert np.mean(losses[-8:]) < np.mean(losses[:4]) - 0.2
    assert not same(*finals)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": UNITS}, "must say continuous: true, since the visual tokenizer has latents"),
        ({"backbone": BackboneConfig(width=32, depth=1, heads=2)}, "backbone.adaln must be true"),
        ({"code_noise": 0.5}, "code_noise is for codes"),
        ({"edit_share": 0.5}, "edit_share is for codes"),
        (
            {"sampling": SamplingDefaults(steps=(2, 2, 2, 2))},
            "4 numbers of steps for 3 blocks",
        ),
        ({"units": (Unit("x", "raster", "neighbors", continuous=True),)}, "Noise rows go with"),
    ],
)
def test_recipes_that_make_no_sense(
    pictures: Path, continuous: Path, generated: Path, tmp_path: Path, changes: Any, message: str
) -> None:
    tokens = str(generated / "tokens")
    with pytest.raises(ConfigError, match=message):
        GeneratorTask(latent_recipe(pictures, continuous, tmp_path, tokens=tokens, **changes))


def test_training_goes_on_from_a_pipeline_of_latents(
    pictures: Path, continuous: Path, generated: Path, tmp_path: Path
) -> None:
    init, tokens = str(generated / "final"), str(generated / "tokens")
    task = GeneratorTask(latent_recipe(pictures, continuous, tmp_path, init=init, tokens=tokens))
    assert task.model.fingerprint == Pipeline.from_pretrained(init).transformer.fingerprint
