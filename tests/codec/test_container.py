"""The container: header and table, one seek a chunk, and no damage that goes unseen."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiovae.checkpoint import Model
from audiovae.codec import AvaeHeader, AvaeReader, AvaeWriter, CodedChunk, DamagedChunkError
from audiovae.codec.container import MAGIC, VERSION
from audiovae.codec.header import MAX_SAMPLES
from audiovae.codec.integers import write_varint
from audiovae.errors import AudioWriteError, BitstreamError, ModelMismatchError

MONO = AvaeHeader(
    sample_rate=44_100,
    num_channels=1,
    num_samples=220_500,
    bit_depth=16,
    model_id="0123456789abcdef",
    model_name="base",
    quality=6,
    log_lambda=6.5,
)
LONG_STEREO = replace(MONO, num_channels=2, num_samples=44_100 * 30)


def chunks_of(header: AvaeHeader, payload_bytes: int = 40) -> list[CodedChunk]:
    return [
        CodedChunk(
            payload=bytes((7 * index + 3 * channel + k) % 251 for k in range(payload_bytes)),
            symbols_crc=zlib.crc32(f"{channel} {index}".encode()),
            num_frames=header.chunk_frames(index),
            channel=channel,
            index=index,
        )
        for index in range(header.num_chunks)
        for channel in header.coded_channels
    ]


def file_of(header: AvaeHeader, payload_bytes: int = 40) -> bytes:
    stream = io.BytesIO()
    with AvaeWriter(stream, header) as writer:
        append_all(writer, chunks_of(header, payload_bytes))
    return stream.getvalue()


def append_all(writer: AvaeWriter, chunks: list[CodedChunk]) -> None:
    for chunk in chunks:
        writer.append(chunk)


def with_header(data: bytes, body: bytes) -> bytes:
    """A file of this header, whose checksum is right, and nothing behind it but `data`."""
    head = MAGIC + bytes([VERSION]) + write_varint(len(body)) + body
    return head + zlib.crc32(head).to_bytes(4, "little") + data


@st.composite
def headers(draw: st.DrawFn) -> AvaeHeader:
    channels = draw(st.integers(1, 32))
    sources: list[int] = []
    for channel in range(channels):
        stored = [c for c in range(channel) if sources[c] == c]
        sources.append(draw(st.sampled_from([channel, *stored])))
    return AvaeHeader(
        sample_rate=draw(st.integers(1_000, 768_000)),
        num_channels=channels,
        num_samples=draw(st.integers(1, 1 << 30)),
        bit_depth=draw(st.sampled_from([8, 16, 24, 32, 64])),
        model_id=draw(st.binary(min_size=8, max_size=8)).hex(),
        model_name=draw(st.text("abcXYZ-_ 019é", max_size=16)),
        quality=draw(st.integers(0, 255)),
        log_lambda=draw(st.none() | st.floats(-64, 64, width=32)),
        channel_sources=tuple(sources),
    )


@given(headers())
def test_headers_come_back(header: AvaeHeader) -> None:
    read = AvaeHeader.from_bytes(header.to_bytes())
    if header.coded_channels == tuple(range(header.num_channels)):
        header = replace(header, channel_sources=())
    assert read == header


@given(headers(), st.data())
def test_random_headers_are_sound_or_refused(header: AvaeHeader, data: st.DataObject) -> None:
    body = bytearray(header.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = AvaeHeader.from_bytes(bytes(body))
    except BitstreamError as error:
        message = str(error)
    else:
        message = "sound"
        assert read.num_chunks >= 1
        assert AvaeHeader.from_bytes(read.to_bytes()) == read
    assert message.isprintable()


@pytest.mark.parametrize(
    "fields",
    [
        {"sample_rate": 999},
        {"num_channels": 0},
        {"num_channels": 33},
        {"num_samples": 0},
        {"num_samples": MAX_SAMPLES + 1},
        {"bit_depth": 17},
        {"model_id": "xyz"},
        {"model_id": "0123456789ABCDEF"},
        {"model_name": "a" * 33},
        {"model_name": "a\nb"},
        {"model_name": "../secret"},
        {"model_name": "C:model"},
        {"quality": 256},
        {"log_lambda": float("inf")},
        {"log_lambda": float("nan")},
        {"channel_sources": (0, 0)},
        {"num_channels": 2, "channel_sources": (1, 1)},
        {"num_channels": 3, "channel_sources": (0, 0, 1)},
        {"kind": "gaussian"},
    ],
)
def test_facts_that_no_file_has_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BitstreamError, match="expected"):
        replace(MONO, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("header", [MONO, LONG_STEREO, replace(MONO, num_samples=1)])
def test_chunks_come_back_in_any_order(header: AvaeHeader) -> None:
    with AvaeReader(file_of(header)) as reader:
        assert reader.header == header
        for chunk in reversed(chunks_of(header)):
            assert reader.read_chunk(chunk.channel, chunk.index) == chunk


def test_identical_channels_are_stored_once() -> None:
    header = replace(LONG_STEREO, channel_sources=(0, 0))
    data = file_of(header)
    assert len(data) < len(file_of(LONG_STEREO)) * 0.6
    with AvaeReader(data) as reader:
        assert reader.read_chunk(1, 2) == reader.read_chunk(0, 2)


def test_a_one_chunk_file_has_at_most_56_bytes_around_its_payload() -> None:
    with AvaeReader(file_of(MONO, payload_bytes=1_000)) as reader:
        assert reader.container_bytes <= 56


def test_a_long_file_has_less_than_a_byte_a_second_around_its_payloads() -> None:
    header = replace(MONO, num_samples=44_100 * 3_600)
    with AvaeReader(file_of(header, payload_bytes=2_000)) as reader:
        assert reader.container_bytes <= 56 + 3_600
        assert reader.kbps == pytest.approx(reader.num_bytes * 8 / 3_600_000)


def test_a_path_gets_the_whole_file_and_no_other_remains(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav.avae"
    with AvaeWriter(path, MONO) as writer:
        writer.append(chunks_of(MONO)[0])
        assert not path.exists()
    assert path.read_bytes() == file_of(MONO)
    assert list(tmp_path.iterdir()) == [path]
    with AvaeReader(path) as reader:
        assert reader.num_bytes == path.stat().st_size


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "sound.avae"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="frames"), AvaeWriter(path, LONG_STEREO) as writer:
        append_all(writer, [*chunks_of(LONG_STEREO)[:3], chunks_of(MONO)[0]])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_or_extra_or_other_chunks_are_refused() -> None:
    chunk = chunks_of(MONO)[0]
    with pytest.raises(ValueError, match="got 0"), AvaeWriter(io.BytesIO(), MONO):
        pass
    with pytest.raises(ValueError, match="one more"), AvaeWriter(io.BytesIO(), MONO) as writer:
        append_all(writer, [chunk, chunk])
    with pytest.raises(ValueError, match="frames"), AvaeWriter(io.BytesIO(), MONO) as writer:
        writer.append(replace(chunk, num_frames=3))


def read_all(data: bytes) -> None:
    with AvaeReader(data) as reader:
        for index in range(reader.header.num_chunks):
            for channel in reader.header.coded_channels:
                reader.read_chunk(channel, index)


@pytest.mark.parametrize("header", [MONO, replace(LONG_STEREO, channel_sources=(0, 0))])
def test_every_flipped_bit_is_found(header: AvaeHeader) -> None:
    data = file_of(header)
    for place in range(8 * len(data)):
        mutated = bytearray(data)
        mutated[place // 8] ^= 1 << (place % 8)
        with pytest.raises(BitstreamError) as caught:
            read_all(bytes(mutated))
        assert "\n" not in str(caught.value)


def test_every_truncation_is_found() -> None:
    data = file_of(LONG_STEREO)
    for length in range(len(data)):
        with pytest.raises(BitstreamError, match=r"expected .*got"):
            AvaeReader(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with AVAE"),
        (b"RIFF....WAVE", "starts with AVAE"),
        (b"AVAE", "cut short|in all"),
        (b"AVAE\x03rest", "version 2 or older, got 3; upgrade"),
        (b"AVAE\x00rest", "version 1 or 2, got 0"),
        (file_of(MONO) + b"more", "appended"),
        (file_of(MONO)[:-1], "cut short"),
    ],
)
def test_refusals_say_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        AvaeReader(data)


def test_damage_is_named_by_its_place() -> None:
    data = bytearray(file_of(MONO))
    with AvaeReader(bytes(data)) as reader:
        table_ends = reader.entries[0].offset
    data[-1] ^= 1
    with AvaeReader(bytes(data)) as reader, pytest.raises(DamagedChunkError) as caught:
        reader.read_chunk(0, 0)
    error = caught.value
    assert (error.channel, error.index, error.start_seconds, error.stop_seconds) == (0, 0, 0.0, 5.0)
    data[table_ends - 1] ^= 1
    with pytest.raises(BitstreamError, match="table of chunks that was written"):
        AvaeReader(bytes(data))
    data[20] ^= 1
    with pytest.raises(BitstreamError, match="header that was written"):
        AvaeReader(bytes(data))


def test_other_chunks_of_a_damaged_file_can_be_read() -> None:
    data = file_of(LONG_STEREO)
    with AvaeReader(data) as reader:
        entry = reader.entries[3]
    damaged = data[: entry.offset] + b"\xff" + data[entry.offset + 1 :]
    with AvaeReader(damaged) as reader:
        for chunk in chunks_of(LONG_STEREO):
            if (chunk.channel, chunk.index) == (1, 1):
                with pytest.raises(DamagedChunkError, match=r"chunk 1 of channel 1 \(11.5 to 23.4"):
                    reader.read_chunk(1, 1)
            else:
                assert reader.read_chunk(chunk.channel, chunk.index) == chunk


def test_salvage_reads_what_is_there_of_a_file_cut_short() -> None:
    data = file_of(LONG_STEREO)[:-50]
    with pytest.raises(BitstreamError, match="--salvage"):
        AvaeReader(data)
    with AvaeReader(data, salvage=True) as reader:
        assert reader.read_chunk(0, 1).num_frames == 1024
        with pytest.raises(DamagedChunkError):
            reader.read_chunk(1, 2)
    with AvaeReader(data + bytes(100), salvage=True) as reader:
        assert reader.read_chunk(0, 0).num_frames == 1024


@pytest.mark.parametrize(
    "fields",
    [
        {"num_samples": MAX_SAMPLES},
        {"num_samples": MAX_SAMPLES, "sample_rate": 1_000, "num_channels": 32},
        {"num_samples": 1 << 30, "num_channels": 32},
    ],
)
def test_a_header_that_promises_much_costs_nothing(fields: dict[str, int]) -> None:
    body = replace(MONO, **fields).to_bytes()  # type: ignore[arg-type]
    data = with_header(bytes(1_000), body)
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="expected a table of"):
            AvaeReader(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_table_that_promises_much_costs_nothing() -> None:
    data = with_header(write_varint(1 << 40) + bytes(12), MONO.to_bytes())
    with pytest.raises(BitstreamError, match="table of chunks that was written"):
        AvaeReader(data)


def test_a_header_of_another_file_is_found() -> None:
    data = file_of(MONO)
    with AvaeReader(data) as reader:
        table_starts = reader.entries[0].offset - 13
    other = with_header(data[table_starts:], replace(MONO, quality=2).to_bytes())
    assert len(other) == len(data)
    with pytest.raises(BitstreamError, match="table of chunks that was written"):
        AvaeReader(other)


def test_a_file_names_the_model_it_needs(model: Model) -> None:
    with AvaeReader(file_of(MONO)) as reader:
        with pytest.raises(ModelMismatchError, match=f"base .id 0123456789abcdef.*id {model.id}"):
            reader.require_model(model)
        with pytest.raises(ModelMismatchError, match="got none; give its model file"):
            reader.require_model(None)
        reader.require_model(replace(model, id=MONO.model_id))


def test_a_model_of_another_grid_is_refused(model: Model) -> None:
    spectrogram = model.config.spectrogram.model_copy(update={"hop_samples": 256})
    config = model.config.model_copy(update={"spectrogram": spectrogram})
    other = replace(model, id=MONO.model_id, config=config)
    with (
        AvaeReader(file_of(MONO)) as reader,
        pytest.raises(ModelMismatchError, match="hop"),
    ):
        reader.require_model(other)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BitstreamError, match=r"gone\.avae: expected a compressed file"):
        AvaeReader(tmp_path / "gone.avae")


def test_a_stream_is_left_open() -> None:
    stream = io.BytesIO(file_of(MONO))
    with AvaeReader(stream) as reader:
        reader.read_chunk(0, 0)
    assert not stream.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AvaeWriter(tmp_path / "a.avae", MONO)
    append_all(writer, chunks_of(MONO))
    monkeypatch.setattr(Path, "open", lambda *_: open("/dev/full", "wb"))
    with pytest.raises(AudioWriteError, match=r"a\.avae: expected a file .*No space left"):
        writer.close()
    assert list(tmp_path.iterdir()) == []
