"""Changes of speed, pitch, band and level.  Axes: B batch · T samples."""

from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from melprint.errors import MelprintError

FILTER_ORDER = 4  # Butterworth: 24 dB an octave


def change_speed(wave_T: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Play faster (above 1) or slower: tempo and pitch change together, as of a tape."""
    return soxr.resample(wave_T, _positive(factor), 1.0, quality="HQ").astype(np.float32, copy=False)


def change_tempo(wave_T: NDArray[np.float32], sample_rate_hz: int, factor: float) -> NDArray[np.float32]:
    """Play faster or slower at the same pitch (Signalsmith Stretch)."""
    return _stretched(wave_T, sample_rate_hz, tempo=_positive(factor))


def change_pitch(wave_T: NDArray[np.float32], sample_rate_hz: int, factor: float) -> NDArray[np.float32]:
    """Multiply all frequencies by a factor at the same tempo (Signalsmith Stretch)."""
    return _stretched(wave_T, sample_rate_hz, semitones=12 * float(np.log2(_positive(factor))))


def pass_band(
    wave_BT: NDArray[np.float32], sample_rate_hz: int, cutoff_hz: float, kind: Literal["lowpass", "highpass"]
) -> NDArray[np.float32]:
    """A causal Butterworth filter of the fourth order along the last axis."""
    from scipy.signal import butter, sosfilt

    if not 0 < cutoff_hz < sample_rate_hz / 2:
        raise MelprintError(f"a cutoff must lie between 0 and {sample_rate_hz / 2:g} Hz, got {cutoff_hz} Hz")
    sections = butter(FILTER_ORDER, cutoff_hz, kind, fs=sample_rate_hz, output="sos")
    return sosfilt(sections, wave_BT, axis=-1).astype(np.float32)


def clip_loudest(wave_BT: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Clip each row where this share of its samples is louder."""
    if not 0 <= share < 1:
        raise MelprintError(f"the share of clipped samples must lie in [0, 1), got {share}")
    limit = np.quantile(np.abs(wave_BT), 1 - share, axis=-1, keepdims=True).astype(np.float32)
    return np.clip(wave_BT, -limit, limit)


def _stretched(
    wave_T: NDArray[np.float32], sample_rate_hz: int, *, tempo: float = 1.0, semitones: float = 0.0
) -> NDArray[np.float32]:
    from python_stretch import Signalsmith

    stretch = Signalsmith.Stretch(1)  # the argument is a seed
    stretch.preset(1, sample_rate_hz, False)
    stretch.setTransposeSemitones(semitones)
    stretch.setTimeFactor(tempo)
    return np.asarray(stretch.process(np.ascontiguousarray(wave_T[None], np.float32)), np.float32)[0]


def _positive(factor: float) -> float:
    if factor <= 0:
        raise MelprintError(f"a factor of speed or pitch must be positive, got {factor}")
    return float(factor)
