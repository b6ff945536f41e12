"""What a catalog knows of its tracks, in SQL: SQLite beside the fingerprints, or MySQL, MariaDB or PostgreSQL by URL.

The database decides what a catalog holds: rows of the fingerprint file that no track names are as good as absent.
Each change is one transaction, so a process that dies leaves the state before it or the state after it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Engine, Float, Integer, String, create_engine, delete, event, func, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from melprint.errors import MelprintError

DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgresql": "postgresql+psycopg"}
EXTRAS = {"pymysql": "mysql", "psycopg": "postgresql"}
# SQLite waits for the transaction of another process, the others for a server that does not answer any more.
TIMEOUTS: dict[str, dict[str, int]] = {
    "sqlite": {"timeout": 60},
    "mysql+pymysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
    "mariadb+pymysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
    "postgresql+psycopg": {"connect_timeout": 10, "tcp_user_timeout": 60_000},
}
TEXT = 255
PATH = 4096
AT_ONCE = 500  # values in one condition; databases refuse more than some thousand
MOST_TRACKS = 2**31 - 1  # what the databases count to


class Base(DeclarativeBase):
    """All tables."""


class State(Base):
    """One line: what readers and writers agree on.

    Attributes:
        uid: of the catalog, against a database that belongs to another one.
        version: grows with every change.
        generation: of the file of fingerprints; compaction writes the next one.
        num_rows: of this file that count; behind them is what an interrupted writer left.
        index: kind of index.
    """

    __tablename__ = "melprint_state"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    uid: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(BigInteger)
    generation: Mapped[int] = mapped_column(Integer)
    num_rows: Mapped[int] = mapped_column(BigInteger)
    index: Mapped[str] = mapped_column("index_kind", String(64))


class Track(Base):
    """One recording of a catalog.

    Attributes:
        id: number that is never given twice.
        key: the owner's own name for it; unique.
        title, artist, album: from the tags of the file, or as edited; may be empty.
        duration_s: of the recording.
        path: of the file when it was added.
        sha256: of the file's bytes; the same file is not added twice.
        first_row, num_rows: its fingerprints.
        rows_sha256: of these, to see damage.
        added: time in UTC, ISO 8601.
    """

    __tablename__ = "melprint_tracks"
    # SQLite would give the number of a removed last track again; whoever holds an answer must not be deceived.
    # By themselves, MySQL and MariaDB hold A, a and á for the same key; SQLAlchemy asks for options of either.
    __table_args__ = {  # noqa: RUF012
        "sqlite_autoincrement": True,
        **{f"{name}_charset": "utf8mb4" for name in ("mysql", "mariadb")},
        **{f"{name}_collate": "utf8mb4_bin" for name in ("mysql", "mariadb")},
    }
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column("track_key", String(TEXT), unique=True)
    title: Mapped[str] = mapped_column(String(TEXT), default="")
    artist: Mapped[str] = mapped_column(String(TEXT), default="")
    album: Mapped[str] = mapped_column(String(TEXT), default="")
    duration_s: Mapped[float] = mapped_column(Float(53))
    path: Mapped[str] = mapped_column(String(PATH), default="")
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    first_row: Mapped[int] = mapped_column(BigInteger)
    num_rows: Mapped[int] = mapped_column(Integer)
    rows_sha256: Mapped[str] = mapped_column(String(64))
    added: Mapped[str] = mapped_column(String(32))

    def as_json(self) -> dict[str, Any]:
        """Plain values, without where the fingerprints are."""
        names = ("id", "key", "title", "artist", "album", "duration_s", "path", "sha256", "added")
        return {name: getattr(self, name) for name in names}

    def copied(self, **changes: Any) -> "Track":
        """A new line with the same values but for its number."""
        names = [column.key for column in Track.__mapper__.column_attrs if column.key != "id"]
        return Track(**{name: changes.get(name, getattr(self, name)) for name in names})


EDITABLE = ("key", "title", "artist", "album")


def now() -> str:
    """The time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Tables:
    """The database of one catalog.

    Args:
        url: as SQLAlchemy takes them; ``mysql://`` and ``postgresql://`` get the drivers of the extras.
    """

    def __init__(self, url: str | URL) -> None:
        self.url = url
        self.engine = _engine(url)

    @classmethod
    def in_folder(cls, folder: Path) -> "Tables":
        """A SQLite file."""
        return cls(URL.create("sqlite", database=str(folder / "tracks.sqlite")))  # ? and # have no meaning in there

    def create(self, uid: str, index: str) -> None:
        """Make the tables of a new catalog.

        Raises:
            MelprintError: the database already belongs to a catalog.
        """
        with self._explained("cannot be prepared"):
            Base.metadata.create_all(self.engine)
        with self.writing() as session:
            if (state := session.get(State, 1)) is not None:
                if state.uid == uid:
                    return
                raise MelprintError(f"{self.shown} already holds the tracks of another catalog; give each its own")
            session.add(State(id=1, uid=uid, version=0, generation=0, num_rows=0, index=index))

    @property
    def shown(self) -> str:
        """The address without its password."""
        return make_url(self.url).render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that changes nothing."""
        with self._explained("does not answer"), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is committed at the end, or nothing of it is."""
        with (
            self._explained("does not take the change"),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def state(self) -> State:
        """The line that all agree on.

        Raises:
            MelprintError: there is none.
        """
        with self.reading() as session:
            state = session.get(State, 1)
        if state is None:
            raise MelprintError(f"{self.shown} holds no catalog")
        return state

    def spans(self) -> tuple[State, list[tuple[int, int, int]]]:
        """The state, and number, first row and rows of each track by first row, as of one moment."""
        with self.reading() as session:
            # One statement: two could see the database before and after a change.
            columns = (Track.id, Track.first_row, Track.num_rows)
            found = session.execute(
                select(State, *columns).outerjoin(Track, Track.id > 0).order_by(Track.first_row, Track.id)
            )
            lines = found.all()
        if not lines:
            raise MelprintError(f"{self.shown} holds no catalog")
        return lines[0][0], [(line[1], line[2], line[3]) for line in lines if line[1] is not None]

    def tracks(self, ids: Iterable[int] | None = None) -> dict[int, Track]:
        """All tracks, or those with these numbers, by number."""
        with self.reading() as session:
            if ids is None:
                return {track.id: track for track in session.scalars(select(Track).order_by(Track.id))}
            wanted = sorted({int(number) for number in ids})
            found: dict[int, Track] = {}
            for start in range(0, len(wanted), AT_ONCE):
                some = select(Track).where(Track.id.in_(wanted[start : start + AT_ONCE]))
                found.update((track.id, track) for track in session.scalars(some))
            return found

    def with_values(self, column: str, values: Sequence[str]) -> dict[str, Track]:
        """Tracks whose ``column`` has one of these values, by value."""
        attribute = getattr(Track, column)
        found: dict[str, Track] = {}
        values = [value for value in values if is_text(value)]
        with self.reading() as session:
            for start in range(0, len(values), AT_ONCE):
                some = select(Track).where(attribute.in_(values[start : start + AT_ONCE]))
                found.update((getattr(track, column), track) for track in session.scalars(some))
        return found

    def count(self) -> tuple[int, float, int]:
        """Tracks, their seconds and their rows."""
        with self.reading() as session:
            line = session.execute(
                select(func.count(Track.id), func.sum(Track.duration_s), func.sum(Track.num_rows))
            ).one()
        return int(line[0]), float(line[1] or 0), int(line[2] or 0)

    def append(self, tracks: Sequence[Track], num_rows: int, replaced: Sequence[int] = ()) -> None:
        """Add tracks whose rows have been written, and count these rows; others go in the same moment.

        Raises:
            MelprintError: a key or a file is there already.
        """
        try:
            with self.writing() as session:
                _delete(session, replaced)
                session.add_all(tracks)
                session.execute(update(State).values(version=State.version + 1, num_rows=num_rows))
        except IntegrityError as error:
            raise MelprintError(f"{self.shown}: a track is there already ({_words(error)})") from error

    def remove(self, ids: Sequence[int]) -> None:
        """Forget tracks."""
        with self.writing() as session:
            _delete(session, ids)
            session.execute(update(State).values(version=State.version + 1))

    def edit(self, number: int, values: Mapping[str, str]) -> None:
        """Change what is known of a track.

        Raises:
            MelprintError: another track has that key.
        """
        try:
            with self.writing() as session:
                session.execute(update(Track).where(Track.id == number).values(dict(values)))
                session.execute(update(State).values(version=State.version + 1))
        except IntegrityError as error:
            raise MelprintError(f"another track has the key {values.get('key')!r}; keys are unique") from error

    def renumber(self, first_rows: Mapping[int, int], generation: int, num_rows: int) -> None:
        """Go over to the next file of fingerprints."""
        with self.writing() as session:
            session.execute(update(Track), [{"id": number, "first_row": row} for number, row in first_rows.items()])
            session.execute(update(State).values(version=State.version + 1, generation=generation, num_rows=num_rows))

    def set_index(self, kind: str) -> None:
        """Note another kind of index."""
        with self.writing() as session:
            session.execute(update(State).values(version=State.version + 1, index=kind))

    def close(self) -> None:
        """Give connections back."""
        self.engine.dispose()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise MelprintError(f"the database {self.shown} {what}: {_words(error)}") from error


def _words(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def is_text(value: str) -> bool:
    """Whether every database can hold it: undecoded bytes of file names, and zeros in PostgreSQL, are refused."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _delete(session: Session, ids: Sequence[int]) -> None:
    for start in range(0, len(ids), AT_ONCE):
        session.execute(delete(Track).where(Track.id.in_(ids[start : start + AT_ONCE])))


def _engine(url: str | URL) -> Engine:
    try:
        parsed = make_url(url)
        if (driver := DRIVERS.get(parsed.drivername)) is not None:
            parsed = parsed.set(drivername=driver)
        if parsed.drivername.endswith("+pymysql"):
            parsed = parsed.update_query_dict({"charset": "utf8mb4"})
        # A connection that the server has dropped overnight is opened again.
        limits = TIMEOUTS.get(parsed.drivername, {})
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=limits)
    except (ArgumentError, NoSuchModuleError) as error:
        shown = re.sub(r"//[^@/]*@", "//…@", str(url))  # without a password
        raise MelprintError(
            f"{shown!r} is no address of a database, such as mysql://USER:PASSWORD@HOST/NAME"
        ) from error
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "mysql")
        raise MelprintError(f'this database needs {error.name}: pip install "melprint[{extra}]"') from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sync_fully)
    return engine


def _sync_fully(connection: Any, _: object) -> None:
    # What was committed must survive a loss of power.
    connection.execute("PRAGMA synchronous=FULL")
