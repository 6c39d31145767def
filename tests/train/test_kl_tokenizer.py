"""Training of KL tokenizers: draws that resume exactly, a scale that is measured, a way out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import log_of, run_tokenizer, same, sizes, tokenizer_recipe

from mmgen.errors import ConfigError, UserError
from mmgen.published.diffusers_kl_export import WEIGHTS_FILE, export
from mmgen.published.importing import import_files
from mmgen.tokenizers_vis.conv import ConvTokenizer
from mmgen.tokenizers_vis.quantizers import KLConfig
from mmgen.train import latent_scale
from mmgen.train.bottlenecks import watch_of
from mmgen.train.latent_scale import shuffled_pixels, with_unit_variance
from mmgen.train.tokenizer_task import TokenizerTask

MODEL = sizes(KLConfig(channels=4, weight=1e-2))
METRICS = {"latent_std", "posterior_std", "nats", "idle_channels"}


@pytest.fixture(scope="module")
def continuous(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of six steps without a break."""
    out = tmp_path_factory.mktemp("runs") / "kl"
    run_tokenizer(tokenizer_recipe(pictures, out, model=MODEL))
    return out


def scale_of(model: ConvTokenizer) -> float:
    assert isinstance(model.config.quantizer, KLConfig)
    return model.config.quantizer.scale


def drawn(model: ConvTokenizer, pixels: torch.Tensor) -> torch.Tensor:
    """Latents of many draws."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(pixels), *model.grid_for(pixels.shape[-2:]), model.channels)
    with torch.no_grad():
        draws = [
            model.encode(pixels, torch.randn(shape, generator=generator)).latents
            for _ in range(200)
        ]
    return torch.stack([draw for draw in draws if draw is not None])


def test_a_run_leaves_latents_of_unit_variance(
    pictures: Path, continuous: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ConvTokenizer.from_pretrained(continuous / "final")
    assert scale_of(model) != 1
    assert latent_scale.rescaled(model.config) == MODEL
    task = TokenizerTask(tokenizer_recipe(pictures, continuous, model=MODEL))
    pixels = torch.cat([batch.pixels for batch in task.batches(0, 0)])
    assert abs(float(drawn(model, pixels).std()) - 1) < 0.01
    lines = log_of(continuous)
    for line in lines:
        assert {"l1", "kl"} <= set(line["losses"]) and set(line["metrics"]) >= METRICS
        assert "code_use" not in line["metrics"]
    assert 5 < lines[-1]["eval"]["psnr"] < 60


def test_resuming_ends_with_the_same_bits(
    pictures: Path, continuous: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for steps in (3, 6):
        run_tokenizer(tokenizer_recipe(pictures, out, steps, model=MODEL))
    assert same(out / "final", continuous / "final")
    one, two = (ConvTokenizer.from_pretrained(run / "final") for run in (out, continuous))
    assert one.config == two.config and one.fingerprint == two.fingerprint
    keep = ("step", "losses", "metrics", "eval")
    lines = [[{k: line.get(k) for k in keep} for line in log_of(o)] for o in (out, continuous)]
    assert lines[0] == lines[1]
    said = f"Latents are multiplied by {scale_of(one)} to have unit variance (measured on 8 pict"
    out_loud = capsys.readouterr().out
    assert said in out_loud and "Warning" not in out_loud


def test_the_scale_is_the_inverse_of_the_deviation() -> None:
    torch.manual_seed(0)
    model, pixels = ConvTokenizer(MODEL).eval(), torch.rand(6, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        model.to_code.weight[:4] *= 20  # the means; wild variances would need more draws
    wide = float(drawn(model, pixels).std())
    scaled, said = with_unit_variance(model, pixels.split(4))
    assert scale_of(model) == 1 and abs(scale_of(scaled) * wide - 1) < 0.01
    again, _ = with_unit_variance(scaled, [pixels])  # from another scale to the same one
    assert abs(scale_of(again) / scale_of(scaled) - 1) < 1e-5
    assert said == [
        f"Latents are multiplied by {scale_of(scaled)} to have unit variance (measured on 6 "
        "pictures)."
    ]
    with torch.no_grad():  # the pictures stay what they are
        before, after = (m.decode(m.encode(pixels)) for m in (model, scaled))
        torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)
        model.to_code.weight *= float("nan")
    with pytest.raises(UserError, match="which no scale can mend"):
        with_unit_variance(model, [pixels])


def test_a_large_set_is_measured_in_part(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = TokenizerTask(tokenizer_recipe(pictures, tmp_path, model=MODEL)).dataset
    calls: list[tuple[int, int]] = []

    def count(most: int) -> list[int]:
        monkeypatch.setattr(latent_scale, "MOST", most)
        calls.clear()
        shown = shuffled_pixels(dataset, 2, 0, lambda *done: calls.append(done))
        return [len(pixels) for pixels in shown]

    assert count(20_000) == [2] * 5 and calls[-1] == (10, 10)
    assert count(5) == [2, 2] and calls == [(2, 4), (4, 4)]
    assert count(1) == [2]


def test_training_goes_on_from_a_measured_tokenizer(
    pictures: Path, continuous: Path, tmp_path: Path
) -> None:
    init = str(tmp_path / "init")
    found = ConvTokenizer.from_pretrained(continuous / "final")
    first = ConvTokenizer(latent_scale.rescaled(found.config, 0.5))  # not what would be measured
    first.load_state_dict(found.state_dict())
    first.save_pretrained(init)
    changes = {"init": init, "model": MODEL}
    frozen = run_tokenizer(
        tokenizer_recipe(pictures, tmp_path / "frozen", 2, freeze_codes=True, **changes)
    )
    kept = ConvTokenizer.from_pretrained(frozen)
    assert kept.fingerprint == first.fingerprint  # with the scale that generators know
    assert not torch.equal(kept.decoder.conv_out.weight, first.decoder.conv_out.weight)
    assert "kl" not in log_of(tmp_path / "frozen")[0]["losses"]
    moved = run_tokenizer(tokenizer_recipe(pictures, tmp_path / "moved", 2, **changes))
    assert abs(scale_of(ConvTokenizer.from_pretrained(moved)) / scale_of(found) - 1) < 0.2
    other = {**changes, "model": sizes(KLConfig(channels=5))}
    with pytest.raises(ConfigError, match="has other sizes than `model`"):
        TokenizerTask(tokenizer_recipe(pictures, tmp_path, **other))


def test_a_decoder_learns_from_draws_though_codes_are_frozen(
    pictures: Path, continuous: Path, tmp_path: Path
) -> None:
    changes = {"init": str(continuous / "final"), "model": MODEL, "freeze_codes": True}
    task = TokenizerTask(tokenizer_recipe(pictures, tmp_path, **changes))
    task.model.train()
    batch, losses = next(task.batches(0, 0)), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(task.losses(batch, 0, "model")["l1"].detach()))
    assert losses[0] == losses[1] != losses[2]


def test_a_posterior_that_says_nothing_is_told(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heavy = sizes(KLConfig(channels=4, weight=1e4))
    run_tokenizer(tokenizer_recipe(pictures, tmp_path, 5, model=heavy))
    assert "Warning: 4 of 4 channels of the latents say nothing" in capsys.readouterr().out
    model = ConvTokenizer(MODEL)
    watch, moments = watch_of(model, 2), torch.randn(2, 4, 4, 8)
    watch.see(moments, model.quantizer(moments))
    assert watch.warning() is None and watch.metrics()["idle_channels"] == 0
    moments[..., [0, 2, 4, 6]] = 0  # means and log-variances of two channels
    watch.see(moments, model.quantizer(moments))
    said = watch.warning()
    assert said is not None and said.startswith("2 of 4 channels of the latents say nothing")


def test_what_was_trained_goes_to_diffusers_and_back(pictures: Path, tmp_path: Path) -> None:
    plain = replace(
        MODEL, patch_size=1, widths=(8, 16), decoder_res_blocks=2, z_channels=4, norm_groups=4
    )
    final = run_tokenizer(tokenizer_recipe(pictures, tmp_path / "run", 2, model=plain))
    trained = ConvTokenizer.from_pretrained(final)
    export(trained, tmp_path / "theirs")
    options = json.loads((tmp_path / "theirs" / "config.json").read_text())
    import_files("kl16", [tmp_path / "theirs" / WEIGHTS_FILE], options, tmp_path / "ours")
    back = ConvTokenizer.from_pretrained(tmp_path / "ours" / "vision")
    assert scale_of(back) == scale_of(trained) != 1
    ours, theirs = trained.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
