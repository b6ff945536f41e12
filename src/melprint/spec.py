"""Values that every part must agree on: how audio is cut and how a spectrogram is made."""

from dataclasses import dataclass

from melprint.errors import MelprintError


@dataclass(frozen=True)
class SegmentSpec:
    """How a track is cut into segments; one fingerprint per segment.

    >>> spec = SegmentSpec()
    >>> spec.num_samples, spec.hop_samples, spec.num_segments(30 * 8_000)
    (8000, 4000, 59)
    """

    sample_rate_hz: int = 8_000
    duration_s: float = 1.0
    hop_s: float = 0.5

    def __post_init__(self) -> None:
        if self.sample_rate_hz <= 0:
            raise MelprintError(f"sample_rate_hz must be positive, got {self.sample_rate_hz}")
        if not 0 < self.hop_s <= self.duration_s:
            raise MelprintError(f"hop_s must lie in (0, {self.duration_s}], got {self.hop_s}")

    @property
    def num_samples(self) -> int:
        """Samples in one segment."""
        return self.to_samples(self.duration_s)

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of two neighbouring segments."""
        return self.to_samples(self.hop_s)

    def to_samples(self, seconds: float) -> int:
        """The nearest whole number of samples."""
        return round(seconds * self.sample_rate_hz)

    def num_segments(self, num_samples: int) -> int:
        """Segments of a track: a short track gives one, zero-padded; a tail below one hop gives none.

        >>> [SegmentSpec().num_segments(n) for n in (1, 8_000, 11_999, 12_000)]
        [1, 1, 1, 2]
        """
        return 1 + max(0, num_samples - self.num_samples) // self.hop_samples

    def query_seconds(self, num_segments: int) -> float:
        """Length of a query of ``num_segments`` overlapping segments.

        >>> [SegmentSpec().query_seconds(n) for n in (1, 3, 5, 9, 11, 19)]
        [1.0, 2.0, 3.0, 5.0, 6.0, 10.0]
        """
        return self.duration_s + (num_segments - 1) * self.hop_s


@dataclass(frozen=True)
class MelSpec:
    """A log-mel spectrogram of one segment; the defaults are those of neural-audio-fp.

    Attributes:
        n_fft: window and transform length in samples (periodic Hann).
        hop_samples: samples between two frames.
        pad_samples: zeros put before and after the segment.
        num_mels: Slaney mel bands with Slaney area normalisation.
        f_min_hz: lower edge of the lowest band.
        f_max_hz: upper edge of the highest band.
        floor: added to the mel magnitudes before the logarithm.
        unit_level: scale each segment to an RMS of 1 first, so that loudness does not matter.
        power: of the magnitude before the mel bands: 1 (neural-audio-fp) or 2.
        range_db: what lies further below the maximum is raised to there, and the range is scaled to [-1, 1];
            ``None`` leaves the logarithm as it is.
    """

    n_fft: int = 1024
    hop_samples: int = 256
    pad_samples: int = 512
    num_mels: int = 256
    f_min_hz: float = 300.0
    f_max_hz: float = 4_000.0
    floor: float = 0.06
    unit_level: bool = False
    power: int = 1
    range_db: float | None = None

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise MelprintError(f"power must be 1 or 2, got {self.power}")
        if self.range_db is not None and self.range_db <= 0:
            raise MelprintError(f"range_db must be positive, got {self.range_db}")
        if not 0 <= self.f_min_hz < self.f_max_hz:
            raise MelprintError(f"need 0 <= f_min_hz < f_max_hz, got {self.f_min_hz} and {self.f_max_hz}")
        if self.floor <= 0:
            raise MelprintError(f"floor must be positive to keep the logarithm finite, got {self.floor}")

    def num_frames(self, num_samples: int) -> int:
        """Frames of a segment.

        >>> MelSpec().num_frames(8_000)
        32
        """
        return 1 + (num_samples + 2 * self.pad_samples - self.n_fft) // self.hop_samples
