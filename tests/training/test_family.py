"""The family in training: schedules, conditions, collapse, and a variant that nobody foresaw."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from audiovae.checkpoint import Provenance, load_checkpoint, load_model
from audiovae.config import (
    LabelConfig,
    ModelConfig,
    ObjectiveConfig,
    PitchConfig,
    load_config,
    parse_config,
)
from audiovae.errors import ConfigError
from audiovae.latents import Conditions
from audiovae.models import bottlenecks
from audiovae.models.hvae import HVAE
from audiovae.training.conditions import ConditionSource, with_classes
from audiovae.training.crops import draw_crops
from audiovae.training.data import Corpus
from audiovae.training.loop import Validation, Watcher, train
from audiovae.training.vae import VAETask
from tests.tones import log_mel_corpus, tiny_config

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parent.parent.parent
FAMILY = ROOT / "configs" / "family"


class Listener(Watcher):
    """Keeps the warnings of validation."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def validated(self, step: int, result: Validation) -> None:
        self.warnings += result.warnings


def run(run_dir: Path, config: ModelConfig, corpus: Corpus | None = None) -> list[str]:
    task = VAETask(config, *(corpus or log_mel_corpus()).split(), run_dir, CPU, Provenance())
    listener = Listener()
    train(task, run_dir, CPU, watcher=listener)
    return listener.warnings


def classical(steps: int, beta: float = 1.0, **tables: object) -> ModelConfig:
    return tiny_config(
        quality=False,
        bottleneck={"kind": "gaussian"},
        objective={"beta": beta, "energy_weight": 0.0},
        training={
            "steps": steps,
            "gradient_clip": 200.0,
            "skip_gradient_above": 1e9,
            "learning_rate": 2e-2,
            "ema_decay": 0.0,
        },
        **tables,
    )


def test_a_collapse_is_reported_by_level_with_a_remedy(tmp_path: Path) -> None:
    """A rate that costs a thousand times too much drives every level to its prior."""
    warnings = run(tmp_path, classical(80, beta=1e3))
    assert len(warnings) == 2
    for name, warning in zip(("2.7Hz", "21.5Hz"), warnings, strict=True):
        assert warning.startswith(f"level {name} has collapsed: none of its 4 units")
        assert "lower objective.beta" in warning
        assert "objective.beta_warmup" in warning


def test_what_has_not_collapsed_is_not_reported(tmp_path: Path) -> None:
    assert run(tmp_path, classical(3, beta=0.0)) == []


def test_an_autoencoder_has_no_rate_and_cannot_collapse(tmp_path: Path) -> None:
    config = parse_config(classical(3).model_dump() | {"bottleneck": {"kind": "deterministic"}})
    assert run(tmp_path, config) == []
    with (tmp_path / "validation.csv").open() as file:
        assert all(float(row["kbps"]) == 0 for row in csv.DictReader(file))


def test_beta_warms_up() -> None:
    objective = ObjectiveConfig(beta=4.0, beta_warmup=0.5)
    assert [objective.at(fraction).beta for fraction in (0.0, 0.25, 0.5, 1.0)] == [0, 2, 4, 4]
    assert ObjectiveConfig(beta=2.0).at(0.0).beta == 2.0


def labelled_corpus() -> Corpus:
    corpus = log_mel_corpus(count=4)
    pitched = [
        torch.cat([corpus.clip(i), torch.full((len(corpus.clip(i)), 2), i / 4).half()], dim=1)
        for i in range(4)
    ]
    return Corpus.of_clips(pitched, corpus.names).labelled(["bell", "drum", "bell", "drum"])


def told() -> ModelConfig:
    tables = {
        "label": LabelConfig(embedding_channels=4, dropout=0.5),
        "pitch": PitchConfig(dropout=0.5),
    }
    return classical(2).model_copy(update=tables)


def test_classes_come_from_the_data_and_stay_in_the_model(tmp_path: Path) -> None:
    corpus = labelled_corpus()
    config = with_classes(told(), corpus.labels)
    run(tmp_path, config, corpus)
    stored = load_checkpoint(tmp_path / "model.safetensors").config
    assert stored.label is not None
    assert stored.label.classes == ("bell", "drum")
    with pytest.raises(ConfigError, match="got 'horn'"):
        with_classes(config, ["bell", "horn"])


def test_each_crop_is_told_of_its_own_clip_or_of_nothing() -> None:
    corpus = labelled_corpus()
    config = with_classes(told(), corpus.labels)
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"batch_size": 200})}
    )
    generator = torch.Generator().manual_seed(0)
    crops = draw_crops(corpus, 200, 64, generator, CPU)
    conditions = ConditionSource(config, corpus, CPU).draw(crops, generator)
    assert conditions.label is not None
    assert conditions.pitch is not None
    own_label = torch.tensor([1, 2, 1, 2])[crops.clips]
    assert 60 < int((conditions.label == 0).sum()) < 140
    assert bool(((conditions.label == own_label) | (conditions.label == 0)).all())
    first = conditions.pitch[:, 0, 0]
    own_pitch = crops.clips / 4
    assert bool(((first == own_pitch) | (first == 0)).all())
    away = (first == 0) & (own_pitch > 0)
    assert 0.3 < float(away.float().sum() / (own_pitch > 0).sum()) < 0.7


def test_a_pitch_that_the_corpus_lacks_is_asked_for(tmp_path: Path) -> None:
    config = classical(2).model_copy(update={"pitch": PitchConfig()})
    with pytest.raises(ConfigError, match=r"frames with their pitch.*--with-audio"):
        run(tmp_path, config)


VARIANT = '''
"""Half of the latent is heard: the gaussian bottleneck with every second channel silenced."""

import torch
from audiovae.models.bottlenecks.gaussian import Bottleneck as Gaussian
from dataclasses import replace


class Bottleneck(Gaussian):
    def settle(self, posterior, prior):
        sample = super().settle(posterior, prior)
        keep = torch.arange(sample.latent.shape[1]) % 2 == 0
        return replace(sample, latent=sample.latent * keep[:, None])
'''


def test_a_new_variant_is_one_module_and_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, configs = tmp_path / "modules", tmp_path / "configs"
    modules.mkdir()
    shutil.copytree(ROOT / "configs", configs)
    (modules / "half_heard.py").write_text(VARIANT)
    (configs / "half_heard.toml").write_text(
        'extends = "tiny.toml"\nquality = false\nbottleneck = { kind = "half_heard" }\n'
        "[training]\nsteps = 2\nbatch_size = 2\n"
    )
    monkeypatch.setattr(bottlenecks, "__path__", [*bottlenecks.__path__, str(modules)])
    assert "half_heard" in bottlenecks.bottleneck_kinds()
    run(tmp_path / "run", load_config(configs / "half_heard.toml"))
    model = load_model(tmp_path / "run" / "model.safetensors", vocoder=None)
    assert model.config.bottleneck.kind == "half_heard"
    latents = model.vae.encode(
        torch.full((1, 128, 64), -4.0), torch.tensor([64]), Conditions()
    ).latents
    assert all(not group[:, 1::2].any() and group[:, ::2].any() for group in latents.groups)


@pytest.mark.parametrize("path", sorted(FAMILY.glob("*.toml")), ids=lambda path: path.stem)
def test_the_family_is_of_equal_size(path: Path) -> None:
    if path.stem == "adversarial_vae":
        pytest.skip("takes the sizes of the VAE it starts from")
    assert parameters(load_config(path)) == pytest.approx(
        parameters(load_config(FAMILY / "vae.toml")), rel=0.02
    )


def parameters(config: ModelConfig) -> int:
    config = with_classes(config, ["music", "note", "sfx", "speech"])
    with torch.device("meta"):
        built = HVAE(config)
    books = sum(b.numel() for name, b in built.named_buffers() if name.endswith(".codes"))
    return books + sum(parameter.numel() for parameter in built.parameters())


@pytest.mark.parametrize("kind", ["vq", "deterministic"])
def test_a_gpu_compiles_one_graph_of_it(kind: str) -> None:
    settings = [f"bottleneck.kind={kind}", "bottleneck.codes=8", "bottleneck.codebooks=2"]
    config = load_config(ROOT / "configs" / "tiny.toml", ["quality=false", *settings])
    config = with_classes(config.model_copy(update={"label": told().label}), ["bell", "drum"])
    network = HVAE(config.model_copy(update={"pitch": PitchConfig()}))
    run_once = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)
    conditions = Conditions(label=torch.tensor([1, 0]), pitch=torch.zeros(2, 2, 64))
    log_mel = torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(0)) - 5
    output = run_once(log_mel, torch.tensor([64, 50]), conditions)
    assert bool(output.log_mel.isfinite().all())
