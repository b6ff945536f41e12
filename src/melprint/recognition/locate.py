"""Which stretches of one recording are which stretches of another, with times to a fraction of a hop.

Axes: S segments · T samples · R reference rows · D fingerprint size · P phases.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import read_mono, to_int16
from melprint.audio.framing import segments_of
from melprint.errors import MelprintError
from melprint.matching.temporal import Range, aligned_ranges, distinct_ranges, in_seconds, options_for, refine
from melprint.models.fingerprinter import Fingerprinter
from melprint.recognition.search import PHASES, embed_audible
from melprint.spec import SegmentSpec


def locate_files(fingerprinter: Fingerprinter, query_path: Path, reference_path: Path) -> list[Range]:
    """Which stretches of one file are which stretches of another, heaviest first; see :func:`locate_in`.

    Raises:
        MelprintError: a file is unreadable or holds no audio.
    """
    return locate_in(
        fingerprinter, _read(query_path, fingerprinter), fingerprints_of_file(fingerprinter, reference_path)
    )


def fingerprints_of_file(fingerprinter: Fingerprinter, path: Path) -> NDArray[np.float32]:
    """Fingerprints ``(R, D)`` of a whole file, zero where it is silent.

    Raises:
        MelprintError: the file is unreadable or holds no audio.
    """
    return _fingerprints(fingerprinter, _read(path, fingerprinter))


def locate_in(
    fingerprinter: Fingerprinter,
    query_T: NDArray[np.int16],
    reference_RD: NDArray[np.floating],
    *,
    max_ranges: int = 10,
) -> list[Range]:
    """Which stretches of a recording are which stretches of a track whose fingerprints are stored, heaviest first.

    The query is fingerprinted from its beginning and from fractions of a hop later: the phase that fits best finds
    a stretch that lies between the rows of the reference, and all phases together place it to a fraction of a hop.
    Silent segments match nothing: every silence is like every other.

    Args:
        fingerprinter: that made the reference's rows.
        query_T: 16-bit samples at the network's rate.
        reference_RD: rows of one track.
        max_ranges: most ranges.

    Returns:
        The ranges; an empty list where nothing aligns, as for a query of less than three segments.

    Raises:
        MelprintError: the query holds no audio, or the rows were made by another network.
    """
    if not len(query_T):
        raise MelprintError("the query holds no samples; give a recording of a second or more")
    return locate_rows(phases_of(fingerprinter, query_T), fingerprinter.segment, reference_RD, max_ranges=max_ranges)


def phases_of(fingerprinter: Fingerprinter, query_T: NDArray[np.int16]) -> list[NDArray[np.float32]]:
    """Fingerprints of a recording from its beginning and from fractions of a hop later, zero where it is silent."""
    return [_fingerprints(fingerprinter, query_T[shift:]) for shift in _shifts(fingerprinter.segment)]


def _shifts(segment: SegmentSpec) -> list[int]:
    return [phase * segment.hop_samples // PHASES for phase in range(PHASES)]


def locate_rows(
    phases: Sequence[NDArray[np.float32]],
    segment: SegmentSpec,
    reference_RD: NDArray[np.floating],
    *,
    max_ranges: int = 10,
) -> list[Range]:
    """As :func:`locate_in`, of a recording that :func:`phases_of` has fingerprinted: for many references."""
    shifts = _shifts(segment)
    reference = np.asarray(reference_RD, np.float32)
    found = [
        replace(rows, phase=phase)
        for phase, its in enumerate(phases)
        for rows in aligned_ranges(its, reference, **options_for(segment, len(its), len(reference))._asdict())
    ]
    found.sort(key=lambda rows: -rows.weight)
    return [
        in_seconds(
            rows,
            segment,
            query_shift_s=shifts[rows.phase] / segment.sample_rate_hz,
            offset_rows=refine(phases, reference, rows),
        )
        for rows in distinct_ranges(found, max_ranges=max_ranges)
    ]


def plot_ranges(
    path_png: Path, similarity_QR: NDArray[np.floating], ranges: Sequence[Range], segment: SegmentSpec
) -> None:
    """Write a picture of all similarities with the ranges drawn on it, axes in seconds.

    Args:
        path_png: file to write.
        similarity_QR: of :func:`melprint.matching.temporal.similarity`.
        ranges: to draw, with their scores.
        segment: how both sides were cut.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axis = figure.subplots()
    # A fingerprint is drawn at the middle of its segment, one hop wide; ranges reach to the ends of theirs.
    first = (segment.duration_s - segment.hop_s) / 2
    ends = [first + count * segment.hop_s for count in similarity_QR.shape]
    image = axis.imshow(
        similarity_QR, extent=(first, ends[1], first, ends[0]), origin="lower", aspect="auto", cmap="Greys",
        vmin=0, vmax=1, interpolation="nearest",
    )  # fmt: skip
    figure.colorbar(image, label="cosine")
    for number, one in enumerate(ranges, 1):
        axis.plot(
            [one.reference_start_s, one.reference_end_s], [one.query_start_s, one.query_end_s],
            linewidth=2, alpha=0.7, label=f"{number}: {one.score:.2f}",
        )  # fmt: skip
    axis.set(xlabel="reference in s", ylabel="query in s")
    if ranges:
        axis.legend(title="range: score", loc="best")
    figure.savefig(path_png, format="png", dpi=110)


def _read(path: Path, fingerprinter: Fingerprinter) -> NDArray[np.int16]:
    wave_T = to_int16(read_mono(path, fingerprinter.segment.sample_rate_hz))
    if not len(wave_T):
        raise MelprintError(f"{path}: holds no audio")
    return wave_T


def _fingerprints(fingerprinter: Fingerprinter, wave_T: NDArray[np.int16]) -> NDArray[np.float32]:
    return embed_audible(fingerprinter, segments_of(wave_T, fingerprinter.segment))[0]
