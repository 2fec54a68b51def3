"""Write the golden files: tiny models, and compressed files that every later version decodes.

    python -m tests.golden.make_golden NAME      one of GOLDEN

Once version 1 is released, these files stay as they are; a new format version, or a new kind of
bottleneck, adds its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audiovae.checkpoint import Provenance, load_model, save_vae
from audiovae.codec import AvaeReader
from audiovae.models.hvae import HVAE
from tests.codec.files import encode_file, header_for
from tests.codec.tiny import tiny_vae
from tests.codec.tiny_vq import tiny_vq_vae

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """Files of one model.

    Attributes:
        make: Builds the model.
        model: Name of its file.
        facts: Name of the file with its identity and the checksums of its symbols.
        cases: Header fields of each compressed file, by name.
    """

    make: Callable[[], HVAE]
    model: str
    facts: str
    cases: dict[str, dict[str, object]]


GOLDEN = {
    "quantized": Golden(
        tiny_vae,
        "tiny.safetensors",
        "v1.json",
        {
            "v1_short_mono": {"num_samples": 9_000},
            "v1_stereo": {"num_samples": 600_000, "num_channels": 2, "bit_depth": 24},
            "v1_copied_channel": {
                "num_samples": 96_000,
                "sample_rate": 48_000,
                "num_channels": 3,
                "channel_sources": (0, 0, 2),
            },
        },
    ),
    "quantized, version 2": Golden(
        tiny_vae,
        "tiny.safetensors",
        "v2.json",
        {"v2_stereo": {"num_samples": 600_000, "num_channels": 2}},
    ),
    "vq": Golden(
        tiny_vq_vae,
        "tiny_vq.safetensors",
        "v1_vq.json",
        {
            "v1_vq_short_mono": {"num_samples": 9_000, "kind": "vq"},
            "v1_vq_stereo": {"num_samples": 600_000, "num_channels": 2, "kind": "vq"},
        },
    ),
}


def write(golden: Golden) -> None:
    """Write the model, files and the checksums of their symbols; what is there stays."""
    path = FOLDER / golden.model
    if not path.exists():
        save_vae(path, golden.make(), Provenance(licence="Apache-2.0"), ())
    model = load_model(path, vocoder=None)
    files = {}
    for name, fields in golden.cases.items():
        coded = FOLDER / f"{name}.avae"
        if not coded.exists():
            header = header_for(model, **fields)  # type: ignore[arg-type]
            coded.write_bytes(encode_file(model, header))
        with AvaeReader(coded) as reader:
            files[name] = [entry.symbols_crc for entry in reader.entries]
    facts = {"model_id": model.id, "symbols_crc": files}
    (FOLDER / golden.facts).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    write(GOLDEN[sys.argv[1]])
