"""The log-mel front end.  Axes: B batch · T samples · F mel bands · N frames."""

import torch
import torchaudio.functional
from torch import Tensor, nn

from melprint.audio.levels import SILENCE_RMS, rms
from melprint.spec import MelSpec, SegmentSpec

CACHED_SEGMENTS = 16  # whose spectra fit the cache of a core


class LogMel(nn.Module):
    """Waveform ``(B, T)`` to log-mel ``(B, F, N)``, at most 0 and exactly 0 at each segment's maximum.

    Magnitude spectrum, Slaney mels, ``log10(mel + floor)``, minus the maximum **of the segment**:
    neural-audio-fp subtracts the maximum of the batch, which makes a fingerprint depend on its batch
    mates (its ``model/fp/melspec/melspectrogram.py``).  With ``range_db``: from -1 to 1 instead.
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
            padded_BT = nn.functional.pad(wave_BT, (self.mel.pad_samples, self.mel.pad_samples))
            blocks = padded_BT.split(CACHED_SEGMENTS) if wave_BT.device.type == "cpu" else [padded_BT]
            log_mel_BNF = torch.log10(torch.cat([self._mel(block) for block in blocks]) + self.mel.floor)
            log_mel_BNF = log_mel_BNF - log_mel_BNF.amax(dim=(1, 2), keepdim=True)
            if self.mel.range_db is not None:
                half_range = self.mel.range_db * self.mel.power / 40  # in log10 units
                log_mel_BNF = log_mel_BNF.clamp_min(-2 * half_range) / half_range + 1
            return log_mel_BNF.transpose(1, 2)

    def _mel(self, padded_BT: Tensor) -> Tensor:
        frames_BNT = padded_BT.unfold(-1, self.mel.n_fft, self.mel.hop_samples)
        spectrum_BNK = torch.fft.rfft(frames_BNT * self.window)[..., self.bins]
        if self.mel.power == 2 or not padded_BT.requires_grad:
            # Twice as fast as abs(), which guards against overflow, but without a slope at 0.
            square_BNK = torch.addcmul(spectrum_BNK.real.square(), spectrum_BNK.imag, spectrum_BNK.imag)
            magnitude_BNK = square_BNK if self.mel.power == 2 else square_BNK.sqrt_()
        else:
            magnitude_BNK = spectrum_BNK.abs()
        return magnitude_BNK @ self.filters_KF
