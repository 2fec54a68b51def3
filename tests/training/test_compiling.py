"""What a GPU compiles becomes one graph each, for one shape: no break goes unnoticed on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from audiovae.config import ModelConfig, TrainingConfig, load_config
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE
from audiovae.models.vocoder import Vocoder
from audiovae.training.adversarial import Generator
from audiovae.training.compiling import compiled
from tests.small_models import CONFIGS
from tests.tones import tiny_config

LOG_MEL = torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(0)) - 5
FRAMES = torch.tensor([64, 50])
CONDITIONS = Conditions(torch.tensor([4.0, 9.0]))


def vae(config: ModelConfig) -> Tensor:
    run = one_graph(HVAE(config).forward)
    output: Tensor = run(LOG_MEL, FRAMES, CONDITIONS).log_mel  # type: ignore[operator]
    return output


def timbre(_config: ModelConfig) -> Tensor:
    model = HVAE(load_config(CONFIGS / "timbre_small.toml", ["vae.width=8", "timbre.width=8"]))
    run = one_graph(model.forward)
    output: Tensor = run(LOG_MEL, FRAMES, Conditions(timbre=torch.zeros(2, 64))).log_mel  # type: ignore[operator]
    return output


def vocoder(config: ModelConfig) -> Tensor:
    run = one_graph(Vocoder(config.vocoder, config.spectrogram).predict)
    output: Tensor = run(LOG_MEL).phase  # type: ignore[operator]
    return output


def generator(config: ModelConfig) -> Tensor:
    run = one_graph(Generator(config).forward)
    copied = torch.tensor([True, False])[:, None, None]
    output: Tensor = run(LOG_MEL, FRAMES, CONDITIONS, copied)[0]  # type: ignore[operator]
    return output


def one_graph(function: object) -> object:
    return torch.compile(function, backend="eager", fullgraph=True, dynamic=False)  # type: ignore[call-overload]


@pytest.mark.parametrize("run", [vae, timbre, vocoder, generator], ids=lambda run: run.__name__)
def test_one_graph(run: Callable[[ModelConfig], Tensor]) -> None:
    assert bool(torch.isfinite(run(tiny_config())).all())


def test_a_cpu_compiles_nothing() -> None:
    function = HVAE(tiny_config()).forward
    assert compiled(function, TrainingConfig(), torch.device("cpu")) is function
