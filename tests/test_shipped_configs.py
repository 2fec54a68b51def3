"""Every file of `configs/`: builds, steps, is saved and loads again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audiovae.audio import Clip
from audiovae.checkpoint import (
    Provenance,
    QualityPoint,
    load_checkpoint,
    load_model,
    load_vae,
    load_vocoder,
)
from audiovae.config import LevelConfig, ModelConfig, load_config
from audiovae.files import compress, decompress
from audiovae.models.conditioning.pitch import PITCH_CHANNELS
from audiovae.models.hvae import HVAE
from audiovae.models.vocoder import Vocoder
from audiovae.rows import quality_conditions
from audiovae.spectrogram import inverse_mel_filterbank
from audiovae.training.adversarial import AdversarialTask
from audiovae.training.data import Corpus
from audiovae.training.loop import train
from audiovae.training.timbre import TimbreTask
from audiovae.training.vae import VAETask
from audiovae.training.vocoder import VocoderTask
from tests.bands import band_sets
from tests.tones import log_mel_corpus, tones, waveform_corpus

CONFIGS = Path(__file__).parent.parent / "configs"
PATHS = sorted(
    path for path in CONFIGS.rglob("*.toml") if not {"cluster", "recipes"} & set(path.parts)
)
CPU = torch.device("cpu")
BASE_PARAMETERS = 27e6
"""What configs/base.toml promises, to a tenth."""


def shrunk(config: ModelConfig) -> ModelConfig:
    """The same model and task, as narrow and short as they go."""

    def narrow(level: LevelConfig) -> LevelConfig:
        update = {"channels": 2, "encoder_blocks": min(level.encoder_blocks, 1)}
        return level.model_copy(update=update | {"decoder_blocks": min(level.decoder_blocks, 1)})

    levels = tuple(narrow(level) for level in config.vae.levels)
    rivals = {"period_channels": (2, 2), "stft_channels": 2, "crop_samples": 4096}
    training = {"steps": 2, "batch_size": 2, "crop_frames": 64, "log_every_steps": 1}
    return config.model_copy(
        update={
            "vae": config.vae.model_copy(update={"width": 8, "levels": levels}),
            "vocoder": config.vocoder.model_copy(update={"width": 8, "num_blocks": 1}),
            "discriminators": config.discriminators.model_copy(update=rivals),
            "training": config.training.model_copy(update=training),
        }
    )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_builds_at_its_full_size(path: Path) -> None:
    config = load_config(path)
    inverse_mel_filterbank(config.spectrogram)  # a constant that must not be made on `meta`
    with torch.device("meta"):
        network = (
            HVAE(config)
            if config.kind in ("vae", "timbre")
            else Vocoder(config.vocoder, config.spectrogram)
        )
    size = sum(parameter.numel() for parameter in network.parameters())
    assert size > 1e5
    if path.stem == "base":
        assert size == pytest.approx(BASE_PARAMETERS, rel=0.1)


def corpus_for(config: ModelConfig) -> Corpus:
    """Tones, with a pitch behind the bands if the model is told one."""
    corpus = log_mel_corpus(count=2, seconds=1)
    if config.pitch is None:
        return corpus
    clips = [torch.nn.functional.pad(corpus.clip(i), (0, PITCH_CHANNELS)) for i in range(2)]
    return Corpus.of_clips(clips, corpus.names)


def check_that_it_can_be_used(path: Path) -> None:
    """Encodes and decodes; and compresses, if it has symbols."""
    model = load_model(path, vocoder=None)
    clip = Clip(tones(30_000, seed=1)[None], 44_100)
    if model.frequency_table is not None:
        decoded = decompress(compress(clip, model), model)
        assert decoded.waveform.shape == clip.waveform.shape
        assert np.isfinite(decoded.waveform).all()
    frames = torch.tensor([60])
    conditions = quality_conditions([point.log_lambda for point in model.quality_scale[:1]], 1, CPU)
    output = model.vae.encode(torch.full((1, 128, 64), -4.0), frames, conditions)
    torch.testing.assert_close(model.vae.decode(output.latents, 64), output.log_mel)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_steps_saves_and_loads_again(path: Path, tmp_path: Path) -> None:
    config = shrunk(load_config(path))
    place = torch.device("cpu")
    if config.kind == "vae":
        corpora = corpus_for(config).split()
        vae = VAETask(config, *corpora, tmp_path, place, Provenance())
        assert train(vae, tmp_path, place).step == 2
        loaded = load_vae(load_checkpoint(tmp_path / "model.safetensors"), path.stem)
        assert loaded.config.vae == config.vae
    elif config.kind == "timbre":
        timbre = TimbreTask(config, band_sets(), tmp_path, place, Provenance())
        assert train(timbre, tmp_path, place).step == 2
        loaded = load_vae(load_checkpoint(tmp_path / "model.safetensors"), path.stem)
        assert loaded.config.timbre == config.timbre
    elif config.kind == "adversarial":
        corpora = waveform_corpus(count=2).split()
        joint = AdversarialTask(config, *corpora, tmp_path, place, Provenance())
        joint.quality_scale = (QualityPoint(6, 6.0, 1.0, 3.0),)  # of the VAE it would start from
        assert train(joint, tmp_path, place).step == 2
        loaded = load_vae(load_checkpoint(tmp_path / "model.safetensors"), path.stem)
        assert loaded.config.vae == config.vae
        assert load_vocoder(tmp_path / "vocoder.safetensors").config == config.vocoder
    else:
        corpora = waveform_corpus(count=2).split()
        vocoder = VocoderTask(config, *corpora, tmp_path, place, Provenance())
        assert train(vocoder, tmp_path, place).step == 2
        assert load_vocoder(tmp_path / "model.safetensors").config == config.vocoder
    if config.kind != "vocoder":
        check_that_it_can_be_used(tmp_path / "model.safetensors")
    assert all(
        torch.isfinite(t).all()
        for t in load_checkpoint(tmp_path / "model.safetensors").tensors.values()
    )
