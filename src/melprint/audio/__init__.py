"""Pure functions on waveforms: reading, resampling, framing, mixing, convolving, log-mel."""
