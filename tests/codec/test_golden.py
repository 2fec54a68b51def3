"""Files of every released version decode to the symbols they were made of."""

from __future__ import annotations

import json

import pytest

from audiovae.checkpoint import Model, load_model
from audiovae.codec import AvaeReader
from tests.codec.files import decode_file
from tests.golden.make_golden import CASES, FACTS, FOLDER, MODEL


@pytest.fixture(scope="module")
def golden_model() -> Model:
    return load_model(MODEL, vocoder=None)


def test_the_identity_of_a_model_stays(golden_model: Model) -> None:
    assert golden_model.id == json.loads(FACTS.read_text())["model_id"]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_golden_file_decodes_to_its_symbols(golden_model: Model, name: str) -> None:
    data = (FOLDER / f"{name}.avae").read_bytes()
    with AvaeReader(data) as reader:
        stored = [entry.symbols_crc for entry in reader.entries]
    assert stored == json.loads(FACTS.read_text())["symbols_crc"][name]
    decoded = decode_file(golden_model, data)  # refuses symbols with another checksum
    assert all(bool(log_mel.isfinite().all()) for log_mel in decoded.values())
