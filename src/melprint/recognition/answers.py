"""Answers as tables for people."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from melprint.recognition.identify import Answer


def answers_table(answers: Sequence[Sequence[Answer]]) -> Table:
    """One line a match; a recording whose best match is below the threshold is said not to be in the catalog."""
    rows = [_row(match, first=rank == 0) for matches in answers for rank, match in enumerate(matches)]
    names = ("recording", "track", "title", "artist", ">from", ">to", ">in the track", ">score", ">confidence")
    return plain_table(names, rows)


def _row(match: Answer, *, first: bool) -> tuple[str, ...]:
    query = match.query if first else ""
    score = f"{match.score:.3f}" if match.score is not None else ""
    sure = f"{match.confidence:.2%}" if match.confidence is not None else ""
    if match.track is None:
        return query, "not in the catalog", "", "", "", "", "", score, sure
    if not match.accepted:
        return query, f"not in the catalog (nearest: {match.track})", "", "", "", "", "", score, sure
    times = (match.query_start_s, match.query_end_s, match.reference_start_s)
    where = tuple(clock(time_s) if time_s is not None else "" for time_s in times)
    return query, match.track, match.title, match.artist, *where, score, sure


def plain_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines; ``>`` before a name puts its column to the right."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def clock(time_s: float) -> str:
    """Minutes and seconds.

    >>> clock(83.25), clock(-0.5), clock(59.999), clock(3700)
    ('1:23.25', '-0:00.50', '1:00.00', '61:40.00')
    """
    hundredths = round(abs(time_s) * 100)
    sign = "-" if time_s < 0 and hundredths else ""
    return f"{sign}{hundredths // 6000}:{hundredths % 6000 / 100:05.2f}"
