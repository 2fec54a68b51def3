"""Write the golden files: a tiny model, and compressed files that every later version decodes.

    python -m tests.golden.make_golden

Once version 1 is released, these files stay as they are; a new format version adds its own.
"""

from __future__ import annotations

import json
from pathlib import Path

from audiovae.checkpoint import Provenance, load_model, save_vae
from audiovae.codec import AvaeReader
from tests.codec.files import encode_file, header_for
from tests.codec.tiny import tiny_vae

FOLDER = Path(__file__).parent
MODEL = FOLDER / "tiny.safetensors"
FACTS = FOLDER / "v1.json"
CASES: dict[str, dict[str, object]] = {
    "v1_short_mono": {"num_samples": 9_000},
    "v1_stereo": {"num_samples": 600_000, "num_channels": 2, "bit_depth": 24},
    "v1_copied_channel": {
        "num_samples": 96_000,
        "sample_rate": 48_000,
        "num_channels": 3,
        "channel_sources": (0, 0, 2),
    },
}


def main() -> None:
    """Write model, files and the checksums of their symbols."""
    save_vae(MODEL, tiny_vae(), Provenance(licence="Apache-2.0"), ())
    model = load_model(MODEL, vocoder=None)
    files = {}
    for name, fields in CASES.items():
        header = header_for(model, **fields)  # type: ignore[arg-type]
        data = encode_file(model, header)
        (FOLDER / f"{name}.avae").write_bytes(data)
        with AvaeReader(data) as reader:
            files[name] = [entry.symbols_crc for entry in reader.entries]
    FACTS.write_text(json.dumps({"model_id": model.id, "symbols_crc": files}, indent=2) + "\n")


if __name__ == "__main__":
    main()
