"""`audiovae.timbre.detail`: what a move keeps of a sound beyond its latents."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from audiovae.arithmetic import add, interpolate, scale, transfer
from audiovae.gains import apply_gains, measure_gains
from audiovae.latents import Conditions, Latents, join_latents
from audiovae.models.hvae import HVAE
from audiovae.timbre.detail import decode_with_detail, detailed, with_detail
from tests.small_models import tiny_timbre_vae
from tests.tones import tiny_config

FRAMES = 64
ROUNDING = 1e-5
"""Of a difference that is taken and added again, in nats."""

MODEL = tiny_timbre_vae()
FLOOR = MODEL.config.spectrogram.log_floor


def log_mel(seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (-5 + 2 * torch.randn(1, 128, FRAMES, generator=draw)).clamp(min=FLOOR)


@torch.inference_mode()
def encoded(sound: Tensor) -> Latents:
    output = MODEL.encode(sound, torch.full((len(sound),), FRAMES), Conditions())
    return with_detail(MODEL, sound, output)


@torch.inference_mode()
def decoded(latents: Latents) -> Tensor:
    return decode_with_detail(MODEL, latents, FRAMES)


def distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().mean())


def test_what_is_not_moved_is_the_sound_itself() -> None:
    first, second = encoded(log_mel(0)), encoded(log_mel(1))
    bare = replace(first, details=())
    assert distance(decoded(bare), log_mel(0)) > 0.5
    for same in (first, transfer(first, second, 0.0), interpolate(first, second, 0.0)):
        torch.testing.assert_close(decoded(same), log_mel(0), rtol=0, atol=ROUNDING)
    end = interpolate(first, second, 1.0)
    torch.testing.assert_close(decoded(end), log_mel(1), rtol=0, atol=ROUNDING)


def test_the_further_a_frame_moves_the_less_of_its_detail_stays() -> None:
    first, second = encoded(log_mel(0)), encoded(log_mel(1))
    kept = []
    for amount in (0.0, 10.0, 100.0, 1e3, 1e4):
        moved = transfer(first, second, amount)
        plain = decoded(replace(moved, details=()))
        kept.append(distance(decoded(moved), plain))
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 0.7 * kept[0]
    nearly = decoded(transfer(first, second, 1e-5))
    assert distance(nearly, log_mel(0)) < 0.05


def test_frames_are_weighed_one_by_one() -> None:
    first = encoded(log_mel(0))
    plain = MODEL.decode(first, FRAMES).detach()
    moved = plain.clone()
    moved[:, :, FRAMES // 2 :] += 20.0
    made = detailed(moved, first, FLOOR)
    half = slice(0, FRAMES // 2)
    torch.testing.assert_close(made[..., half], log_mel(0)[..., half], rtol=0, atol=ROUNDING)
    later = slice(FRAMES // 2, None)
    torch.testing.assert_close(made[..., later], moved[..., later])


def test_a_louder_sound_keeps_its_detail_where_the_decode_follows() -> None:
    first = encoded(log_mel(0))
    twice = scale(first, 2.0)
    louder = twice.details[0].decoded  # what a decode that follows the gain comes to
    made = detailed(louder, twice, FLOOR)
    torch.testing.assert_close(made, log_mel(0) + torch.tensor(2.0).log(), rtol=0, atol=ROUNDING)
    assert scale(first, 0.0).details == scale(first, -1.0).details == ()


def test_a_frame_of_a_mixture_keeps_the_detail_of_the_part_that_is_heard() -> None:
    first, second = encoded(log_mel(0)), encoded(log_mel(1))
    mixture = add(first, second)
    assert len(mixture.details) == 2
    for part, sound in zip(mixture.details, (log_mel(0), log_mel(1)), strict=True):
        torch.testing.assert_close(part.decoded + part.lacking, sound, rtol=0, atol=ROUNDING)
        made = detailed(part.decoded, mixture, FLOOR)  # as if only this part were heard
        assert distance(made, sound) < distance(part.decoded, sound)


def test_detail_is_cut_padded_and_joined_with_its_rows() -> None:
    both = join_latents([encoded(log_mel(0)), encoded(log_mel(1))])
    assert both.details[0].lacking.shape == (2, 128, FRAMES)
    last = both.rows([1], 2 * FRAMES)
    whole = (last.details[0].lacking + last.details[0].decoded)[..., :FRAMES]
    torch.testing.assert_close(whole, log_mel(1), rtol=0, atol=ROUNDING)
    assert not last.details[0].decoded[..., FRAMES:].any()


def test_a_model_without_a_timbre_code_and_without_files_has_no_detail() -> None:
    model = HVAE(tiny_config(bottleneck={"kind": "gaussian"}, quality=False))
    output = model.encode(log_mel(0), torch.tensor([FRAMES]), Conditions())
    same = with_detail(model, log_mel(0), output)
    assert same is output.latents
    assert torch.equal(detailed(output.log_mel, same, FLOOR), output.log_mel)


@torch.inference_mode()
def test_the_detail_of_a_model_that_makes_files_is_their_gains() -> None:
    model = HVAE(tiny_config(bottleneck={"kind": "quantized"}, quality=False))
    num_frames = torch.tensor([FRAMES - 9])
    output = model.encode(log_mel(0), num_frames, Conditions())
    made = decode_with_detail(model, with_detail(model, log_mel(0), output), FRAMES)
    sound, plain = log_mel(0)[..., :-9], output.log_mel[..., :-9]
    gained = apply_gains(plain, measure_gains(sound, plain))
    assert torch.equal(made[..., :-9], gained)
    assert distance(gained, plain) > 0.5
