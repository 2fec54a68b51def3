"""Files of every released version decode to the symbols they were made of."""

from __future__ import annotations

import json
from functools import lru_cache

import pytest

from audiovae.checkpoint import Model, load_model
from audiovae.codec import AvaeReader
from tests.codec.files import decode_file
from tests.golden.make_golden import FOLDER, GOLDEN

CASES = [(kind, name) for kind, golden in GOLDEN.items() for name in golden.cases]


@lru_cache(maxsize=2)
def golden_model(kind: str) -> Model:
    return load_model(FOLDER / GOLDEN[kind].model, vocoder=None)


def facts(kind: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((FOLDER / GOLDEN[kind].facts).read_text())
    return found


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_the_identity_of_a_model_stays(kind: str) -> None:
    assert golden_model(kind).id == facts(kind)["model_id"]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_golden_file_decodes_to_its_symbols(kind: str, name: str) -> None:
    data = (FOLDER / f"{name}.avae").read_bytes()
    with AvaeReader(data) as reader:
        stored = [entry.symbols_crc for entry in reader.entries]
        assert reader.header.kind == golden_model(kind).config.bottleneck.kind
    assert {name: stored}.items() <= facts(kind)["symbols_crc"].items()  # type: ignore[attr-defined]
    decoded = decode_file(golden_model(kind), data)  # refuses symbols with another checksum
    assert all(bool(log_mel.isfinite().all()) for log_mel in decoded.values())
