"""Noise and rooms, resident as tensors."""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from melprint.audio.convolution import response_spectra
from melprint.audio.files import INT16_SCALE
from melprint.audio.responses import from_direct_sound
from melprint.data.manifest import Track
from melprint.errors import MelprintError

MAX_MUSIC_S = 3_600.0  # of other music in a bank: 58 MB at 8 kHz
SHORTEST_S = 4.0  # a shorter recording of noise is repeated to this length


class Surroundings:
    """What sounds around the music of one split; each kind becomes a bank when a transform first asks for it.

    Args:
        noise: its tracks.
        rooms: impulse responses.
        sample_rate_hz: of everything.
        music: other music of the split.
    """

    def __init__(
        self, noise: Sequence[Track], rooms: Sequence[Track], sample_rate_hz: int, music: Sequence[Track] = ()
    ) -> None:
        self.noise_tracks, self.room_tracks, self.sample_rate_hz = noise, rooms, sample_rate_hz
        self.music_tracks = music

    @cached_property
    def noise(self) -> "NoiseBank":
        """All noise."""
        return NoiseBank(self.noise_tracks, self.sample_rate_hz)

    @cached_property
    def rooms(self) -> "RoomBank":
        """All rooms."""
        return RoomBank(self.room_tracks, self.sample_rate_hz)

    @cached_property
    def music(self) -> "NoiseBank":
        """Some of the music, from all over the list."""
        total_s = sum(track.num_samples for track in self.music_tracks) / self.sample_rate_hz
        every = max(1, math.ceil(total_s / MAX_MUSIC_S))
        return NoiseBank(self.music_tracks[::every], self.sample_rate_hz)


class NoiseBank(nn.Module):
    """All noise of one split in one int16 tensor, with uniform crops by item.

    Kinds of noise (the part of a track id before the first slash) are equally likely; within a kind,
    files weigh by their length.
    """

    def __init__(self, tracks: Sequence[Track], sample_rate_hz: int) -> None:
        super().__init__()
        if not tracks:
            raise MelprintError(
                "there is no noise for this split; check the corpus or leave the noise out of the chain"
            )
        self.names = [track.track_id for track in tracks]
        lengths = np.array([track.num_samples for track in tracks], np.int64)
        repeated = lengths * -(-round(SHORTEST_S * sample_rate_hz) // lengths)
        kept = np.where(lengths < SHORTEST_S * sample_rate_hz, repeated, lengths)
        samples = np.empty(kept.sum(), np.int16)
        for track, length, end in zip(tracks, kept, np.cumsum(kept), strict=True):  # one mapped file at a time
            samples[end - length : end].reshape(-1, track.num_samples)[:] = track.samples(sample_rate_hz)
        _, kinds = np.unique(
            [name.partition("/")[0] if "/" in name else "" for name in self.names], return_inverse=True
        )
        weights = lengths / np.bincount(kinds, lengths)[kinds]
        self.register_buffer("samples", torch.from_numpy(samples), persistent=False)
        self.register_buffer("first", torch.from_numpy(np.cumsum(kept) - kept), persistent=False)
        self.register_buffer("length", torch.from_numpy(kept), persistent=False)
        self.shortest = int(kept.min())
        self.register_buffer("cumulative", torch.from_numpy(np.cumsum(weights) / weights.sum()), persistent=False)
        self.samples: Tensor
        self.first: Tensor
        self.length: Tensor
        self.cumulative: Tensor

    def choose(self, draw_B: Tensor) -> Tensor:
        """The file of each item ``(B,)`` for uniform draws."""
        return torch.searchsorted(self.cumulative, draw_B.contiguous(), right=True).clamp_max(len(self.length) - 1)

    def crop(self, file_B: Tensor, draw_B: Tensor, num_samples: int) -> Tensor:
        """Noise ``(B, num_samples)`` from a uniform place of each item's file; a shorter file repeats."""
        length = self.length[file_B]
        start = (draw_B * (length - num_samples + 1).clamp_min(1)).long()
        if num_samples <= self.shortest:
            return self.samples.unfold(0, num_samples, 1)[self.first[file_B] + start].float() / INT16_SCALE
        offsets = start[:, None] + torch.arange(num_samples, device=start.device)
        return self.samples[self.first[file_B, None] + offsets % length[:, None]].float() / INT16_SCALE


class RoomBank(nn.Module):
    """Impulse responses of one split: direct sound at sample 0, unit energy.

    See :func:`melprint.audio.responses.from_direct_sound`.
    """

    def __init__(self, tracks: Sequence[Track], sample_rate_hz: int, max_duration_s: float = 1.0) -> None:
        super().__init__()
        if not tracks:
            raise MelprintError("there is no room for this split; check the corpus or leave rooms out of the chain")
        self.names = [track.track_id for track in tracks]
        taps = round(max_duration_s * sample_rate_hz)
        responses = [_response(track, sample_rate_hz)[:taps] for track in tracks]
        taps = max(map(len, responses))
        padded = torch.stack([nn.functional.pad(response, (0, taps - len(response))) for response in responses])
        self.register_buffer("responses", padded, persistent=False)
        self.responses: Tensor
        self._spectra: tuple[tuple[int, int], Tensor] | None = None

    def choose(self, draw_B: Tensor) -> Tensor:
        """The room of each item ``(B,)`` for uniform draws."""
        return (draw_B * len(self.responses)).long()

    def spectra(self, room_B: Tensor, num_samples: int, max_taps: int) -> Tensor:
        """Spectra of the chosen responses, cut to ``max_taps``, for waves of ``num_samples``.

        Those of all rooms are kept for the last length that was asked for by a batch that is worth it.
        """
        if len(room_B) < len(self.responses):
            return response_spectra(self.responses[room_B, :max_taps], num_samples)
        key = (num_samples, max_taps)
        if self._spectra is None or self._spectra[0] != key or self._spectra[1].device != self.responses.device:
            self._spectra = key, response_spectra(self.responses[:, :max_taps], num_samples)
        return self._spectra[1][room_B]


def _response(track: Track, sample_rate_hz: int) -> Tensor:
    return torch.from_numpy(from_direct_sound(track.samples(sample_rate_hz).astype(np.float32)))
