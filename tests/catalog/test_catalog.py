"""Catalogs: making, changing, merging and exporting them, and what is refused."""

import csv
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from melprint.catalog import catalog as catalogs
from melprint.catalog.care import export, merge, problems
from melprint.catalog.catalog import Catalog, NewTrack
from melprint.catalog.rows import DTYPE
from melprint.catalog.tables import State
from melprint.catalog.view import View
from melprint.errors import MelprintError
from melprint.fingerprints.store import open_store
from tests.catalog.made import DIM, NUM_ROWS, finds, found_keys, heard, names_in, new, rows_of, track_of
from tests.conftest import environment


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.create(tmp_path / "catalog") as made:
        yield made


def digests(catalog: Catalog) -> dict[str, str]:
    return {track.key: track.rows_sha256 for track in catalog.tracks().values()}


# Making and opening


def test_a_catalog_is_found_again_wherever_it_is_moved(tmp_path: Path) -> None:
    folder = tmp_path / "a?b=1#c %41 ü"  # signs that addresses of databases give a meaning to
    with Catalog.create(folder) as made:
        made.append([new(1)])
        assert names_in(folder) >= {"catalog.json", "model.safetensors", "tracks.sqlite", "fingerprints-0.mm"}
    folder.rename(tmp_path / "moved")
    with Catalog.open(tmp_path / "moved") as opened:
        assert finds(opened, [1]) == 1.0
        assert opened.model_name == "compact"


def test_folders_in_use_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match="is a catalog already"):
        Catalog.create(catalog.folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "song.wav").touch()
    with pytest.raises(MelprintError, match="is not empty"):
        Catalog.create(tmp_path / "full")
    assert names_in(tmp_path / "full") == {"song.wav"}
    (tmp_path / "file").touch()
    with pytest.raises(MelprintError, match="is not empty"):
        Catalog.create(tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "gigantic"}, "gigantic"),
        ({"index": "magic"}, "no kind of index 'magic'; take one of auto, exact"),
        ({"index": "milvus"}, "has no address of Milvus"),
        ({"sql": "nonsense"}, "is no address of a database"),
        ({"sql": "postgresql://nobody@127.0.0.1:9/x"}, "postgresql"),
        ({"milvus": {"uri": "http://127.0.0.1:9"}}, "no Milvus server answers"),
        ({"milvus": {"uri": "rows"}}, "ends with .db"),
        ({"milvus": {"uri": "rows.db", "kind": "IVF_PQ"}}, "has no IVF_PQ index, only FLAT"),
        ({"milvus": {"uri": "rows.db", "metric": "cosine"}}, "metric must be ip or l2"),
        ({"milvus": {"uri": "rows.db", "collection": "my music"}}, "named with letters, digits and _"),
    ],
)
def test_what_cannot_be_had_leaves_nothing(options: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match=words) as caught:
        Catalog.create(tmp_path / "catalog", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "catalog").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no catalog"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
        ('{"format": 1}', "is damaged"),
        ('{"format": "one"}', "is damaged"),
        ('{"format": 99, "version": "9.0"}', r"made by a later melprint \(9.0\)"),
    ],
)
def test_what_is_no_catalog_is_not_opened(content: str | None, words: str, catalog: Catalog) -> None:
    path = catalog.folder / "catalog.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(MelprintError, match=words):
        Catalog.open(catalog.folder)


def test_parts_of_other_catalogs_are_noticed(catalog: Catalog, tmp_path: Path) -> None:
    with Catalog.create(tmp_path / "base", "base") as other:
        assert (other.model_name, other.settings["dim"]) == ("base", 256)
    kept = (catalog.folder / "model.safetensors").read_bytes()
    (catalog.folder / "model.safetensors").write_bytes((tmp_path / "base" / "model.safetensors").read_bytes())
    with pytest.raises(MelprintError, match="is not the network that made this catalog"):
        Catalog.open(catalog.folder)
    (catalog.folder / "model.safetensors").write_bytes(kept)
    (catalog.folder / "tracks.sqlite").write_bytes((tmp_path / "base" / "tracks.sqlite").read_bytes())
    with pytest.raises(MelprintError, match="holds the tracks of another catalog"):
        Catalog.open(catalog.folder)
    (catalog.folder / "tracks.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(MelprintError, match=r"the database .* does not answer"):
        Catalog.open(catalog.folder)


def test_a_missing_or_short_file_of_fingerprints_is_named(catalog: Catalog) -> None:
    catalog.append([new(1)])
    path = catalog.folder / "fingerprints-0.mm"
    path.write_bytes(path.read_bytes()[:-1])
    with Catalog.open(catalog.folder) as again, pytest.raises(MelprintError, match=r"holds 19 of 20 fingerprints"):
        again.view()
    path.unlink()
    with Catalog.open(catalog.folder) as again, pytest.raises(MelprintError, match=r"fingerprints-0.mm is missing"):
        again.view()


# Adding, removing, naming


def test_the_same_content_is_added_once(catalog: Catalog) -> None:
    assert [track.key for track in catalog.append([new(1), new(2), new(1, "again")])] == ["track-1", "track-2"]
    assert catalog.append([new(2, "other name")]) == []
    assert [track.key for track in catalog.append([new(2), new(3)])] == ["track-3"]
    assert len(catalog) == 3


def test_keys_that_are_taken_get_a_number(catalog: Catalog) -> None:
    catalog.append([new(1, "a"), new(2, "a"), new(3, "a (2)")])
    catalog.append([new(4, "a"), new(5, "A"), new(6, "á"), new(7, "a ")])
    assert sorted(digests(catalog)) == sorted(["a", "a (2)", "a (2) (2)", "a (3)", "A", "á", "a (4)"])
    long = "x" * 300
    first, second = catalog.append([new(8, long), new(9, long + "y")])
    assert (first.key, second.key) == (long[:247], long[:247] + " (2)")


def test_fingerprints_of_another_size_are_refused(catalog: Catalog) -> None:
    for shape in ((0, DIM), (4, 64), (DIM,)):
        with pytest.raises(MelprintError, match="fingerprint it with the catalog's network"):
            catalog.append([new(1), NewTrack(track_of(2), np.zeros(shape, np.float32))])
    assert len(catalog) == 0


def test_tracks_are_found_by_key_or_number(catalog: Catalog) -> None:
    one, two = catalog.append([new(1), new(2, "1")])
    assert [track.id for track in catalog.find(["track-1", "1", str(two.id)])] == [one.id, two.id, two.id]
    for name in ("track-9", "99", "9" * 30, "2147483648", "-1", "", "²", "\udcff", "a\0b"):
        with pytest.raises(MelprintError, match="has no track"):
            catalog.find([name])
    with pytest.raises(MelprintError, match="has no track 'nobody'"):
        catalog.remove(["track-1", "nobody"])
    assert len(catalog) == 2


def test_numbers_are_never_given_twice(catalog: Catalog) -> None:
    (one,) = catalog.append([new(1)])
    catalog.remove([one.key])
    catalog.compact()
    (two,) = catalog.append([new(2)])
    assert two.id > one.id


def test_all_tracks_can_be_removed(catalog: Catalog) -> None:
    catalog.append([new(1), new(2)])
    catalog.remove(["track-1", "track-2"])
    assert (catalog.search(heard(1), 2).rows == -1).all()
    assert catalog.compact() == 2 * NUM_ROWS
    assert (catalog.search(heard(1), 2).rows == -1).all()
    assert problems(catalog) == []
    catalog.append([new(1)])
    assert finds(catalog, [1]) == 1.0


def test_what_is_known_of_a_track_is_edited(catalog: Catalog) -> None:
    catalog.append([new(1), new(2)])
    track = catalog.update("track-1", title="Ноктюрн 夜曲 🎹", artist="", key="nocturne")
    assert (track.title, track.artist, track.key) == ("Ноктюрн 夜曲 🎹", "", "nocturne")
    assert all(keys == ["nocturne"] for keys in found_keys(catalog, heard(1)))
    for values, words in (
        ({"key": "track-2"}, "another track has the key 'track-2'"),
        ({"key": ""}, "must not be empty"),
        ({"key": " "}, "must not be empty"),
        ({"title": "x" * 256}, "256 characters long, 255 are possible"),
        ({"title": "a\0b"}, "no text"),
        ({"title": "\udcff"}, "no text"),
        ({"sha256": "x"}, "sha256 cannot be edited"),
    ):
        with pytest.raises(MelprintError, match=words):
            catalog.update("nocturne", **values)
    assert catalog.tracks([track.id])[track.id].title == "Ноктюрн 夜曲 🎹"


# Caring


def test_flipped_bytes_and_overlaps_are_found(catalog: Catalog) -> None:
    catalog.append([new(seed) for seed in range(4)])
    assert problems(catalog) == []
    path = catalog.folder / "fingerprints-0.mm"
    content = bytearray(path.read_bytes())
    content[2 * NUM_ROWS * DIM * DTYPE.itemsize + 777] ^= 1
    path.write_bytes(content)
    assert problems(Catalog.open(catalog.folder)) == [
        "the fingerprints of track-2 are damaged; remove it and add it again"
    ]
    content[2 * NUM_ROWS * DIM * DTYPE.itemsize + 777] ^= 1
    path.write_bytes(content)
    with catalog.tables.writing() as session:
        session.get_one(catalogs.Track, 4).first_row -= 1
        session.get_one(State, 1).version += 1
    found = problems(Catalog.open(catalog.folder))
    assert found[0] == "the fingerprints of track-2 and track-3 overlap; remove both and add them again"


def test_a_merge_takes_what_is_new(catalog: Catalog, tmp_path: Path) -> None:
    catalog.append([new(1), new(2, "a")])
    with Catalog.create(tmp_path / "other") as other:
        other.append([new(number, "a") for number in (3, 2)] + [new(seed) for seed in range(10, 150)])
        other.remove(["track-20"])
        assert merge(catalog, other) == 140
        assert merge(catalog, other) == 0
    assert len(catalog) == 142
    assert {"a", "a (2)", "track-1", "track-149"} <= set(digests(catalog))
    assert finds(catalog, [1, 19, 149]) == 1.0
    assert problems(catalog) == []
    assert (np.diff(catalog.view().track_ids) > 0).all()


def test_merges_that_make_no_sense_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match="is the same catalog as"):
        merge(catalog, Catalog.open(catalog.folder))
    with (
        Catalog.create(tmp_path / "base", "base") as other,
        pytest.raises(MelprintError, match=r"was made by another network \(base\)"),
    ):
        merge(catalog, other)
    with Catalog.create(tmp_path / "damaged") as other:
        other.append([new(1)])
        path = other.folder / "fingerprints-0.mm"
        path.write_bytes(b"\1" + path.read_bytes()[1:])
        with Catalog.open(other.folder) as again, pytest.raises(MelprintError, match=r"track-1 in .* are damaged"):
            merge(catalog, again)
    assert len(catalog) == 0


def test_what_is_exported_is_what_is_there(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match="holds no track"):
        export(catalog, tmp_path / "store")
    catalog.append([new(1), new(2), new(3, "三", 7)])
    catalog.update("track-1", title='A, "B"')
    catalog.remove(["track-2"])
    export(catalog, tmp_path / "tracks.csv")
    export(catalog, tmp_path / "tracks.jsonl")
    with (tmp_path / "tracks.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["key"], line["title"]) for line in lines] == [("track-1", 'A, "B"'), ("三", "")]
    read = [json.loads(line) for line in (tmp_path / "tracks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert read == [track.as_json() for track in catalog.tracks().values()]

    export(catalog, tmp_path / "store")
    store = open_store(tmp_path / "store", "catalog")
    store.check()
    assert [(track.track_id, track.first_row, track.num_rows) for track in store.tracks] == [
        ("track-1", 0, NUM_ROWS),
        ("三", NUM_ROWS, 7),
    ]
    np.testing.assert_array_equal(store.rows, np.concatenate([rows_of(1), rows_of(3, 7)]).astype(np.float16))
    assert len(catalog.view().rows) == 2 * NUM_ROWS + 7  # reading has changed nothing
    for out, words in ((tmp_path / "store", "is not empty"), (tmp_path / "x.txt", "must end in .csv or .jsonl")):
        with pytest.raises(MelprintError, match=words):
            export(catalog, out)


# Views


def test_stretches_agree_with_an_obvious_twin(rng: np.random.Generator) -> None:
    for _ in range(50):
        lengths = rng.integers(1, 5, 12)
        ends = np.cumsum(lengths)
        kept = rng.random(12) < 0.5
        spans = [
            (number + 1, int(end - length), int(length))
            for number, (end, length) in enumerate(zip(ends, lengths, strict=True))
            if kept[number]
        ]
        owner = [-1] * int(ends[-1])
        for position, (_, first, count) in enumerate(spans):
            owner[first : first + count] = [position] * count
        state = State(version=0, generation=0, index="exact")
        view = View.of(state, np.zeros((len(owner), 2), np.float16), spans)
        every = np.arange(-1, len(owner) + 2)
        assert view.tracks_at(every).tolist() == [-1, *owner, -1, -1]
        assert view.track_of_stretch[view.borders.track_of(every[1:-2])].tolist() == owner
        assert view.borders.first[[0, -1]].tolist() == [0, len(owner)]
        assert (np.diff(view.borders.first) > 0).all()
        # No stretch holds rows of two owners.
        for start, end in zip(view.borders.first[:-1], view.borders.first[1:], strict=True):
            assert len(set(owner[start:end])) == 1
        assert len(view) == sum(position >= 0 for position in owner)
        assert sum(map(len, view.stretches(2))) == len(view)
        numbers = np.array([0, *(number for number, _, _ in spans), 99])
        assert view.positions_of(numbers).tolist() == [-1, *range(len(spans)), -1]


# Several at once


def test_another_process_sees_changes_at_once(catalog: Catalog) -> None:
    script = (
        "import sys; from melprint.catalog import Catalog\n"
        "catalog = Catalog.open(sys.argv[1])\n"
        "for line in sys.stdin: print(sorted(t.key for t in catalog.tracks().values()), len(catalog), flush=True)\n"
    )
    here = Catalog.open(catalog.folder)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(catalog.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def seen() -> tuple[str, int]:
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip(), len(here)

        for change, keys in (
            (lambda: catalog.append([new(1), new(2)]), ["track-1", "track-2"]),
            (lambda: catalog.remove(["track-1"]), ["track-2"]),
            (catalog.compact, ["track-2"]),
            (lambda: here.append([new(3)]), ["track-2", "track-3"]),
        ):
            change()
            assert seen() == (f"{keys} {len(keys)}", len(keys))
            assert len(catalog) == len(keys)
    assert finds(here, [2, 3]) == 1.0


def test_readers_go_on_while_others_write(catalog: Catalog) -> None:
    catalog.append([new(seed) for seed in range(10)])
    failed: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            with Catalog.open(catalog.folder) as reader:
                while not done.is_set():
                    assert finds(reader, [0, 1]) == 1.0
                    view = reader.view()
                    view.rows.take(np.arange(len(view.rows)))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for seed in range(20, 32):
        catalog.append([new(seed)])
        catalog.remove([f"track-{seed - 15}" if seed < 25 else f"track-{seed - 5}"])
        catalog.compact()
    done.set()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert names_in(catalog.folder) & {f"fingerprints-{number}.mm" for number in range(12)} == set()


def test_a_second_writer_waits_or_gives_up(catalog: Catalog) -> None:
    other = Catalog.open(catalog.folder)
    other.wait_s = 0.05
    with catalog.writing():
        catalog.append([new(1)])  # what one does within its own turn needs no second one
        with pytest.raises(MelprintError, match=r"another process has been writing to .* for 0.05 s"):
            other.append([new(2)])
    other.wait_s = 10
    thread = threading.Thread(target=lambda: other.append([new(2)]))
    with catalog.writing():
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()
    assert sorted(digests(catalog)) == ["track-1", "track-2"]


def test_errors_within_a_turn_are_not_taken_for_those_of_taking_it(catalog: Catalog) -> None:
    with pytest.raises(PermissionError, match="mine"), catalog.writing():
        raise PermissionError("mine")
    with Catalog.open(catalog.folder) as other:
        other.wait_s = 0.05
        other.append([new(1)])  # the turn was given back


def test_a_full_disk_changes_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.append([new(1), new(2)])
    catalog.remove(["track-1"])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("melprint.catalog.rows.os.fsync", full)
        for change in (lambda: catalog.append([new(3)]), catalog.compact):
            with pytest.raises(MelprintError, match=r"cannot be written \(No space left on device\).* make room"):
                change()
    assert problems(catalog) == []
    assert names_in(catalog.folder) & {"fingerprints-0.mm", "fingerprints-1.mm"} == {"fingerprints-0.mm"}
    catalog.append([new(3)])
    assert finds(catalog, [2, 3]) == 1.0
