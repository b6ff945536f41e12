"""A grid with a network of random weights: clean excerpts are found, buried ones are not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from melprint.audio.files import to_int16, write_wav
from melprint.data.corpora.corpus import Corpus
from melprint.data.manifest import Track
from melprint.errors import MelprintError
from melprint.evaluation.grid_report import write_grid
from melprint.evaluation.robustness import Grid
from melprint.evaluation.scene import UNITS, GridSpec, Scene, render
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.extractor import extract, sources_of_tracks
from melprint.index.exact import ExactIndex
from melprint.models import build_fingerprinter

RATE = 8_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    from tests.conftest import synthesize

    root = tmp_path_factory.mktemp("corpus")

    def track(name: str, split: str, wave: np.ndarray) -> Track:
        path = root / f"{name.replace('/', '-')}.wav"
        write_wav(path, to_int16(wave), RATE)
        return Track(name, path, len(wave), split, name, "", "")

    rng = np.random.default_rng(0)
    music = [track(f"m{n}", "test" if n < 4 else "train", synthesize(n, 14.0)) for n in range(7)]
    noise = [track(f"{kind}/n", "test", 0.1 * rng.standard_normal(5 * RATE)) for kind in ("effects", "speech")]
    rooms = [track("room", "test", np.exp(-np.arange(800) / 100) * rng.standard_normal(800) * 0.1)]
    return Corpus(root, music, noise, rooms)


@pytest.fixture(scope="module")
def grid(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    torch.manual_seed(0)
    model = build_fingerprinter(
        {},
        {"num_mels": 64, "unit_level": True},
        {"_target_": "melprint.models.compact.CompactEncoder"},
        {"_target_": "melprint.models.projection.DivideAndEncode"},
    ).eval()
    folder = tmp_path_factory.mktemp("stores")
    for name, split in (("dummy_db", "train"), ("db", "test"), ("query", "test")):
        extract(model, sources_of_tracks(corpus.music_of(split), RATE), folder, name)
    spec = GridSpec({"snr": [-30, 60], "rt60": [0, 0.3], "mp3": [32]}, num_queries=12, duration_s=3.0)
    index = ExactIndex()
    found = Grid(Scene(corpus, spec, folder / "rooms"), model, TestStores.open(folder, None, "strict"), index, [1, 5])
    index.build(found.references)
    return found


def test_what_is_buried_is_lost_and_finished_cells_are_kept(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = grid.run(tmp_path)
    rate = {(row["factor"], row["level"], row["num_segments"]): row["top1_song"] for row in rows}
    assert rate["snr", 60.0, 5] > 0.9
    assert rate["rt60", 0.0, 5] > 0.9
    assert rate["snr", -30.0, 5] < 0.7
    assert all(row["top1_song_low"] <= row["top1_song"] <= row["top1_song_high"] for row in rows)
    (note,) = {row["note"] for row in rows if row["factor"] == "mp3"}
    assert float(note.removesuffix(" kbit/s")) == pytest.approx(32, abs=2)
    page = write_grid(rows, tmp_path, {"run": "name"}).read_text()
    assert page.count("data:image/png;base64,iVBOR") == 3
    measured = []
    original = Grid.cell
    monkeypatch.setattr(Grid, "cell", lambda self, *cell: measured.append(cell) or original(self, *cell))
    next(tmp_path.glob("cells-*/snr 60.csv")).unlink()
    assert str(grid.run(tmp_path)) == str(rows)  # NaN is equal to nothing
    assert measured == [("snr", 60.0)]


def test_factors_do_what_their_names_say(grid: Grid) -> None:
    scene = grid.scene
    clean, start_s, _ = render(scene, "gain", 0)
    np.testing.assert_array_equal(clean, scene.waves[:, scene.num_context :][:, : scene.num_samples])
    for factor, level in (("snr", 10), ("music", 0), ("speech", -5)):
        noise = render(scene, factor, level)[0] - clean
        ratio = 10 * np.log10(np.square(clean).mean(axis=1) / np.square(noise).mean(axis=1))
        np.testing.assert_allclose(ratio, level, atol=0.05)
    quiet = render(scene, "gain", -20)[0]
    np.testing.assert_allclose(quiet, clean / 10, rtol=1e-5)
    shifted, places, _ = render(scene, "phase", 0.2)
    np.testing.assert_allclose(places % 0.5, 0.2, atol=1e-4)
    track = scene.tracks[0].samples(RATE)[round(places[0] * RATE) :][: scene.num_samples]
    np.testing.assert_allclose(shifted[0] * 32_768, track, atol=0.5)
    assert (start_s * RATE == scene.start).all()
    power = np.square(np.abs(np.fft.rfft(render(scene, "rerecorded", 60)[0]))).mean(axis=0)
    hz = np.fft.rfftfreq(scene.num_samples, 1 / RATE)
    assert power[hz < 150].sum() < 0.02 * power.sum()  # neither the loudspeaker nor the microphone lets it through
    assert power[hz > 3_800].sum() < 0.02 * power.sum()
    for factor in set(UNITS) - {"rt60"}:
        level = (
            1_000 if factor.endswith("pass") else 16 if UNITS[factor] == "kbit/s" else 5 if factor != "phase" else 0.1
        )
        wave = render(scene, factor, level)[0]
        assert wave.shape == clean.shape, factor
        assert np.isfinite(wave).all(), factor


def test_what_cannot_be_rendered(corpus: Corpus, grid: Grid, tmp_path: Path) -> None:
    for spec, words in (
        ({"factors": {"colour": [1]}}, "unknown factors"),
        ({"factors": {"speed": [30]}}, "up to"),
        ({"factors": {}, "num_queries": 0}, "num_queries must be positive"),
    ):
        with pytest.raises(MelprintError, match=words):
            GridSpec(**spec)
    with pytest.raises(MelprintError, match=r"no test track lasts 23\.5 s"):
        Scene(corpus, GridSpec({}, duration_s=20), tmp_path)
    long = Grid(grid.scene, grid.model, grid.stores, grid.index, [1, 9])
    with pytest.raises(MelprintError, match="have 5 segments, too few"):
        long.run(tmp_path)
