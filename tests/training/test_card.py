"""The model card says what the model file and the logs say."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from audiovae.checkpoint import Provenance, QualityPoint, save_vae
from audiovae.errors import CheckpointError
from audiovae.training.card import CURVES_NAME, write_model_card
from tests.small_models import tiny_vae


def test_a_card_holds_origin_figures_and_curves(tmp_path: Path) -> None:
    origin = Provenance("0.1.0", "tones: 3 files", "CC0-1.0", 5).after(40, 90.0, {"kbps_1": 1.25})
    save_vae(tmp_path / "model.safetensors", tiny_vae(), origin, (QualityPoint(1, 3.0, 0.4, 5.5),))
    (tmp_path / "metrics.csv").write_text("step,loss\n10,3.5\n20,2.5\n")
    card = write_model_card(tmp_path).read_text()
    for fact in ("40 steps, 1.5 minutes, seed 5", "tones: 3 files", "CC0-1.0", "kbps_1 | 1.25"):
        assert fact in card
    assert "| 1 | 0.40 | 5.50 |" in card
    with Image.open(tmp_path / CURVES_NAME) as curves:
        assert curves.width > 500


def test_without_a_model_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a model file"):
        write_model_card(tmp_path)
    assert list(tmp_path.iterdir()) == []
