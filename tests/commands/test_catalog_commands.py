"""What an operator types."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import Result
from typer.testing import CliRunner

from melprint.catalog import Catalog
from melprint.cli import app
from melprint.errors import MelprintError
from melprint.fingerprints.store import open_store
from tests.conftest import synthesize

RATE = 8_000


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for number in range(24):
        soundfile.write(folder / f"{number:02d}.wav", synthesize(number, 14.0), RATE)
    return folder


@pytest.fixture
def catalog(music: Path, tmp_path: Path) -> Path:
    said("catalog", "create", tmp_path / "c")
    said("catalog", "add", tmp_path / "c", *sorted(music.iterdir())[:3])
    return tmp_path / "c"


def test_the_life_of_a_catalog(catalog: Path, music: Path, tmp_path: Path) -> None:
    assert "1 tracks added" in said("catalog", "add", catalog, *sorted(music.iterdir())[:4])
    said("catalog", "update", catalog, "01.wav", "--key", "mine", "--title", "Étude", "--artist", "Someone")
    listed = [json.loads(line) for line in said("catalog", "list", catalog, "--json").splitlines()]
    assert [track["key"] for track in listed] == ["00.wav", "mine", "02.wav", "03.wav"]
    assert listed[1]["title"] == "Étude"
    assert said("catalog", "list", catalog, "--search", "étude").count("mine") == 1
    assert "nothing wrong" in said("catalog", "verify", catalog)
    known = json.loads(said("catalog", "info", catalog, "--json"))
    assert (known["tracks"], known["model"], known["fingerprints"]) == (4, "compact", 4 * 27)

    clip = tmp_path / "clip.wav"
    soundfile.write(clip, synthesize(1, 14.0)[4 * RATE : 10 * RATE], RATE)
    assert json.loads(said("identify", catalog, clip, "--json"))["title"] == "Étude"
    said("catalog", "remove", catalog, "mine")
    assert not json.loads(said("identify", catalog, clip, "--json"))["accepted"]

    said("catalog", "export", catalog, tmp_path / "tracks.csv")
    with (tmp_path / "tracks.csv").open(newline="", encoding="utf-8") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["00.wav", "02.wav", "03.wav"]
    said("catalog", "export", catalog, tmp_path / "store")
    store = open_store(tmp_path / "store", "catalog")
    store.check()
    assert [track.num_rows for track in store.tracks] == [27, 27, 27]


def test_two_catalogs_become_one_and_the_index_can_be_another(catalog: Path, music: Path, tmp_path: Path) -> None:
    said("catalog", "create", tmp_path / "other", "--index", "exact")
    said("catalog", "add", tmp_path / "other", *sorted(music.iterdir())[2:20])
    assert "17 of 18 tracks added" in said("catalog", "merge", catalog, tmp_path / "other")
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, synthesize(15, 14.0)[2 * RATE : 9 * RATE], RATE)
    before = json.loads(said("identify", catalog, clip, "--json"))
    assert before["track"] == "15.wav"
    said("catalog", "reindex", catalog, "--index", "hnsw")
    assert "hnsw" in json.loads(said("catalog", "info", catalog, "--json"))["index"]
    assert json.loads(said("identify", catalog, clip, "--json")) == before


@pytest.mark.slow
def test_thresholds_are_measured_on_the_catalogs_own_music(music: Path, tmp_path: Path) -> None:
    said("fingerprint", music, tmp_path / "c")
    answer = said("catalog", "calibrate", tmp_path / "c", "--queries", "60")
    assert "false accepts 1.0%" in answer
    with Catalog.open(tmp_path / "c") as opened:
        measured = json.loads((tmp_path / "c" / "calibration.json").read_text())
        limits = measured["false_accept_rates"]["0.01"]["threshold"]
        assert limits[0] > limits[-1]  # longer recordings need less
        assert opened.confidence.threshold(0.01, 19, len(opened.view())) == pytest.approx(limits[-1], abs=1e-3)
        assert measured["accepted_right"] > 0.8
        unknown = [opened.identify(synthesize(seed, 10.0))[0].accepted for seed in range(100, 130)]
    assert np.mean(unknown) <= 0.1


def test_a_few_files_are_too_little_to_calibrate(catalog: Path) -> None:
    result = run("catalog", "calibrate", catalog)
    assert isinstance(result.exception, MelprintError)
    assert "20 are needed" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["catalog", "create", "{catalog}"], "is a catalog already"),
        (["catalog", "create", "{tmp}/new", "--index", "best"], "no kind of index 'best'"),
        (["catalog", "create", "{tmp}/new", "--model", "{tmp}/none.ckpt"], "there is no checkpoint"),
        (["catalog", "create", "{tmp}/new", "--sql", "nonsense"], "no address of a database"),
        (["catalog", "add", "{tmp}/none", "{tmp}"], "there is no catalog"),
        (["catalog", "add", "{catalog}", "{tmp}/none.wav"], "there is no"),
        (["catalog", "remove", "{catalog}", "never"], "has no track 'never'"),
        (["catalog", "update", "{catalog}", "00.wav", "--key", "01.wav"], "another track has the key"),
        (["catalog", "update", "{catalog}", "00.wav"], "nothing to change"),
        (["catalog", "merge", "{catalog}", "{catalog}"], "is the same catalog"),
        (["catalog", "reindex", "{catalog}", "--index", "milvus"], "no address of Milvus"),
        (["catalog", "export", "{catalog}", "{tmp}/a.xml"], "OUT must end in"),
        (["locate", "{tmp}/none.wav", "{catalog}"], "none.wav"),
        (["dedup", "{tmp}/none"], "there is no"),
        (["fingerprint", "{catalog}", "{tmp}/new"], "holds no"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(arguments: list[str], sentence: str, catalog: Path, tmp_path: Path) -> None:
    result = run(*(argument.format(catalog=catalog, tmp=tmp_path) for argument in arguments))
    assert isinstance(result.exception, MelprintError), (result.output, result.exception)
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "new").exists()
    with Catalog.open(catalog) as opened:
        assert len(opened) == 3


def test_parts_of_a_recording_are_located_in_a_catalog_and_in_a_file(
    catalog: Path, music: Path, tmp_path: Path
) -> None:
    parts = [synthesize(90, 5.0), synthesize(0, 14.0)[2 * RATE : 10 * RATE], synthesize(2, 14.0)[3 * RATE : 9 * RATE]]
    soundfile.write(tmp_path / "mix.ogg", np.concatenate(parts), RATE)
    found = [json.loads(line) for line in said("locate", tmp_path / "mix.ogg", catalog, "--json").splitlines()]
    places = {row["track"]: (row["query_start_s"], row["query_end_s"], row["reference_start_s"]) for row in found}
    assert places["00.wav"] == pytest.approx((5.0, 13.0, 2.0), abs=1.1)
    assert places["02.wav"] == pytest.approx((13.0, 19.0, 3.0), abs=1.1)
    assert "01.wav" not in places
    plot = tmp_path / "plot.png"
    shown = said("locate", tmp_path / "mix.ogg", music / "02.wav", "--plot", plot)
    assert "0:13" in shown or "0:12" in shown
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "has no part of" in said("locate", music / "21.wav", music / "03.wav")


def test_a_folder_is_looked_through_for_duplicates(music: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in (0, 1):
        soundfile.write(folder / f"{number}.wav", synthesize(number, 14.0), RATE)
    soundfile.write(folder / "again.mp3", synthesize(1, 14.0), RATE)
    (folder / "copy.wav").write_bytes((folder / "0.wav").read_bytes())
    rows = [json.loads(line) for line in said("dedup", folder, "--json").splitlines()]
    assert [(row["track_key"], row["key"], row["kind"]) for row in rows[:-1]] == [
        ("1.wav", "again.mp3", "same recording")
    ]
    assert rows[-1]["kind"] == "identical file"
    assert "1 groups" in said("dedup", folder)
