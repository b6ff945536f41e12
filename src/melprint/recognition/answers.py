"""Matches as a table for people."""

from collections.abc import Sequence

from rich.table import Table

from melprint.recognition.identify import Match


def answers_table(answers: Sequence[Sequence[Match]]) -> Table:
    """One line a match; a recording whose best match is below the threshold is said not to be in the library."""
    table = Table(box=None, pad_edge=False)
    table.add_column("recording", overflow="fold")
    table.add_column("track", overflow="fold")
    for name in ("starts at", "score", "threshold"):
        table.add_column(name, justify="right")
    for matches in answers:
        for rank, match in enumerate(matches):
            query = match.query if rank == 0 else ""
            if match.track is None or match.start_s is None or match.score is None:
                table.add_row(query, "not in the library", "", "", f"{match.threshold:.3f}")
            elif match.accepted:
                table.add_row(query, match.track, clock(match.start_s), f"{match.score:.3f}", f"{match.threshold:.3f}")
            else:
                said = f"not in the library (nearest: {match.track})"
                table.add_row(query, said, "", f"{match.score:.3f}", f"{match.threshold:.3f}", style="dim")
    return table


def clock(time_s: float) -> str:
    """Minutes and seconds.

    >>> clock(83.25), clock(-0.5)
    ('1:23.25', '-0:00.50')
    """
    sign, time_s = ("-", -time_s) if time_s < 0 else ("", time_s)
    return f"{sign}{int(time_s // 60)}:{time_s % 60:05.2f}"
