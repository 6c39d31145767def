"""A pipeline whose codes are drawn in sub-tokens: calls, recipes, its folder, its defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.errors import UserError
from mmgen.pipeline import FORMAT, Pipeline, PipelineInfo, SamplingDefaults
from mmgen.tokenizers_vis.conv import ConvTokenizer, ConvTokenizerConfig
from mmgen.tokenizers_vis.quantizers import LFQConfig
from tests.tiny_networks import factorized

USUAL = SamplingDefaults("token", guidance_scale=(1.9, 2.0), temperature=(1.1, 1.0))


def sub_token_pipeline() -> Pipeline:
    """Pictures of 12x12 pixels as 3x3 codes of 2 and 4 bits."""
    torch.manual_seed(0)
    vision = ConvTokenizer(
        ConvTokenizerConfig(
            quantizer=LFQConfig(channels=6),
            family="magvit2",
            widths=(8, 8, 8),
            res_blocks=1,
            decoder_res_blocks=1,
            attention_levels=(),
            middle_attention=False,
            z_channels=6,
            norm_groups=4,
        )
    )
    info = PipelineInfo(format=FORMAT, name="sub-tokens", image_size=12, sampling=USUAL)
    return Pipeline(None, vision, factorized(), info)


def test_a_call_uses_the_published_settings_of_each_sub_token() -> None:
    pipe = sub_token_pipeline()
    output = pipe(class_labels=[1, 4], num_images_per_prompt=2, seed=3)
    assert output.codes.shape == (4, 1, 3, 3) and len(output.images) == 4
    recipe = output.recipes[0]
    assert (recipe["guidance_scale"], recipe["temperature"]) == ([1.9, 2.0], [1.1, 1.0])
    again = pipe(class_labels=1, seed=3, guidance_scale=[1.9, 2.0], temperature=[1.1, 1.0])
    assert torch.equal(again.codes, output.codes[:1])


def test_one_value_stands_for_all_sub_tokens() -> None:
    pipe = sub_token_pipeline()
    one = pipe(class_labels=2, seed=0, guidance_scale=3.0, temperature=0.0)
    each = pipe(class_labels=2, seed=9, guidance_scale=(3.0, 3.0), temperature=(0.0, 0.0))
    assert torch.equal(one.codes, each.codes)  # greedy: the seed says nothing


def test_a_batch_does_not_matter() -> None:
    pipe = sub_token_pipeline()
    together = pipe(class_labels=[1, 2], seed=4, output_type="codes").codes
    apart = [pipe(class_labels=label, seed=4 + i).codes for i, label in enumerate((1, 2))]
    assert torch.equal(together, torch.cat(apart))


def test_a_picture_in_progress_can_be_shown() -> None:
    pipe = sub_token_pipeline()
    steps = list(pipe.stream(class_labels=[1, 2], seed=4))
    assert [step.index for step in steps] == list(range(1, 10))
    assert torch.equal(steps[-1].codes, pipe(class_labels=[1, 2], seed=4).codes)
    assert len(pipe.render(steps[2].codes)) == 2


def test_the_folder_keeps_it(tmp_path: Path) -> None:
    pipe = sub_token_pipeline()
    pipe.save_pretrained(tmp_path / "pipeline")
    again = Pipeline.from_pretrained(tmp_path / "pipeline")
    assert again.info.sampling == USUAL
    assert torch.equal(again(class_labels=0, seed=1).codes, pipe(class_labels=0, seed=1).codes)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"guidance_scale": [1.0, 2.0, 3.0]}, "has 3 values, but .* 2 sub-tokens; give one value"),
        ({"temperature": []}, "has 0 values"),
        ({"temperature": [1.0, -1.0]}, "temperature must be 0 or more"),
        ({"guidance_scale": [-1.0, 1.0]}, "guidance scale must be 0 or more"),
    ],
)
def test_wrong_lists_are_refused(settings: dict[str, list[float]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        sub_token_pipeline()(class_labels=1, **settings)


@pytest.mark.parametrize("wrong", [(), (1.0, -1.0)])
def test_wrong_defaults_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="guidance_scale must be 0 or more"):
        replace(USUAL, guidance_scale=wrong)
