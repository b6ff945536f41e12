"""The log-mel front end.  Axes: B batch · T samples · F mel bands · N frames."""

import torch
import torchaudio.functional
from torch import Tensor, nn

from melprint.audio.levels import SILENCE_RMS, rms
from melprint.spec import MelSpec, SegmentSpec


class LogMel(nn.Module):
    """Waveform ``(B, T)`` to log-mel ``(B, F, N)``, at most 0 and exactly 0 at each segment's maximum.

    Magnitude spectrum, Slaney mels, ``log10(mel + floor)``, minus the maximum **of the segment**:
    neural-audio-fp subtracts the maximum of the batch, which makes a fingerprint depend on its batch
    mates (its ``model/fp/melspec/melspectrogram.py``).
    """

    def __init__(self, mel: MelSpec, segment: SegmentSpec) -> None:
        super().__init__()
        self.mel = mel
        self.shape = (mel.num_mels, mel.num_frames(segment.num_samples))
        filters_KF = torchaudio.functional.melscale_fbanks(
            n_freqs=mel.n_fft // 2 + 1,
            f_min=mel.f_min_hz,
            f_max=mel.f_max_hz,
            n_mels=mel.num_mels,
            sample_rate=segment.sample_rate_hz,
            norm="slaney",
            mel_scale="slaney",
        )
        # Bins outside every band cost a fifth of the product and add nothing.
        used = filters_KF.any(dim=1).nonzero()
        self.bins = slice(int(used.min()), int(used.max()) + 1)
        self.register_buffer("filters_KF", filters_KF[self.bins].contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(mel.n_fft, periodic=True), persistent=False)
        self.filters_KF: Tensor
        self.window: Tensor

    def forward(self, wave_BT: Tensor) -> Tensor:
        """Log-mel spectrograms ``(B, F, N)``, float32 under any autocast."""
        with torch.autocast(wave_BT.device.type, enabled=False):
            wave_BT = wave_BT.float()
            if self.mel.unit_level:
                wave_BT = wave_BT / rms(wave_BT).clamp_min(SILENCE_RMS)
            padded = nn.functional.pad(wave_BT, (self.mel.pad_samples, self.mel.pad_samples))
            frames_BNT = padded.unfold(-1, self.mel.n_fft, self.mel.hop_samples)
            magnitude_BNK = torch.fft.rfft(frames_BNT * self.window)[..., self.bins].abs()
            log_mel_BNF = torch.log10(magnitude_BNK @ self.filters_KF + self.mel.floor)
            return (log_mel_BNF - log_mel_BNF.amax(dim=(1, 2), keepdim=True)).transpose(1, 2)
