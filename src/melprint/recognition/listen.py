"""Live recognition: an answer that is refined second by second, and given as soon as it is sure."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.catalog.catalog import Catalog
from melprint.fingerprints.rows import Rows
from melprint.matching.sequence import match_sequences
from melprint.recognition.answers import clock
from melprint.recognition.microphone import device_blocks
from melprint.recognition.recent import Recent

BLOCK_S = 0.25
ANSWER_EVERY_S = 1.0
LENGTHS_S = (2, 3, 5, 7, 10)  # up to now that are compared: short ones follow a change, long ones are surer
NUM_NEIGHBOURS = 10
LOST_S = 5.0  # without a match, after which the same track is announced again


@dataclass(frozen=True)
class Heard:
    """What is known at one moment.

    Attributes:
        time_s: since listening began.
        key: of the best track; empty where nothing is found.
        title, artist: of that track.
        track_s: where in the track this moment is.
        score: mean cosine.
        confidence: one minus the chance that unknown music looks like it.
        sure: whether it is said to be that track.
        new: whether it was not said in the moment before.
    """

    time_s: float
    key: str = ""
    title: str = ""
    artist: str = ""
    track_s: float | None = None
    score: float | None = None
    confidence: float | None = None
    sure: bool = False
    new: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.key:
            return f"{clock(self.time_s)}  listening"
        name = " – ".join(part for part in (self.artist, self.title) if part)
        name = f"{self.key} ({name})" if name else self.key
        how = "" if self.sure else "perhaps "
        return f"{clock(self.time_s)}  {how}{name} at {clock(self.track_s or 0.0)}, confidence {self.confidence:.2%}"


class Listener:
    """Takes audio as it comes, and gives an answer for every second of it.

    Args:
        catalog: to look in.
        false_accept_rate: share of the moments at which unknown music may be called known.
    """

    def __init__(self, catalog: Catalog, false_accept_rate: float = 0.001) -> None:
        self.catalog, self.false_accept_rate = catalog, false_accept_rate
        _ = catalog.confidence  # refuses before any work
        segment = catalog.segment
        self.lengths = [segment.num_segments(segment.to_samples(length_s)) for length_s in LENGTHS_S]
        self.recent = Recent(catalog, NUM_NEIGHBOURS)
        self.num_samples = 0
        self.answered = 0
        self.said: tuple[str, float] | None = None  # the track that was announced last, and when it was last heard

    def feed(self, pcm_T: NDArray[np.int16]) -> list[Heard]:
        """Take the next samples; an answer for each second that is complete."""
        segment = self.catalog.segment
        every = segment.to_samples(ANSWER_EVERY_S)
        answers = []
        while len(pcm_T):
            # Up to the next second, so that a block of any length gives the same answers.
            part, pcm_T = np.split(pcm_T, [every - self.num_samples % every])
            self.num_samples += len(part)
            self.recent.feed(part, self.lengths[-1])
            if self.num_samples % every == 0:
                answers.append(self._answer())
        return answers

    def _answer(self) -> Heard:
        segment, catalog = self.catalog.segment, self.catalog
        view, recent = self.recent.view(), self.recent
        time_s = self.num_samples / segment.sample_rate_hz
        lengths = [length for length in self.lengths if length <= len(recent.rows)]
        if not lengths or not len(view.first):
            return Heard(time_s)
        first = len(recent.rows) - np.array(lengths)
        best = match_sequences(
            Rows([recent.rows]), recent.neighbours, first, np.array(lengths), [lengths[-1]], view.rows, view.borders,
            num_best=1,
        )[lengths[-1]]  # fmt: skip
        found = [
            (catalog.confidence.chance(float(best.score[i, 0]), length, len(view), len(LENGTHS_S)), -length, i)
            for i, length in enumerate(lengths)
            if best.track[i, 0] >= 0
        ]
        if not found:
            return Heard(time_s)
        chance, _, i = min(found)
        track_id = int(view.track_ids[view.track_of_stretch[best.track[i, 0]]])
        track = catalog.tracks([track_id]).get(track_id)
        if track is None:
            return Heard(time_s)  # removed at this moment
        heard_until_s = (best.start[i, 0] + lengths[i] - 1) * segment.hop_s + segment.duration_s
        sure = chance <= self.false_accept_rate
        new = sure and (self.said is None or self.said[0] != track.key or time_s - self.said[1] > LOST_S)
        if sure:
            self.said = (track.key, time_s)
        return Heard(
            time_s, track.key, track.title, track.artist, round(float(heard_until_s), 2),
            round(float(best.score[i, 0]), 4), round(1 - chance, 6), sure, new,
        )  # fmt: skip


def listen(
    catalog: Catalog,
    device: str | Path | None = None,
    *,
    duration_s: float | None = None,
    false_accept_rate: float = 0.001,
    realtime: bool = True,
) -> Iterator[Heard]:
    """Answers from the microphone, one a second; nothing is lost while one is computed.

    Args:
        catalog: to look in.
        device: name or number of the microphone, or a file that stands for one.
        duration_s: when to stop; by default at the end of the file, or never.
        false_accept_rate: share of the moments at which unknown music may be called known.
        realtime: whether a file is fed as slowly as it sounds.

    Raises:
        MelprintError: there is no such microphone.
    """
    listener = Listener(catalog, false_accept_rate)
    rate_hz = catalog.segment.sample_rate_hz
    for block in device_blocks(device, rate_hz, BLOCK_S, realtime=realtime):
        yield from listener.feed(block)
        if duration_s is not None and listener.num_samples >= duration_s * rate_hz:
            return
