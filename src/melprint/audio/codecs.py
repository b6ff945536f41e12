"""Lossy coding and decoding, in memory.  Axes: T samples.

MP3, Opus and AAC by PyAV (ffmpeg's libraries), Vorbis by libsndfile: PyAV's wheels have no good Vorbis encoder.
Containers and encoder settings are those that put the decoded samples where the original ones were, to within
one sample: an evaluation of places must not be off by the delay of a codec.
"""

import io
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from melprint.errors import MelprintError


class _Coder(NamedTuple):
    encoder: str
    container: str
    options: dict[str, str]


CODERS = {
    "mp3": _Coder("libmp3lame", "mp3", {}),
    "opus": _Coder("libopus", "ogg", {"application": "lowdelay"}),
    "aac": _Coder("aac", "mp4", {}),
}
CODECS = (*CODERS, "vorbis")
VORBIS_STEPS = 8  # halvings of libsndfile's quality range on the way to a bit rate


def has_codec(codec: str) -> bool:
    """Whether an encoder for it is installed."""
    if codec == "vorbis":
        return "OGG" in soundfile.available_formats()
    import av

    try:
        av.codec.Codec(CODERS[codec].encoder, "w")
    except (KeyError, ValueError):
        return False
    return True


def code(wave_T: NDArray[np.float32], sample_rate_hz: int, codec: str, kbit_s: float) -> tuple[NDArray, float]:
    """A waveform after coding and decoding, and the bit rate that came of it.

    Args:
        wave_T: mono in [-1, 1].
        sample_rate_hz: of it; the coder works at this rate.
        codec: ``mp3``, ``opus``, ``aac`` or ``vorbis``.
        kbit_s: what is asked for; coders have lowest and highest rates, and MP3 has steps.

    Returns:
        Samples ``(T,)`` and kbit/s.

    Raises:
        MelprintError: an unknown codec, or one without an installed encoder.
    """
    if codec not in CODECS or not has_codec(codec):
        raise MelprintError(f"there is no encoder for {codec} here; known ones are {', '.join(CODECS)}")
    if kbit_s <= 0:
        raise MelprintError(f"a bit rate must be positive, got {kbit_s} kbit/s")
    coded = _vorbis(wave_T, sample_rate_hz, kbit_s) if codec == "vorbis" else _av(wave_T, sample_rate_hz, codec, kbit_s)
    decoded = _decode_vorbis(coded) if codec == "vorbis" else _decode_av(coded, sample_rate_hz)
    out = np.zeros(len(wave_T), np.float32)
    out[: len(decoded)] = decoded[: len(out)]
    return out, 8 * len(coded) / (len(wave_T) / sample_rate_hz) / 1000


def _av(wave_T: NDArray[np.float32], sample_rate_hz: int, codec: str, kbit_s: float) -> bytes:
    import av

    coder, buffer = CODERS[codec], io.BytesIO()
    with av.open(buffer, "w", format=coder.container) as container:
        stream: Any = container.add_stream(coder.encoder, rate=sample_rate_hz, layout="mono", options=coder.options)
        stream.bit_rate = round(1000 * kbit_s)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave_T[None]), format="flt", layout="mono")
        frame.sample_rate, frame.pts = sample_rate_hz, 0
        for part in (frame, None):
            for packet in stream.encode(part):
                container.mux(packet)
    return buffer.getvalue()


def _decode_av(coded: bytes, sample_rate_hz: int) -> NDArray[np.float32]:
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate_hz)
    with av.open(io.BytesIO(coded)) as container:
        frames = [out for frame in (*container.decode(audio=0), None) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def _vorbis(wave_T: NDArray[np.float32], sample_rate_hz: int, kbit_s: float) -> bytes:
    """By halving: the encoder takes a quality and not a rate."""
    low, high = 0.0, 1.0  # 1 is the strongest compression
    wanted = kbit_s * 1000 / 8 * len(wave_T) / sample_rate_hz
    for _ in range(VORBIS_STEPS):
        middle = (low + high) / 2
        coded = _at_compression(wave_T, sample_rate_hz, middle)
        low, high = (middle, high) if len(coded) > wanted else (low, middle)
    return coded


def _at_compression(wave_T: NDArray[np.float32], sample_rate_hz: int, level: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave_T, sample_rate_hz, format="OGG", subtype="VORBIS", compression_level=level)
    return buffer.getvalue()


def _decode_vorbis(coded: bytes) -> NDArray[np.float32]:
    return soundfile.read(io.BytesIO(coded), dtype="float32")[0]
