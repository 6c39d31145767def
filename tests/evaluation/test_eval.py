"""`mmgen eval` on a tiny pipeline and a small part of the emoji set, with small networks."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny_drawing import conditional_pipeline
from tiny_emoji import Small, few_items
from tiny_latents import latent_pipeline
from tiny_pipeline import SIZE, tiny_pipeline, write_pictures

from mmgen.cli import app
from mmgen.data.packing import pack
from mmgen.data.sources import open_source
from mmgen.errors import UserError
from mmgen.evaluation import features, generator, inception, lpips
from mmgen.evaluation.adm import write_samples
from mmgen.evaluation.asking import PROMPT
from mmgen.evaluation.batches import evaluate_pictures, open_batch
from mmgen.evaluation.damage import damage_figures
from mmgen.evaluation.expected import Expected
from mmgen.evaluation.held_out import encode, fidelity, held_out_losses
from mmgen.evaluation.inception import Reference, Seen, standard_figures
from mmgen.evaluation.judge import Judge
from mmgen.evaluation.likelihood import caption_ranks
from mmgen.evaluation.real import open_real
from mmgen.evaluation.real_figures import real_figures
from mmgen.evaluation.results import Result, flat
from mmgen.files import read_json
from mmgen.saving import read_tensors
from mmgen.scoring import score_codes

ROOT = Path(__file__).resolve().parents[2]
NARROW = (8, 6, 12)  # of Inception's 2048, 2023 and 1008 numbers


class Glance:
    """Stands in for Inception: each number is a fixed mixture of a picture's mean colour."""

    hash, protocol = "glance", "mean colour"

    def __init__(self, weights: object = None, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        mixture = np.random.default_rng(0).normal(size=(3, sum(NARROW)))
        return (pictures.mean((1, 2)) / 255 @ mixture).astype(np.float32)


class Near:
    """Stands in for LPIPS: the mean difference."""

    def __init__(self, network: str, backbone: Path, channels: Path, device: object) -> None:
        self.files = (network, str(backbone), str(channels))

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).abs().flatten(1).mean(1)

    def described(self) -> dict[str, Any]:
        return {"rule": self.files[0]}


@contextmanager
def quiet(_title: str) -> Iterator[Any]:
    yield lambda done, total: None


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "FeatureExtractor", Small)
    monkeypatch.setattr(inception, "Inception", Glance)
    monkeypatch.setattr(inception, "WIDTHS", NARROW)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


def run(*words: object) -> tuple[int, str]:
    """Exit code and what was said; a user's mistake is its sentence."""
    done = CliRunner().invoke(app, ["eval", *map(str, words)])
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


# -- generators ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(pipeline: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Result and words of the shortest evaluation with test splits and standard metrics."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "FeatureExtractor", Small)
        patch.setattr(inception, "Inception", Glance)
        patch.setattr(inception, "WIDTHS", NARROW)
        words = ("--unit", "neighbor", "--unit", "block", "--pictures", 5, "--batch", 8)
        cache = folder / "f.safetensors"
        code, said = run(
            *("generator", pipeline, "--data", data, *words, "--final", "--inception", "x"),
            *("--features-cache", cache, "--json", folder / "r.json"),
        )
    assert code == 0 and cache.is_file() and (folder / "f-inception.safetensors").is_file()
    return folder / "r.json", said


def test_a_generator_is_measured_unit_by_unit(measured: tuple[Path, str]) -> None:
    result = Result.read(measured[0])
    sets = {"train", "fresh", "val", "test_pair_restyle", "test_pair_new", "test_concept"}
    assert set(result.figures["real"]) == sets
    units = result.figures["units"]
    assert [(name, u["steps"]) for name, u in units.items()] == [("neighbor", 7), ("block", 4)]
    for unit in units.values():
        assert set(unit["sets"]) == sets and set(unit["pictures_a_second"]) == {"1", "16"}
        assert all(speed > 0 for speed in unit["pictures_a_second"].values())
        found = unit["sets"]["train"]
        assert found["concept"]["count"] == 5 and -1 <= found["copying"]["median"] <= 1
    real = result.figures["real"]["train"]
    assert real["concept"]["top1"] == 1 > units["block"]["sets"]["train"]["concept"]["top1"]
    standard = result.figures["standard"]
    assert set(standard) == {"neighbor", "block", "real"} and standard["block"]["pictures"] == 5
    # The training pictures themselves: all are inside, and few of them are still not all.
    assert standard["real"]["precision"] == 1 and standard["real"]["fid"] > 0
    assert standard["real"]["fid"] < standard["block"]["fid"]
    captions = result.figures["captions"]
    assert set(captions) == {"val", "test_pair", "test_concept"}
    assert captions["val"]["rank"]["low"] >= 1 and captions["val"]["pictures"] == 4  # all of them


def test_the_protocol_says_what_must_agree_and_what_may_differ(
    measured: tuple[Path, str],
) -> None:
    result = Result.read(measured[0])
    rules, made = result.protocol, result.made_with
    assert rules["features"]["hash"] == "small" and "224" in rules["features"]["resizing"]
    assert rules["settings"] | {"pictures": 5, "seed": 0} == rules["settings"]
    assert rules["sampling"]["temperature"] == 1.0 and rules["first_seeds"]["val"] == 7_000_000
    assert rules["data"]["pictures"] == len(few_items()) and rules["inception"]["hash"] == "glance"
    assert {"weights", "mmgen", "torch", "machine", "device"} <= set(made)
    assert not {"weights", "mmgen", "torch"} & set(rules)
    for needed in ("features.hash", "small", made["weights"], "nothing may be chosen", "real"):
        assert needed in measured[1], needed


def test_kid_says_how_many_pictures_a_draw_had(measured: tuple[Path, str]) -> None:
    result = Result.read(measured[0])
    assert result.protocol["kid"] == {"draws": 50, "size_at_most": 200, "seed": 0}
    found = result.figures["units"]["block"]["sets"]["train"]
    assert found["kid_size"] == 5 and f"{found['kid']:.4f} (5)" in measured[1]


def test_pictures_drawn_at_a_time_may_differ(measured: tuple[Path, str]) -> None:
    result = Result.read(measured[0])
    assert result.made_with["batch"] == 8 and "batch" not in result.protocol["settings"]


def test_speed_is_that_of_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []

    def pipeline(prompts: list[str], **_: Any) -> None:
        drawn.append(prompts)

    asks = [SimpleNamespace(prompt=prompt) for prompt in ("a cat", "a dog", "a cup")]
    bench: Any = SimpleNamespace(pipeline=pipeline, asks=lambda _: asks, stage=quiet)
    assert set(generator.speed(bench, "token", (1, 16))) == {"1", "16"}
    assert {len(prompts) for prompts in drawn} == {1, 16}
    assert all(set(prompts) <= {"a cat", "a dog", "a cup"} for prompts in drawn)


def test_real_pictures_are_not_resized(pipeline: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "emoji")
    (other / "manifest.json").write_text(
        json.dumps({**read_json(data / "manifest.json"), "size": 64})
    )
    code, said = run("generator", pipeline, "--data", other, "--features-cache", tmp_path / "f")
    assert code == 2 and f"holds pictures of 64x64 pixels, and {SIZE}x{SIZE} are needed" in said
    assert f"mmgen data emoji --size {SIZE} --out FOLDER" in said and not (tmp_path / "f").exists()


def test_without_final_no_test_split_is_looked_at(pipeline: Path, data: Path) -> None:
    words = ("--unit", "block", "--pictures", 2)
    code, said = run("generator", pipeline, "--data", data, *words)
    assert code == 0 and "nothing may be chosen" not in said
    assert "held-out pairs for choosing (val)" in said and "held-out concepts" not in said
    assert "test_pair " not in said.split("Protocol:")[0]


def test_the_set_is_looked_for_before_weights_and_packages(tmp_path: Path) -> None:
    code, said = run("generator", tmp_path / "no pipeline", "--data", tmp_path)
    assert code == 2 and "is no folder that `mmgen data emoji` wrote" in said


def test_an_unknown_unit_is_named(pipeline: Path, data: Path) -> None:
    code, said = run("generator", pipeline, "--data", data, "--unit", "blok")
    assert code == 2 and "no unit 'blok'; did you mean 'block'?" in said


# -- captions --------------------------------------------------------------------------------------


def test_latents_have_held_out_losses_and_likelihoods_of_captions(data: Path) -> None:
    pipe = latent_pipeline(("cell:2", "scale:1,2,4"))
    real = open_real(data, SIZE, Small())
    found = held_out_losses(pipe, real)
    assert found == held_out_losses(pipe, real)  # no draw of a generator
    assert set(found["units"]) == {"cell", "scale"} and found["pictures"] > 0
    latents = encode(pipe, real.pictures[real.places("val")])
    assert found["uniform"] == pytest.approx(1 + float(latents.square().mean()))
    silent = pipe.two_way()[1].latents
    assert silent is not None
    torch.nn.init.zeros_(silent.out.weight)
    torch.nn.init.zeros_(silent.out.bias)
    for loss in held_out_losses(pipe, real)["units"].values():  # knowing nothing
        assert loss == pytest.approx(found["uniform"], rel=0.1)
    shown = latents[:1].expand(2, *latents.shape[1:])
    scores = score_codes(pipe, shown, ["a red apple", "a"])
    assert all(score.total < 0 for score in scores)


def test_the_rank_counts_captions_that_are_likelier(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = open_real(data, SIZE, Small())
    pipe, asked = tiny_pipeline(), list[list[str]]()

    def longer_is_likelier(_pipe: Any, codes: torch.Tensor, captions: list[str]) -> list[Any]:
        assert codes.shape == (len(captions), *pipe.grid)
        asked.append(captions)
        return [SimpleNamespace(total=float(len(caption))) for caption in captions]

    monkeypatch.setattr("mmgen.evaluation.likelihood.score_codes", longer_is_likelier)
    found = caption_ranks(pipe, real, "val", pictures=3, seed=1, captions=6)
    assert found["pictures"] == 3 and found["captions"] == 6
    ranks = [1 + sum(len(other) >= len(words[0]) for other in words[1:]) for words in asked]
    assert found["rank"]["median"] == np.median(ranks)
    assert found["top1"] == np.mean([rank == 1 for rank in ranks])
    prompts = {PROMPT.format(phrase=i.concept.phrase, style=i.style) for i in real.items}
    for words in asked:
        assert len(set(words)) == 6 and words[0] in prompts
        assert len({word.rpartition(", ")[2] for word in words}) == 1  # all name one style


# -- real pictures ---------------------------------------------------------------------------------


def test_real_pictures_are_measured_and_shown(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    cache = ("--features-cache", tmp_path / "f")
    code, said = run("real", "--data", data, "--damage", *cache, "--json", out)
    assert code == 0, said
    assert f"No figures are known for {SIZE}x{SIZE} pixels: nothing was checked." in said
    assert all(name in said for name in ("concept/noto/top1", "damage/noise", "features.hash"))
    kept = [t for name, t in read_tensors(tmp_path / "f").items() if name.startswith("keys")]
    pictures = open_real(data, SIZE, Small()).pictures
    different = {picture.tobytes() for picture in pictures}
    assert [len(keys) for keys in kept] == [len(different)]  # and nothing of the damage
    result = Result.read(out)
    assert result.figures["concept/test_pair/top1"] == 1  # patterns are the same in every style


def test_figures_that_are_off_end_with_1(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, code, words in ((1.0, 0, "All 1 figures"), (0.5, 1, "Off: concept/noto/top1.")):
        known = {"concept/noto/top1": Expected(value, 0.01)}
        monkeypatch.setattr("mmgen.evaluation.expected.expected", lambda _, known=known: known)
        out = tmp_path / f"{code}.json"
        found, said = run("real", "--data", data, "--features-cache", tmp_path / "f", "--json", out)
        assert (found, out.is_file()) == (code, True) and words in said


def test_figures_of_real_pictures_are_those_of_the_yardstick(data: Path) -> None:
    real = open_real(data, SIZE, Small())
    found = real_figures(Judge(real, seed=3))
    assert {"kid/halves/everything", "kid/3d,ink", "style/by nearest mean"} <= set(found)
    assert found["retrieval/noto>blob/top1"] == 1
    assert found["copying/test_pair/high"] <= 1 + 1e-6
    assert found["copying/test_concept/low"] <= found["copying/test_concept/median"]
    styles = {item.style for item in real.items}
    assert sum(name.startswith("retrieval/") for name in found) == 2 * len(styles) * 5
    assert abs(found["kid/halves/everything"]) < abs(found["kid/3d,ink"])
    shuffled = type(real)(real.items, real.pictures, real.features[::-1], real.hash)
    assert real_figures(Judge(shuffled))["retrieval/noto>blob/top1"] < 1


def test_damage_is_seen_by_both_figures_and_wrong_captions_by_one(data: Path) -> None:
    judge = Judge(open_real(data, SIZE, Small()))
    found = damage_figures(judge, Small())
    assert found["damage/none/top1"] == 1 and abs(found["damage/none/kid"]) < 0.01
    assert found["damage/resolution / 8/top1"] < 1  # the patterns have 4x4 cells of 4 pixels
    assert found["damage/resolution / 8/kid"] > found["damage/resolution / 2/kid"]
    assert found["damage/captions permuted/kid"] == found["damage/none/kid"]
    assert found["damage/captions permuted/top1"] < 0.5
    assert found == damage_figures(judge, Small()) and len(found) == 18


def test_the_set_of_real_pictures_must_be_there(tmp_path: Path) -> None:
    code, said = run("real", "--data", tmp_path)
    assert code == 2 and "mmgen data emoji" in said


# -- tokenizers ------------------------------------------------------------------------------------


def test_a_tokenizer_is_measured_on_val_alone(pipeline: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    code, said = run("tokenizer", pipeline, "--data", data, "--inception", "x", "--json", out)
    assert code == 0 and "nothing may be chosen" not in said
    found = Result.read(out).figures
    assert set(found) == {"val"} and found["val"]["psnr"] > 0 and found["val"]["rfid"] >= 0
    assert 0 < found["val"]["codes_used"] <= 1 and "rFID" in said and "LPIPS" not in said
    vision = pipeline / "vision"
    code, said = run("tokenizer", vision, "--data", data, "--size", SIZE, "--json", out)
    assert code == 0 and Result.read(out).figures["val"]["psnr"] == found["val"]["psnr"]


class Latents:
    """A tokenizer without codes that darkens pictures a little."""

    codebook_size = None

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents - 0.02


def test_latents_have_no_code_use_and_every_batch_is_shown() -> None:
    pixels, shown = torch.zeros(5, 3, SIZE, SIZE), []
    found = fidelity(
        Latents(), pixels.split(2), torch.device("cpu"), lambda x, y: shown.append(x - y)
    )
    assert found["pictures"] == 5 and found["codes_used"] is found["perplexity"] is None
    assert found["psnr"] == pytest.approx(40, abs=1e-3)  # 10 log10(4 / 0.02^2)
    assert [len(each) for each in shown] == [2, 2, 1]
    assert torch.allclose(torch.cat(shown), torch.tensor(0.02))


def test_pictures_without_captions_are_measured_as_a_whole(pipeline: Path, tmp_path: Path) -> None:
    for i, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{i}.png")
    out = tmp_path / "r.json"
    code, _ = run("tokenizer", pipeline, "--data", tmp_path, "--json", out)
    found = Result.read(out).figures
    assert code == 0 and set(found) == {"all"} and found["all"]["pictures"] == 3
    code, said = run("tokenizer", pipeline, "--data", tmp_path, "--size", 8)
    assert code == 2 and "11 pixels a side or more, not 8" in said


def test_bad_pictures_are_allowed_as_asked_and_named(pipeline: Path, tmp_path: Path) -> None:
    folder, out = write_pictures(tmp_path / "my"), tmp_path / "r.json"
    (folder / "notes.png").write_text("buy milk")
    words = ("tokenizer", pipeline, "--data", folder, "--json", out)
    code, said = run(*words)
    assert code == 2 and "'notes.png' (it is not a picture" in said and "--allow-bad" in said
    code, said = run(*words, "--allow-bad", 0.1)
    assert code == 0 and f"Skipped 1 bad of 13 samples in {folder}: 'notes.png'" in said
    found = Result.read(out).figures["all"]
    assert (found["pictures"], found["skipped"], list(found["bad"])) == (12, 1, ["notes.png"])
    assert run(*words, "--allow-bad", 2)[0] == 2


def test_shards_of_others_are_measured_as_a_whole_and_stay(pipeline: Path, tmp_path: Path) -> None:
    pack(open_source(write_pictures(tmp_path / "my")), tmp_path / "shards", 5)
    before = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    out = tmp_path / "r.json"
    code, _ = run("tokenizer", pipeline, "--data", tmp_path / "shards", "--json", out)
    figures = Result.read(out).figures
    assert code == 0 and set(figures) == {"all"} and figures["all"]["pictures"] == 12
    assert {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == before


def test_test_splits_need_final(pipeline: Path, data: Path) -> None:
    code, said = run("tokenizer", pipeline, "--data", data, "--split", "test_pair")
    assert code == 2 and "--final" in said
    code, said = run("tokenizer", pipeline, "--data", data, "--final")
    assert code == 0 and "test_concept" in said and "nothing may be chosen" in said
    code, said = run("tokenizer", pipeline, "--data", data, "--split", "vall")
    assert code == 2 and "did you mean 'val'" in said


# -- pictures of others ----------------------------------------------------------------------------


def test_standard_figures_need_what_they_are_of() -> None:
    numbers = np.random.default_rng(0)
    seen = Seen.of(numbers.normal(size=(12, sum(NARROW))).astype(np.float32))
    assert [a.shape for a in vars(seen).values()] == [(12, width) for width in NARROW]
    found = standard_figures(seen, Reference.of(seen))
    assert found["fid"] == pytest.approx(0, abs=1e-5) and found["precision"] == 1
    bare = Reference(Reference.of(seen).pooled, None, None)
    found = standard_figures(Seen(*(a[:5] for a in vars(seen).values())), bare)
    assert found["fid"] > 0
    assert [found[k] for k in ("sfid", "precision", "recall", "is")] == [None] * 4


def test_samples_and_references_of_adm(data: Path, tmp_path: Path, pipeline: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red apple\n\na green square\n", encoding="utf-8")
    file = tmp_path / "s.npz"
    words = ("-n", 5, "--batch", 2, "--seed", 3, "--unit", "block")
    code, said = run("adm-npz", pipeline, "--out", file, "--prompts", prompts, *words)
    assert code == 0 and "seeds 3 to 7" in said and "s-protocol.json" in said
    told = Result.read(tmp_path / "s-protocol.json")
    rules = {"pictures": 5, "first_seed": 3, "unit": "block", "guidance_scale": 3.0}
    assert rules.items() <= flat(told.protocol).items() and told.protocol["prompts"]["count"] == 2
    assert told.made_with["weights"] == tiny_pipeline().fingerprint
    assert "unit" in said and "SamplingDefaults" not in said
    pictures = open_batch(file).pictures
    assert pictures is not None and pictures.shape == (5, SIZE, SIZE, 3)
    output = tiny_pipeline()("a red apple", seed=5, unit="block")  # the third picture
    np.testing.assert_array_equal(pictures[2], np.asarray(output.images[0]))
    same = evaluate_pictures(file, file, Glance(), quiet)
    assert same.figures["fid"] == pytest.approx(0, abs=1e-4)
    code, said = run("pictures", file, file, "--inception", "x", "--json", tmp_path / "r.json")
    assert code == 0 and "FID" in said and "glance" in said
    assert Result.read(tmp_path / "r.json").protocol["reference"] == same.protocol["reference"]


def test_weights_that_draw_classes_draw_all_in_turn(tmp_path: Path) -> None:
    conditional_pipeline().save_pretrained(tmp_path / "classes")
    code, _ = run("adm-npz", tmp_path / "classes", "--out", tmp_path / "s.npz", "-n", 7)
    pictures = open_batch(tmp_path / "s.npz").pictures
    assert code == 0 and pictures is not None and len(pictures) == 7
    again = conditional_pipeline()(class_labels=[6 % 5], seed=6)
    np.testing.assert_array_equal(pictures[6], np.asarray(again.images[0]))


def test_a_folder_of_pictures_is_a_set(tmp_path: Path) -> None:
    for name, size in (("a.png", (8, 6)), ("b.jpg", (8, 6))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    (tmp_path / "note.txt").write_text("no picture", encoding="utf-8")
    pictures = open_batch(tmp_path).pictures
    assert pictures is not None and pictures.shape == (2, 6, 8, 3)
    Image.new("RGB", (9, 6)).save(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"c\.png is 9x6 and a\.png is 8x6"):
        open_batch(tmp_path)
    with pytest.raises(UserError, match="holds no pictures"):
        (tmp_path / "empty").mkdir()
        open_batch(tmp_path / "empty")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("adm-npz", "--out", "s.npy"), "must end in .npz"),
        (("adm-npz", "PIPE", "--out", "TMP/s.npz", "-n", 2), "give --prompts"),
        (("pictures", "a", "b"), "--inception FILE"),
        (("pictures", "TMP/nothing.npz", "b", "--inception", "x"), "no file"),
        (("compare", "TMP/nothing.json", "b"), "no file"),
        (("generator", "PIPE", "--data", "TMP"), "mmgen data emoji"),
        (("real", "--data", "TMP", "--json", "TMP"), "is a folder"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], said: str, pipeline: Path, tmp_path: Path
) -> None:
    named = [str(w).replace("PIPE", str(pipeline)).replace("TMP", str(tmp_path)) for w in words]
    code, told = run(*named)
    assert code == 2 and said in told and "\n" not in told
    assert not list(tmp_path.iterdir())


# -- compare ---------------------------------------------------------------------------------------


def test_two_results_side_by_side(measured: tuple[Path, str], tmp_path: Path) -> None:
    first = json.loads(measured[0].read_text(encoding="utf-8"))
    first["made_with"]["weights"] = "others"
    first["figures"]["units"]["block"]["sets"]["train"]["kid"] += 0.25
    (tmp_path / "b.json").write_text(json.dumps(first), encoding="utf-8")
    code, said = run("compare", measured[0], tmp_path / "b.json")
    assert code == 0 and "+0.2500" in said and "others" in said
    first["protocol"]["sampling"]["temperature"] = 0.5
    (tmp_path / "b.json").write_text(json.dumps(first), encoding="utf-8")
    code, said = run("compare", measured[0], tmp_path / "b.json")
    assert code == 2 and "sampling.temperature is 1.0 and 0.5" in said
    code, said = run("compare", measured[0], tmp_path / "b.json", "--despite", "sampling")
    assert code == 0 and "+0.2500" in said


# -- documentation ---------------------------------------------------------------------------------


def test_commands_of_the_documentation_run(
    pipeline: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lpips, "Lpips", Near)
    monkeypatch.setattr(generator, "BATCHES", (1,))
    (tmp_path / "prompts.txt").write_text("a red apple\n", encoding="utf-8")
    for name in ("samples.npz", "reference.npz"):
        write_samples(tmp_path / name, [np.zeros((4, SIZE, SIZE, 3), np.uint8)], 4)
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if "mmgen eval" in line]
    assert len(commands) >= 10
    models = ("emoji-64", "runs/my-generator/final")
    for command in commands:
        words = command.replace("data/emoji", str(data)).replace("50000", "3").split()[2:]
        words = [str(pipeline) if w in models else w for w in words]
        if words[0] == "generator":
            words += ["--pictures", "2", "--unit", "block"]
        code, said = run(*words)
        assert code == 0, (command, said)
    assert {"before.json", "after.json", "tokenizer.json"} <= {p.name for p in tmp_path.iterdir()}
