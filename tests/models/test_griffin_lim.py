"""`audiovae.models.griffin_lim` and `frames`: the published iteration, on the log-mel's frames."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchaudio.functional import griffinlim

from audiovae.config import SpectrogramConfig
from audiovae.models.frames import FrameGrid
from audiovae.models.griffin_lim import BandLevels, polish
from audiovae.spectrogram import hann_window, mel_filterbank
from tests.tones import chirp, noise

CONFIG = SpectrogramConfig()
HOP, WINDOW = CONFIG.hop_samples, CONFIG.window_samples
ROUNDING = 1e-5
"""Of a Fourier transform and back, full scale 1."""


def grid_of(mask: Tensor, config: SpectrogramConfig = CONFIG) -> FrameGrid:
    return FrameGrid(mask, hann_window(config.window_samples, mask.device), config)


def random_phase(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    turns = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return torch.polar(torch.ones(shape), 2 * math.pi * turns)


def spectrum_of(samples: Tensor) -> Tensor:
    """`[1, frame, bin]` of frames that lie as the log-mel's, zeros beyond the ends."""
    margin = (WINDOW - HOP) // 2
    padded = torch.nn.functional.pad(samples[None], (margin, margin))
    return torch.fft.rfft(padded.unfold(1, WINDOW, HOP) * hann_window(WINDOW, samples.device))


def disagreement(sound: Tensor, magnitude: Tensor) -> float:
    """How far the magnitude of a sound is from the one that was asked for, relative."""
    found = spectrum_of(sound[0]).abs()
    return float((found - magnitude).norm() / magnitude.norm())


def test_true_magnitude_and_phase_are_a_fixed_point() -> None:
    samples = chirp(30 * HOP) + noise(30 * HOP)
    spectrum = spectrum_of(samples)
    for steps in (0, 1, 8):
        sound = polish(spectrum.abs(), spectrum.sgn(), grid_of(torch.ones(1, 30)), steps)
        assert float((sound[0] - samples)[HOP:-HOP].abs().max()) < ROUNDING


def fast_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accelerated iteration with the parameters at which it is the fast one."""
    for name, value in (("_AHEAD", 0.99), ("_CARRIED", 0.0), ("_STRIDE", 1.0)):
        monkeypatch.setattr(f"audiovae.models.griffin_lim.{name}", value)


def test_the_fast_variant_is_torchaudios(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far enough from the ends, where theirs reflects the sound and ours ends it."""
    fast_variant(monkeypatch)
    frames, steps = 60, 4
    samples = chirp(frames * HOP) + noise(frames * HOP)
    magnitude = spectrum_of(samples).abs()
    ours = polish(magnitude, torch.ones_like(magnitude) + 0j, grid_of(torch.ones(1, frames)), steps)
    theirs = griffinlim(
        magnitude.transpose(1, 2),
        window=hann_window(WINDOW, torch.device("cpu")),
        n_fft=WINDOW,
        hop_length=HOP,
        win_length=WINDOW,
        power=1.0,
        n_iter=steps,
        momentum=0.99,
        length=None,
        rand_init=False,
    )
    inner = slice(20 * HOP, 40 * HOP)
    late = slice(20 * HOP + HOP // 2, 40 * HOP + HOP // 2)  # theirs centres frame 0 on sample 0
    torch.testing.assert_close(ours[:, late], theirs[:, inner], rtol=1e-3, atol=1e-3)


def test_accelerated_steps_make_frames_agree_better(monkeypatch: pytest.MonkeyPatch) -> None:
    magnitude = spectrum_of(chirp(40 * HOP) + noise(40 * HOP)).abs()
    grid, first = grid_of(torch.ones(1, 40)), random_phase(magnitude.shape)
    accelerated = disagreement(polish(magnitude, first, grid, 16), magnitude)
    fast_variant(monkeypatch)
    assert accelerated < 0.95 * disagreement(polish(magnitude, first, grid, 16), magnitude)


def test_every_doubling_of_the_steps_makes_frames_agree_better() -> None:
    magnitude = spectrum_of(chirp(40 * HOP) + noise(40 * HOP)).abs()
    grid, first = grid_of(torch.ones(1, 40)), random_phase(magnitude.shape)
    errors = [disagreement(polish(magnitude, first, grid, n), magnitude) for n in (0, 2, 8, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_what_is_masked_is_silent_and_is_not_heard_by_the_others() -> None:
    magnitude = spectrum_of(noise(20 * HOP)).abs()
    first = random_phase(magnitude.shape)
    alone = polish(magnitude, first, grid_of(torch.ones(1, 20)), 4)
    mask = torch.cat([torch.ones(1, 20), torch.zeros(1, 5)], dim=1)
    padded = torch.nn.functional.pad(magnitude, (0, 0, 0, 5))
    longer = torch.nn.functional.pad(torch.view_as_real(first), (0, 0, 0, 0, 0, 5), value=1.0)
    sound = polish(padded, torch.view_as_complex(longer), grid_of(mask), 4)
    assert float((sound[:, : 20 * HOP] - alone).abs().max()) < ROUNDING
    assert not sound[:, 20 * HOP :].any()


def test_a_magnitude_of_nothing_stays_finite() -> None:
    magnitude = torch.zeros(1, 6, CONFIG.num_bins)
    for first in (random_phase(magnitude.shape), torch.zeros_like(magnitude) + 0j):
        sound = polish(magnitude, first, grid_of(torch.ones(1, 6)), 3)
        assert not sound.any()


def test_gradients_pass_through_the_steps() -> None:
    config = SpectrogramConfig(window_samples=32, hop_samples=8, num_mels=4)
    draw = torch.Generator().manual_seed(0)
    shape = (1, 5, config.num_bins)
    magnitude = 1 + torch.rand(shape, generator=draw, dtype=torch.float64)
    phase = 3 * torch.rand(shape, generator=draw, dtype=torch.float64)
    window = hann_window(32, magnitude.device).double()
    grid = FrameGrid(torch.ones(1, 5, dtype=torch.float64), window, config)

    def sound(magnitude: Tensor, phase: Tensor) -> Tensor:
        return polish(magnitude, torch.polar(torch.ones_like(phase), phase), grid, 2)

    assert torch.autograd.gradcheck(sound, (magnitude.requires_grad_(), phase.requires_grad_()))


def levels_of(samples: Tensor, frames: int) -> BandLevels:
    """The bands of a sound."""
    filters = mel_filterbank(CONFIG)
    bands = (spectrum_of(samples).abs() @ filters.T).clamp(min=CONFIG.floor).log()
    bands = torch.nn.functional.pad(bands, (0, 0, 0, frames - bands.shape[1]))
    return BandLevels(bands, filters, CONFIG.floor)


def band_error(sound: Tensor, levels: BandLevels) -> float:
    """Mean absolute error of a sound's bands, in nats."""
    found = (spectrum_of(sound[0]).abs() @ levels.filters.T).clamp(min=levels.floor).log()
    return float((found - levels.log_mel).abs().mean())


def test_a_sound_comes_to_the_levels_of_its_bands() -> None:
    samples = chirp(40 * HOP) + noise(40 * HOP)
    true, levels = spectrum_of(samples), levels_of(samples, 40)
    predicted, grid = 0.7 * true.abs(), grid_of(torch.ones(1, 40))  # 0.36 nats too quiet
    plain = band_error(polish(predicted, true.sgn(), grid, 16), levels)
    errors = [
        band_error(polish(predicted, true.sgn(), grid, steps, levels), levels)
        for steps in (0, 4, 16)
    ]
    assert errors[0] == pytest.approx(plain, rel=0.1)
    assert plain > 0.3
    assert errors[1] < 0.7 * plain
    assert errors[2] < 0.2 * plain


def test_levels_keep_silence_silent_and_what_is_masked_unheard() -> None:
    samples = torch.cat([noise(20 * HOP), torch.zeros(20 * HOP)])
    magnitude = spectrum_of(samples).abs()
    mask = torch.cat([torch.ones(1, 40), torch.zeros(1, 5)], dim=1)
    padded = torch.nn.functional.pad(magnitude, (0, 0, 0, 5))
    levels = levels_of(samples, 45)  # in the padding they claim a loud sound
    sound = polish(padded, random_phase(padded.shape), grid_of(mask), 8, levels)
    assert torch.isfinite(sound).all()
    assert float(sound[:, : 19 * HOP].square().mean().sqrt()) > 0.02
    assert float(sound[:, 24 * HOP :].abs().max()) < 1e-4
    assert not sound[:, 40 * HOP :].any()


def test_gradients_pass_through_the_levels() -> None:
    draw = torch.Generator().manual_seed(0)
    magnitude, found = 1 + torch.rand(2, 1, 5, 17, generator=draw, dtype=torch.float64)
    bands = torch.rand(1, 5, 4, generator=draw, dtype=torch.float64)
    filters = torch.rand(4, 17, generator=draw, dtype=torch.float64)

    def imposed(magnitude: Tensor, found: Tensor, bands: Tensor) -> Tensor:
        return BandLevels(bands, filters, 1e-5).impose(magnitude, found)

    inputs = [tensor.requires_grad_() for tensor in (magnitude, found, bands)]
    assert torch.autograd.gradcheck(imposed, inputs)


def test_gradients_have_a_bound_where_frames_cancel() -> None:
    """Two loud frames in opposite phase leave next to nothing of what they share."""
    count, phase = 6, torch.zeros(1, 6, CONFIG.num_bins)
    magnitude = torch.ones_like(phase)
    # A frame's phase turns by pi from hop to hop: neighbours cancel in every bin.
    phase += math.pi * torch.arange(count)[None, :, None] + 1e-6 * torch.rand(phase.shape)
    phase.requires_grad_()
    grid = grid_of(torch.ones(1, count))
    sound = polish(magnitude, torch.polar(torch.ones_like(phase), phase), grid, 4)
    (gradient,) = torch.autograd.grad(sound.square().sum(), phase)
    assert torch.isfinite(gradient).all()
    assert float(gradient.abs().max()) < 100 * float(sound.detach().square().sum())
