from __future__ import annotations

import pytest

from audiovae.checkpoint import Model
from tests.codec.tiny import tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_model(tmp_path_factory.mktemp("model"))
