"""Dropout by feature: one mask a pass, the expectation kept, off outside training."""

from pathlib import Path

import pytest
import torch
from torch import nn

from abstain.dropout import SharedDropout
from abstain.model import load_model
from train.methods import lora
from train.settings import TrainSettings


def test_a_mask_is_shared_over_positions_and_differs_between_passes() -> None:
    torch.manual_seed(0)
    dropout = SharedDropout(0.25)
    inputs = torch.rand(2, 50, 400) + 0.5
    first, second = dropout(inputs), dropout(inputs)
    for result in (first, second):
        dropped = result == 0
        assert torch.equal(dropped, dropped[:1, :1].expand_as(dropped))
        torch.testing.assert_close(result[~dropped], inputs[~dropped] / 0.75)
    assert not torch.equal(first == 0, second == 0)


def test_the_expectation_stays() -> None:
    torch.manual_seed(0)
    dropout = SharedDropout(0.1)
    draws = torch.stack([dropout(torch.ones(64)) for _ in range(20_000)])
    # Four and a half standard errors of the mean of 20,000 draws of (Bernoulli 0.9) / 0.9.
    assert (draws.mean(0) - 1).abs().max() < 4.5 * (0.1 / 0.9 / 20_000) ** 0.5


def test_it_is_off_outside_training() -> None:
    inputs = torch.rand(3, 8)
    assert torch.equal(SharedDropout(0.5).eval()(inputs), inputs)


@pytest.mark.parametrize(("mask", "kind"), [("shared", SharedDropout), ("token", nn.Dropout)])
def test_the_setting_decides_which_masks_training_draws(
    tiny_model: Path, mask: str, kind: type[nn.Module]
) -> None:
    settings = TrainSettings.model_validate({"dropout": 0.2, "dropout_mask": mask})
    model = lora.wrap(load_model(str(tiny_model)).model, settings).model
    found = [
        module for name, module in model.named_modules() if name.endswith("lora_dropout.default")
    ]
    assert len(found) == 4 * 7
    for module in found:
        assert isinstance(module, kind) and module.p == 0.2
