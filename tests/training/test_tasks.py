"""The VAE's and the vocoder's training: they learn, say what they do, and write a model."""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from audiovae.checkpoint import Provenance, QualityPoint, load_checkpoint, load_vae, load_vocoder
from audiovae.config import ModelConfig, TrainingConfig
from audiovae.models.fused_vocoder import fast_dtype
from audiovae.training.listening import heard_clips
from audiovae.training.loop import train
from audiovae.training.precision import autocast
from audiovae.training.vae import QUALITY_KBPS, VAETask, _quality_scale
from audiovae.training.vocoder import LEARNT_POLISH_STEPS, VocoderTask, vocoder_losses
from tests.tones import log_mel_corpus, tiny_config, waveform_corpus

CPU = torch.device("cpu")
ORIGIN = Provenance(audiovae_version="0", data="tones", licence="CC0", seed=3)


def vae_task(run_dir: Path, config: ModelConfig) -> VAETask:
    return VAETask(config, *log_mel_corpus().split(), run_dir, CPU, ORIGIN)


def vocoder_task(run_dir: Path, config: ModelConfig) -> VocoderTask:
    return VocoderTask(config, *waveform_corpus().split(), run_dir, CPU, ORIGIN)


def column(run_dir: Path, name: str, log: str = "metrics") -> list[float]:
    with (run_dir / f"{log}.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def training(steps: int, **more: object) -> dict[str, object]:
    return {"steps": steps, "log_every_steps": 1, **more}


def test_the_vae_learns_within_seconds(tmp_path: Path) -> None:
    train(vae_task(tmp_path, tiny_config(training=training(70))), tmp_path, CPU)
    distortion = column(tmp_path, "distortion")
    assert sum(distortion[-15:]) < 0.75 * sum(distortion[:15])


def test_the_vae_reports_each_level_and_writes_a_model(tmp_path: Path) -> None:
    progress = train(vae_task(tmp_path, tiny_config(training=training(3))), tmp_path, CPU)
    names = ("21.5Hz", "2.7Hz")
    for point in range(1, 5):
        parts = [column(tmp_path, f"kbps_{name}_lambda_{point}", "validation")[0] for name in names]
        total = column(tmp_path, f"kbps_lambda_{point}", "validation")[0]
        assert total == pytest.approx(sum(parts), rel=1e-3)
    assert all(0 <= column(tmp_path, f"active_units_{n}", "validation")[0] <= 4 for n in names)
    with Image.open(tmp_path / "samples" / "step_0000003.png") as image:
        assert min(image.size) > 200
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    assert (checkpoint.provenance.data, checkpoint.provenance.licence) == ("tones", "CC0")
    assert (checkpoint.provenance.steps, checkpoint.provenance.seed) == (3, 3)
    assert checkpoint.provenance.metrics == {
        name: round(value, 5) for name, value in progress.metrics.items()
    }
    assert [point.quality for point in checkpoint.quality_scale] == list(range(1, 9))
    model = load_vae(checkpoint, "test")
    expected = vae_task(tmp_path, tiny_config()).model
    torch.testing.assert_close(model.mel_mean, expected.mel_mean)
    assert float(model.mel_deviation.min()) >= 0.1


def test_a_gaussian_vae_without_quality_trains(tmp_path: Path) -> None:
    config = tiny_config(bottleneck={"kind": "gaussian"}, quality=False, training=training(40))
    train(vae_task(tmp_path, config), tmp_path, CPU)
    loss = column(tmp_path, "loss")
    assert sum(loss[-10:]) < 0.8 * sum(loss[:10])
    assert column(tmp_path, "kbps", "validation")[0] > 0
    checkpoint = load_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.quality_scale == ()
    assert checkpoint.config.quality is None
    assert load_vae(checkpoint, "test").config.quality is None


def test_a_collapsed_level_is_named_with_a_remedy(tmp_path: Path) -> None:
    """Nothing is worth its bits under a beta this large."""
    config = tiny_config(
        bottleneck={"kind": "gaussian"},
        quality=False,
        objective={"beta": 1e4},
        training=training(45, learning_rate=0.07, skip_gradient_above=1e9, ema_decay=0.5),
    )
    task = vae_task(tmp_path, config)
    before = task.validate(task.networks, 0)
    assert before.warnings == []
    train(task, tmp_path, CPU)
    warnings = task.validate(task.networks, 45).warnings
    assert [line.split(" has ")[0] for line in warnings] == ["level 2.7Hz", "level 21.5Hz"]
    assert "lower objective.beta" in warnings[0]


def test_the_vocoder_learns_within_seconds(tmp_path: Path) -> None:
    settings = training(
        100, batch_size=2, crop_frames=16, learning_rate=1e-3, skip_gradient_above=1e6
    )
    task = vocoder_task(tmp_path, tiny_config(kind="vocoder", training=settings))
    spectrogram = task.config.spectrogram
    _, held_back = waveform_corpus().split()
    clips = list(heard_clips(held_back, spectrogram, CPU))

    @torch.no_grad()
    def losses() -> dict[str, float]:
        totals: Counter[str] = Counter()
        for target, log_mel in clips:
            predicted = task.vocoder.predict(log_mel)
            waveform = task.vocoder.polish(predicted, LEARNT_POLISH_STEPS)
            of_clip = vocoder_losses(predicted, waveform, target, spectrogram)
            totals.update({name: float(loss) for name, loss in of_clip.items()})
        return dict(totals)

    before = losses()
    train(task, tmp_path, CPU)
    after = losses()
    assert all(after[name] < before[name] for name in before)
    assert after["phase"] < 0.995 * before["phase"]
    assert column(tmp_path, "mel_distance", "validation")[0] > 0
    assert (tmp_path / "samples" / "step_0000100.png").is_file()
    assert load_vocoder(tmp_path / "model.safetensors").config.width == 16


def test_clips_shorter_than_a_window_are_measured_too(tmp_path: Path) -> None:
    corpus = waveform_corpus(count=3, seconds=0.01)
    task = VocoderTask(tiny_config(kind="vocoder"), *corpus.split(), tmp_path, CPU, ORIGIN)
    assert task.validate(task.networks, 0).metrics["mel_distance"] > 0


def curve(*points: tuple[float, float, float]) -> list[QualityPoint]:
    return [QualityPoint(0, *point) for point in points]


def test_the_quality_scale_is_read_off_the_curve() -> None:
    scale = _quality_scale(curve((3.0, 0.1, 8.0), (6.0, 1.0, 5.0), (9.0, 10.0, 2.0)))
    assert tuple(point.kbps for point in scale) == QUALITY_KBPS
    assert scale[3].log_lambda == pytest.approx(6.0 + 3.0 * math.log10(1.2))
    lambdas = [point.log_lambda for point in scale]
    assert lambdas == sorted(lambdas)
    errors = [point.log_mel_l1_db for point in scale]
    assert errors == sorted(errors, reverse=True)


def test_rates_out_of_reach_get_the_nearer_end_with_its_true_rate() -> None:
    scale = _quality_scale(curve((3.0, 0.6, 8.0), (9.0, 2.0, 4.0)))
    assert (scale[0].log_lambda, scale[0].kbps) == (3.0, 0.6)
    assert (scale[7].quality, scale[7].log_lambda, scale[7].kbps) == (8, 9.0, 2.0)


@pytest.mark.parametrize("kbps", [0.0, 1.0])
def test_a_flat_curve_is_no_accident(kbps: float) -> None:
    assert len(_quality_scale(curve((3.0, kbps, 8.0), (9.0, kbps, 8.0)))) == 8


@pytest.mark.parametrize(
    ("precision", "device", "enabled"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("bfloat16", "cpu", fast_dtype(torch.device("cpu")) == torch.bfloat16),
        ("float32", "cuda", False),
    ],
)
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_half_precision_is_for_what_is_fast_in_it(
    precision: str, device: str, enabled: bool
) -> None:
    config = TrainingConfig.model_validate({"precision": precision})
    context = autocast(config, torch.device(device))
    assert context._enabled == (enabled and (device == "cpu" or torch.cuda.is_available()))
