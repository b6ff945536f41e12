from melprint.audio.files import read_mono, to_int16


def read_beginning(path, sample_rate_hz, duration_s):
    return to_int16(read_mono(path, sample_rate_hz)[: round(duration_s * sample_rate_hz)])
