from pathlib import Path

import numpy as np
import pytest
import torch

from melprint.audio.files import write_wav
from melprint.augment.chain import SegmentBatch, WindowSpec
from melprint.augment.device import DeviceChain
from melprint.data.dataset import SegmentTable, WindowDataset
from melprint.data.manifest import Track
from melprint.data.samplers import DisjointSampler, OnePerTrackSampler, Share, by_track
from melprint.errors import MelprintError
from melprint.spec import SegmentSpec

RATE = 8_000
SEGMENT = SegmentSpec()
WINDOW = WindowSpec(SEGMENT)


def tracks_of(seconds: list[float], folder: Path | None = None) -> list[Track]:
    tracks = []
    for number, length in enumerate(seconds):
        path = (folder or Path("nowhere")) / f"{number}.wav"
        if folder is not None:
            write_wav(path, (np.arange(round(length * RATE)) % 30_000 + 1).astype(np.int16), RATE)
        tracks.append(Track(str(number), path, round(length * RATE), "train", "", "", ""))
    return tracks


def test_segments_are_numbered_track_by_track() -> None:
    table = SegmentTable(tracks_of([2.0, 0.4, 30.0]), SEGMENT)
    assert table.first.tolist() == [0, 3, 4, 63]
    assert table.track[[0, 2, 3, 4, 62]].tolist() == [0, 0, 1, 2, 2]
    assert table.place[[0, 2, 3, 4, 62]].tolist() == [0, 2, 0, 0, 58]


def test_no_batch_holds_two_segments_whose_views_can_overlap() -> None:
    table = SegmentTable(tracks_of([60.0, 7.3, 120.0, 33.3]), SEGMENT)
    sampler = DisjointSampler(table, WINDOW, batch_size=16)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        for keys in batches:
            assert (keys[:, 0] == epoch).all()
            segments = keys[:, 1]
            assert len(set(segments.tolist())) == 16
            for track in np.unique(table.track[segments]):
                places = np.sort(table.place[segments[table.track[segments] == track]])
                # Each view can lie up to 0.4 s off its place: 1.8 s between the starts keep two of them apart.
                assert (np.diff(places) * SEGMENT.hop_s >= 1.8).all()
        seen.append(np.concatenate(batches)[:, 1])
        assert len(np.unique(seen[-1])) == len(seen[-1])
        assert len(seen[-1]) > 0.75 * len(table)
    assert not np.array_equal(seen[0], seen[1])


def test_the_order_belongs_to_seed_and_epoch() -> None:
    table = SegmentTable(tracks_of([60.0, 60.0]), SEGMENT)
    orders = {}
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        sampler = DisjointSampler(table, WINDOW, 8, seed)
        sampler.set_epoch(epoch)
        orders.setdefault((seed, epoch), []).append(np.stack(list(sampler))[..., 1])
    np.testing.assert_array_equal(*orders[0, 0])
    assert not np.array_equal(orders[0, 0][0], orders[0, 1][0])
    assert not np.array_equal(orders[0, 0][0], orders[1, 0][0])


def test_one_per_track_takes_at_most_one_segment_of_a_track() -> None:
    table = SegmentTable(tracks_of([30.0] * 10 + [5.0] * 5), SEGMENT)
    sampler = OnePerTrackSampler(table, batch_size=6, passes=1_000)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 2_000
    for keys in batches:
        assert len(set(table.track[keys[:, 1]].tolist())) == 6
    assert len(np.unique(np.concatenate(batches)[:, 1])) == len(table)


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_batch_that_cannot_be_filled_is_refused(size: int) -> None:
    table = SegmentTable(tracks_of([10.0]), SEGMENT)
    with pytest.raises(MelprintError, match=f"a batch of {size} does not fit"):
        DisjointSampler(table, WINDOW, size)
    with pytest.raises(MelprintError, match=f"a batch of {size} does not fit"):
        OnePerTrackSampler(table, size)


def test_windows_hold_the_music_around_a_segment_and_zeros_beyond_the_track(tmp_path: Path) -> None:
    tracks = tracks_of([3.0, 0.5], tmp_path)
    dataset = WindowDataset(tracks, DeviceChain(WINDOW, []))
    batch = dataset[np.array([[0, 0], [0, 2], [0, 4], [0, 5]])]
    assert isinstance(batch, SegmentBatch)
    before, samples = WINDOW.before, SEGMENT.num_samples
    ramp = np.arange(24_000) % 30_000 + 1
    for row, start in ((0, 0), (1, 8_000), (2, 16_000)):
        for offset in (-before, -1, 0, samples - 1, samples + WINDOW.margin - 1):
            at = start + offset
            want = ramp[at] if 0 <= at < 24_000 else 0
            assert int(batch.windows[row, before + offset]) == want
    assert batch.windows[3, before : before + 4_000].tolist() == list(range(1, 4_001))
    assert int(batch.windows[3, before + 4_000 :].abs().max()) == 0
    assert batch.slack_before.tolist() == [0, WINDOW.margin, WINDOW.margin, 0]
    assert batch.slack_after.tolist() == [WINDOW.margin, WINDOW.margin, 0, 0]


def test_the_same_item_is_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    dataset = WindowDataset(tracks_of([20.0, 20.0], tmp_path), DeviceChain(WINDOW, [], num_replicas=2), seed=5)
    sampler = DisjointSampler(dataset.table, WINDOW, 8)
    runs = [
        list(torch.utils.data.DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=workers))
        for workers in (0, 2)
    ]
    assert len(runs[0]) == len(runs[1]) > 0
    for alone, in_workers in zip(*runs, strict=True):
        for left, right in zip(alone, in_workers, strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("kind", ["disjoint", "one-per-track"])
def test_processes_share_the_batch_of_one_and_no_track(kind: str, world_size: int) -> None:
    table = SegmentTable(tracks_of([60.0, 7.3, 120.0, 33.3, 50.0, 20.0] * 4), SEGMENT)

    def sampler(batch_size: int, share: Share):
        if kind == "disjoint":
            return DisjointSampler(table, WINDOW, batch_size, seed=1, share=share)
        return OnePerTrackSampler(table, batch_size, seed=1, share=share)

    whole = list(sampler(6 * world_size, Share()))
    parts = [list(sampler(6, Share(rank, world_size))) for rank in range(world_size)]
    assert len(whole) == len(sampler(6, Share(0, world_size)))
    for batch, *own in zip(whole, *parts, strict=True):
        joined = np.concatenate(own)
        assert sorted(map(tuple, joined.tolist())) == sorted(map(tuple, batch.tolist()))
        tracks = [set(table.track[keys[:, 1]].tolist()) for keys in own]
        assert sum(map(len, tracks)) == len(set.union(*tracks))


def test_an_epoch_goes_on_after_its_first_batches() -> None:
    table = SegmentTable(tracks_of([60.0] * 4), SEGMENT)
    sampler = DisjointSampler(table, WINDOW, 8, seed=1)
    whole = list(sampler)
    sampler.position = lambda: (0, 5)
    for rest, want in zip(sampler, whole[5:], strict=True):
        np.testing.assert_array_equal(rest, want)
    sampler.position = lambda: (1, 0)
    assert next(iter(sampler))[0, 0] == 1


def test_a_batch_that_one_track_fills_cannot_be_divided() -> None:
    table = SegmentTable(tracks_of([600.0, 5.0]), SEGMENT)
    with pytest.raises(MelprintError, match="cannot be divided over 2 processes"):
        list(DisjointSampler(table, WINDOW, 8, share=Share(0, 2)))
    assert by_track(np.array([1, 1, 1, 2]), 2) is None
