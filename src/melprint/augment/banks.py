"""Noise and rooms, resident as tensors."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from melprint.audio.convolution import response_spectra
from melprint.audio.files import INT16_SCALE
from melprint.data.manifest import Track
from melprint.errors import MelprintError

ONSET_DB = -20.0  # the direct sound is the first sample within this of the strongest


class Surroundings:
    """The noise and the rooms of one split; each becomes a bank when a transform first asks for it."""

    def __init__(self, noise: Sequence[Track], rooms: Sequence[Track], sample_rate_hz: int) -> None:
        self.noise_tracks, self.room_tracks, self.sample_rate_hz = noise, rooms, sample_rate_hz

    @cached_property
    def noise(self) -> "NoiseBank":
        """All noise."""
        return NoiseBank(self.noise_tracks, self.sample_rate_hz)

    @cached_property
    def rooms(self) -> "RoomBank":
        """All rooms."""
        return RoomBank(self.room_tracks, self.sample_rate_hz)


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
        waves = [track.samples(sample_rate_hz) for track in tracks]
        lengths = np.array([len(wave) for wave in waves], np.int64)
        _, kinds = np.unique(
            [name.partition("/")[0] if "/" in name else "" for name in self.names], return_inverse=True
        )
        weights = lengths / np.bincount(kinds, lengths)[kinds]
        self.register_buffer("samples", torch.from_numpy(np.concatenate(waves)), persistent=False)
        self.register_buffer("first", torch.from_numpy(np.cumsum(lengths) - lengths), persistent=False)
        self.register_buffer("length", torch.from_numpy(lengths), persistent=False)
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
        offsets = start[:, None] + torch.arange(num_samples, device=start.device)
        return self.samples[self.first[file_B, None] + offsets % length[:, None]].float() / INT16_SCALE


class RoomBank(nn.Module):
    """Impulse responses of one split: direct sound at sample 0, unit energy.

    The responses start with the direct sound, so that a room delays nothing and the true place of a
    segment stays the true place.
    """

    def __init__(self, tracks: Sequence[Track], sample_rate_hz: int, max_duration_s: float = 1.0) -> None:
        super().__init__()
        if not tracks:
            raise MelprintError("there is no room for this split; check the corpus or leave rooms out of the chain")
        self.names = [track.track_id for track in tracks]
        responses = [
            from_direct_sound(torch.from_numpy(np.array(track.samples(sample_rate_hz))).float()) for track in tracks
        ]
        taps = min(max(map(len, responses)), round(max_duration_s * sample_rate_hz))
        padded = torch.stack([nn.functional.pad(r[:taps], (0, taps - len(r[:taps]))) for r in responses])
        padded = padded / padded.norm(dim=1, keepdim=True)
        self.register_buffer("responses", padded, persistent=False)
        self.responses: Tensor
        self._spectra: dict[tuple[int, int], Tensor] = {}

    def choose(self, draw_B: Tensor) -> Tensor:
        """The room of each item ``(B,)`` for uniform draws."""
        return (draw_B * len(self.responses)).long()

    def spectra(self, num_samples: int, max_taps: int) -> Tensor:
        """Spectra of the responses cut to ``max_taps``, for waves of ``num_samples``; kept once made."""
        kept = self._spectra.get((num_samples, max_taps))
        if kept is None or kept.device != self.responses.device:
            kept = response_spectra(self.responses[:, :max_taps], num_samples)
            self._spectra[num_samples, max_taps] = kept
        return kept


def from_direct_sound(response_K: Tensor) -> Tensor:
    """A response without the silence before its direct sound.

    >>> from_direct_sound(torch.tensor([0.0, 0.01, 0.5, 1.0])).tolist()
    [0.5, 1.0]
    """
    level = response_K.abs()
    first = (level >= level.max() * 10 ** (ONSET_DB / 20)).nonzero()[0, 0]
    return response_K[first:]
