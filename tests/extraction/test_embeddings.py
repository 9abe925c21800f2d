"""Embeddings and cohorts read from arks that kaldiio wrote."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import Embeddings, read_cohort, read_embeddings
from wespeaker_lite.kaldi.tables import read_table


def write_vectors(folder: Path, vectors: dict[str, np.ndarray]) -> Path:
    with kaldiio.WriteHelper(f"ark,scp:{folder}/xvector.ark,{folder}/xvector.scp") as write:
        for name in sorted(vectors):
            write(name, vectors[name])
    return folder / "xvector.scp"


@pytest.fixture
def vectors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    names = ["a-1", "a-2", "a-3", "b-1", "c-1", "c-2"]
    return {name: rng.standard_normal(8).astype(np.float32) for name in names}


@pytest.fixture
def utt2spk(tmp_path: Path, vectors: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "utt2spk"
    path.write_text("".join(f"{name} {name[0]}\n" for name in vectors))
    return path


def test_embeddings_are_found_by_utterance(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    embeddings = read_embeddings(write_vectors(tmp_path, vectors))
    assert embeddings.vectors.dtype == np.float32
    rows = embeddings.rows(["c-2", "a-1", "c-2"])
    np.testing.assert_array_equal(embeddings.vectors[rows], [vectors["c-2"], vectors["a-1"], vectors["c-2"]])
    some = embeddings.select(["b-1", "a-3"])
    np.testing.assert_array_equal(some.vectors[some.rows(["a-3"])], [vectors["a-3"]])
    with pytest.raises(InputError, match="'x-1' has no embedding"):
        embeddings.rows(["a-1", "x-1"])


def test_only_requested_embeddings_are_read_with_their_lengths(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    scp, lengths = write_vectors(tmp_path, vectors), tmp_path / "utt2num_frames"
    lengths.write_text("".join(f"{name} {100 + row}\n" for row, name in enumerate(vectors)))
    embeddings = read_embeddings(scp, lengths, only={"b-1", "a-2", "x-1"})
    assert list(embeddings.index) == ["a-2", "b-1"]
    np.testing.assert_array_equal(embeddings.vectors, [vectors["a-2"], vectors["b-1"]])
    assert embeddings.frames.tolist() == [101, 103]
    assert embeddings.select(["b-1"]).frames.tolist() == [103]
    assert embeddings.unit().frames.tolist() == [101, 103]
    with pytest.raises(InputError, match="none of the requested utterances"):
        read_embeddings(scp, only={"x-1"})


def test_missing_or_invalid_lengths_are_errors(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    scp, lengths = write_vectors(tmp_path, vectors), tmp_path / "utt2num_frames"
    for text, message in (
        ("a-1 10\na-2 9\n", "no length of utterance 'a-3'"),
        ("a-1 10\na-2 0\n", "utt2num_frames:2: 'a-2' has '0' frames"),
        ("a-1 10.5\n", "utt2num_frames:1: 'a-1' has '10.5' frames"),
    ):
        lengths.write_text(text)
        with pytest.raises(InputError, match=message):
            read_embeddings(scp, lengths)


def test_unit_embeddings_are_centred_and_of_length_1(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    mean = np.full(8, 0.5, np.float32)
    unit = read_embeddings(write_vectors(tmp_path, vectors)).unit(mean)
    centred = vectors["b-1"].astype(np.float64) - 0.5
    assert unit.vectors.dtype == np.float32
    np.testing.assert_allclose(unit.vectors[unit.index["b-1"]], centred / np.sqrt((centred**2).sum()), atol=1e-7)


@pytest.mark.parametrize(
    ("vector", "fault"),
    [([1.0, 2.0], "'bad' is zero"), ([np.nan, 2.0], "'bad' is not finite"), ([np.inf, 2.0], "'bad' is not finite")],
)
def test_a_zero_embedding_is_an_error(vector: list[float], fault: str) -> None:
    embeddings = Embeddings(np.array([[5.0, 5.0], vector], np.float32), {"good": 0, "bad": 1})
    with pytest.raises(InputError, match=fault):
        embeddings.unit(np.array([1.0, 2.0], np.float32))


def test_a_mean_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="2 values, the cohort's have 3"):
        Embeddings(np.ones((1, 2), np.float32), {"a": 0}).unit(np.zeros(3, np.float32))


def test_vectors_of_several_sizes_are_refused(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"xvector.scp:4: 'b-1' has shape \(3,\), expected a vector of 8"):
        read_embeddings(write_vectors(tmp_path, vectors | {"b-1": np.ones(3, np.float32)}))


def test_cohort_of_speakers(tmp_path: Path, vectors: dict[str, np.ndarray], utt2spk: Path) -> None:
    cohort = read_cohort(write_vectors(tmp_path, vectors), read_table(utt2spk))
    assert list(cohort.embeddings.index) == ["a", "b", "c"]
    wanted = [np.mean([vectors[name] for name in vectors if name[0] == speaker], axis=0) for speaker in "abc"]
    np.testing.assert_allclose(cohort.embeddings.vectors, wanted, atol=1e-6)
    np.testing.assert_allclose(cohort.mean, np.mean(list(vectors.values()), axis=0), atol=1e-6)


def test_cohort_of_utterances(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    cohort = read_cohort(write_vectors(tmp_path, vectors), None)
    np.testing.assert_array_equal(cohort.embeddings.vectors, list(vectors.values()))
    np.testing.assert_allclose(cohort.mean, np.mean(list(vectors.values()), axis=0), atol=1e-6)


def test_a_cohort_utterance_without_speaker_is_named(
    tmp_path: Path, vectors: dict[str, np.ndarray], utt2spk: Path
) -> None:
    scp = write_vectors(tmp_path, vectors | {"d-1": np.ones(8, np.float32)})
    with pytest.raises(InputError, match=r"utt2spk: no speaker for utterance 'd-1'"):
        read_cohort(scp, read_table(utt2spk))
