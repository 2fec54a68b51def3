"""The compressed file `.avae`: symbols, the entropy coder and the container.

`encode_chunks` and `decode_chunks` turn log-mel into payloads and back; `AvaeWriter` and
`AvaeReader` put payloads into a file and take them out. `docs/format.md` describes every byte.
"""

from audiovae.codec.chunk_coding import decode_chunks, encode_chunks, measure_chunk
from audiovae.codec.container import AvaeReader, require_grid
from audiovae.codec.header import AvaeHeader
from audiovae.codec.types import CodedChunk, DamagedChunkError
from audiovae.codec.writer import AvaeWriter, chunk_bytes, head_bytes

__all__ = [
    "AvaeHeader",
    "AvaeReader",
    "AvaeWriter",
    "CodedChunk",
    "DamagedChunkError",
    "chunk_bytes",
    "decode_chunks",
    "encode_chunks",
    "head_bytes",
    "measure_chunk",
    "require_grid",
]
