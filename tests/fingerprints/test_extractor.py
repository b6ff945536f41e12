import errno
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melprint.audio.files import map_pcm, write_wav
from melprint.audio.framing import segments_of
from melprint.errors import MelprintError
from melprint.fingerprints import writer as writer_module
from melprint.fingerprints.extractor import Shard, extract, sources_of_folder
from melprint.fingerprints.rows import Rows
from melprint.fingerprints.store import check_model, open_foreign, open_store
from melprint.fingerprints.writer import merge_shards
from melprint.models import Fingerprinter, model_digest

RATE = 8_000
LENGTHS_S = [3.0, 0.4, 12.3, 5.0, 1.0, 7.77, 2.2]


@pytest.fixture
def folder(tmp_path: Path, music) -> Path:
    for number, length in enumerate(LENGTHS_S):
        write_wav(tmp_path / "music" / f"{number}.wav", (music(number, length) * 20_000).astype(np.int16), RATE)
    return tmp_path / "music"


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir() if path.suffix in {".mm", ".csv", ".npy"}}


def test_rows_are_the_fingerprints_of_the_segments_one_by_one(
    folder: Path, model: Fingerprinter, tmp_path: Path
) -> None:
    extract(model, sources_of_folder(folder, RATE), tmp_path / "store", "db", batch_size=8)
    store = open_store(tmp_path / "store", "db")
    assert [track.num_rows for track in store.tracks] == [5, 1, 23, 9, 1, 14, 3]
    assert [track.duration_s for track in store.tracks] == pytest.approx(LENGTHS_S)
    assert store.first_rows.tolist() == [0, 5, 6, 29, 38, 39, 53, 56]
    for track in store.tracks:
        segments = segments_of(map_pcm(Path(track.path), RATE), model.segment)
        for place, segment in enumerate(segments):
            with torch.no_grad():
                want = model(torch.from_numpy(segment.astype(np.float32) / 32_768)[None])[0].numpy()
            np.testing.assert_allclose(store.rows[track.first_row + place], want, atol=1e-5)


def test_the_files_are_those_that_peers_read(folder: Path, model: Fingerprinter, tmp_path: Path) -> None:
    extract(model, sources_of_folder(folder, RATE), tmp_path, "db")
    shape = tuple(np.load(tmp_path / "db_shape.npy"))
    raw = np.memmap(tmp_path / "db.mm", dtype="float32", mode="r", shape=shape)
    assert shape == (56, 16)
    np.testing.assert_allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-5)
    assert (tmp_path / "db.mm").stat().st_size == 56 * 16 * 4
    meta = json.loads((tmp_path / "db_meta.json").read_text())
    assert meta["model"] == model_digest(model)
    assert meta["segment"] == {"sample_rate_hz": 8_000, "duration_s": 1.0, "hop_s": 0.5}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    folder: Path, model: Fingerprinter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, stop_after: int
) -> None:
    sources = sources_of_folder(folder, RATE)
    extract(model, sources, tmp_path / "whole", "db", dtype=dtype, batch_size=8)
    calls = 0
    original = writer_module.StoreWriter.put

    def stopping(self: writer_module.StoreWriter, rows: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise KeyboardInterrupt
        original(self, rows)

    monkeypatch.setattr(writer_module.StoreWriter, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        extract(model, sources, tmp_path / "twice", "db", dtype=dtype, batch_size=8)
    with pytest.raises(MelprintError, match="is not there"):
        open_store(tmp_path / "twice", "db")
    # What a kill leaves: half a row behind the last one that counts, half a line in the journal.
    with (tmp_path / "twice" / ".db.partial" / "rows").open("ab") as rows:
        rows.write(b"half a row")
    with (tmp_path / "twice" / ".db.partial" / "journal.jsonl").open("a") as journal:
        journal.write('{"track_id": "')
    monkeypatch.setattr(writer_module.StoreWriter, "put", original)
    extract(model, sources, tmp_path / "twice", "db", dtype=dtype, batch_size=8)
    assert files_of(tmp_path / "twice") == files_of(tmp_path / "whole")
    assert not (tmp_path / "twice" / ".db.partial").exists()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_shards_merge_to_the_same_bytes(folder: Path, model: Fingerprinter, tmp_path: Path, count: int) -> None:
    sources = sources_of_folder(folder, RATE)
    extract(model, sources, tmp_path / "whole", "db", batch_size=8)
    for number in range(count, 0, -1):
        extract(model, sources, tmp_path / "parts", "db", batch_size=8, shard=Shard(number, count))
    merged = merge_shards(tmp_path / "parts", "db", count)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert merged.meta == open_store(tmp_path / "whole", "db").meta
    assert extract(model, sources, tmp_path / "parts", "db", batch_size=8).was_there


def test_a_missing_shard_is_named(folder: Path, model: Fingerprinter, tmp_path: Path) -> None:
    extract(model, sources_of_folder(folder, RATE), tmp_path / "parts", "db", shard=Shard(1, 2))
    with pytest.raises(MelprintError, match="db-2of2 is not there"):
        merge_shards(tmp_path / "parts", "db", 2)
    for text in ("0/2", "3/2", "half"):
        with pytest.raises(MelprintError, match="shard"):
            Shard.parse(text)


def test_shards_of_different_collections_are_not_merged(folder: Path, model: Fingerprinter, tmp_path: Path) -> None:
    extract(model, sources_of_folder(folder, RATE), tmp_path / "parts", "db", shard=Shard(1, 2))
    write_wav(folder / "late.wav", np.ones(9_000, np.int16), RATE)
    extract(model, sources_of_folder(folder, RATE), tmp_path / "parts", "db", shard=Shard(2, 2))
    with pytest.raises(MelprintError, match="different recordings"):
        merge_shards(tmp_path / "parts", "db", 2)
    with pytest.raises(MelprintError, match="9 shards are more than the 8 recordings"):
        extract(model, sources_of_folder(folder, RATE), tmp_path / "parts", "db", shard=Shard(1, 9))


def test_the_same_again_is_not_done_again(folder: Path, model: Fingerprinter, tmp_path: Path) -> None:
    sources = sources_of_folder(folder, RATE)
    assert not extract(model, sources, tmp_path / "store", "db").was_there
    assert extract(model, sources, tmp_path / "store", "db").was_there
    assert not extract(model, sources, tmp_path / "store", "db", dtype="float16").was_there
    write_wav(folder / "0.wav", np.ones(9_000, np.int16), RATE)
    assert not extract(model, sources, tmp_path / "store", "db", dtype="float16").was_there


def test_other_formats_give_the_same_store_and_what_cannot_be_read_is_listed(
    folder: Path, model: Fingerprinter, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        soundfile.write(other / f"{path.stem}.flac", map_pcm(path, RATE), RATE)
    (other / "5b.mp3").write_text("no audio")
    (other / "9.ogg").write_text("no audio")
    sources = sources_of_folder(other, RATE)
    with pytest.raises(MelprintError, match=r"5b\.mp3: unreadable"):
        extract(model, sources, tmp_path / "strict", "custom_source")
    done = extract(model, sources, tmp_path / "store", "custom_source", skip_unreadable=True)
    assert (done.num_tracks, done.num_rejected) == (7, 2)
    assert "5b.mp3" in (tmp_path / "store" / "custom_source_rejected.csv").read_text()
    extract(model, sources_of_folder(folder, RATE), tmp_path / "plain", "db")
    np.testing.assert_allclose(
        open_store(tmp_path / "store", "custom_source").rows, open_store(tmp_path / "plain", "db").rows, atol=1e-6
    )


def test_a_full_disk_ends_in_a_sentence_and_leaves_no_store(
    folder: Path, model: Fingerprinter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: writer_module.StoreWriter, rows: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer_module.StoreWriter, "put", full)
    with pytest.raises(MelprintError, match="No space left on device"):
        extract(model, sources_of_folder(folder, RATE), tmp_path / "store", "db")
    with pytest.raises(MelprintError, match="is not there"):
        open_store(tmp_path / "store", "db")


def test_damaged_and_foreign_stores(folder: Path, model: Fingerprinter, tmp_path: Path) -> None:
    extract(model, sources_of_folder(folder, RATE), tmp_path, "db")
    store = open_store(tmp_path, "db")
    with pytest.raises(MelprintError, match="made by another model"):
        check_model(store, "0" * 64, "other.ckpt")
    with pytest.raises(ValueError, match="read-only"):
        store.rows[0, 0] = 1
    (tmp_path / "db_meta.json").unlink()
    with pytest.raises(MelprintError, match="was not finished"):
        open_store(tmp_path, "db")
    assert open_foreign(tmp_path, "db").rows.shape == (56, 16)
    (tmp_path / "db.mm").write_bytes(b"short")
    with pytest.raises(MelprintError, match=r"has 5 bytes where \[56, 16\] float32 make 3584"):
        open_foreign(tmp_path, "db")


def test_rows_of_several_stores_are_one_space(rng: np.random.Generator) -> None:
    parts = [rng.standard_normal((n, 3), dtype=np.float32) for n in (4, 1, 6)]
    joined, rows = np.concatenate(parts), Rows(parts)
    wanted = rng.integers(11, size=(5, 4))
    np.testing.assert_array_equal(rows.take(wanted), joined[wanted])
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks(4))), joined)
    with pytest.raises(MelprintError, match="different fingerprint sizes"):
        Rows([parts[0], np.zeros((2, 4), np.float32)])
