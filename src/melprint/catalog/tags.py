"""Title, artist and album of a recording, from its tags."""

from pathlib import Path

NAMES = ("title", "artist", "album")


def tags_of(path: Path) -> dict[str, str]:
    """The tags of a file in any format; a file without tags, or that cannot be opened, has none."""
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            found = {key.lower(): value for key, value in container.metadata.items()}
            for stream in container.streams.audio[:1]:  # Ogg has them there
                found |= {key.lower(): value for key, value in stream.metadata.items()}
    except (av.FFmpegError, OSError, ValueError):
        return {}  # whether the recording can be read is for the decoder to say
    return {name: " ".join(found[name].split()) for name in NAMES if found.get(name)}
