"""Crops, and their order in an epoch."""

import logging
import os
import pickle
from collections import Counter
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.data.augmentation import SpecAugmentConfig
from wespeaker_lite.data.crops import Batch, CropConfig, CropDataset
from wespeaker_lite.data.sampler import EpochSampler, Request
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import read_table, write_table

MELS = 20
LENGTHS = {"B-1": 120, "B-2": 50, "A-1": 31, "C-1": 80, "A-2": 50, "C-2": 200}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Six utterances of three speakers in two arks. Frame t has the value t plus small noise."""
    rng = np.random.default_rng(0)
    scp = []
    for part, keys in (("x", ("B-1", "B-2", "C-1")), ("y", ("A-1", "A-2", "C-2"))):
        with ArkWriter(tmp_path / part) as writer:
            for key in keys:
                frames = np.arange(LENGTHS[key])[:, None] + rng.uniform(0, 0.2, (LENGTHS[key], MELS))
                writer.write(key, frames)
        scp += (tmp_path / f"{part}.scp").read_text().splitlines(keepends=True)
    write_lines(tmp_path / "feats.scp", sorted(scp))
    write_table(tmp_path / "utt2num_frames", LENGTHS)
    write_table(tmp_path / "utt2spk", {key: key[0] for key in LENGTHS})
    return tmp_path


def dataset(directory: Path, seed: int = 7, **options: object) -> CropDataset:
    return CropDataset(directory, CropConfig(**{"frames": 50, "cmn": False, **options}), seed)


def get(data: CropDataset, numbers: list[int], epoch: int = 0) -> Batch:
    return data[Request(epoch, np.array(numbers))]


def starts(batch: Batch) -> list[int]:
    """The first frame of each crop, from its values."""
    return batch.feats[:, 0].mean(-1).sub(0.1).round().int().tolist()


def test_utterances_and_classes_are_in_byte_order(directory: Path) -> None:
    data = dataset(directory)
    assert list(data.utterances) == sorted(LENGTHS)
    assert data.classes == ["A", "B", "C"]
    batch = get(data, [5, 0, 2])
    assert batch.indices.tolist() == [5, 0, 2]
    assert batch.labels.tolist() == [2, 0, 1]
    assert (batch.feats.dtype, batch.feats.shape) == (torch.float32, (3, 50, MELS))


def test_labels_follow_the_order_of_speakers_not_of_utterances(tmp_path: Path) -> None:
    with ArkWriter(tmp_path / "feats") as writer:
        for key in ("a.b/1", "a/1"):  # `.` sorts before `/`, but `a` before `a.b`
            writer.write(key, np.ones((60, MELS)))
    write_table(tmp_path / "utt2num_frames", {"a.b/1": 60, "a/1": 60})
    write_table(tmp_path / "utt2spk", {"a.b/1": "a.b", "a/1": "a"})
    data = dataset(tmp_path)
    assert data.classes == ["a", "a.b"]
    assert data.labels.tolist() == [1, 0]


def test_crops_equal_those_frames_of_the_utterance(directory: Path) -> None:
    data = dataset(directory)
    plain = kaldiio.load_scp(str(directory / "feats.scp"))
    for epoch in range(20):
        batch = get(data, [1, 2, 3, 4, 5], epoch)
        for crop, index, start in zip(batch.feats, batch.indices, starts(batch), strict=True):
            expected = plain[data.utterances[index]][start : start + 50]
            np.testing.assert_allclose(crop, expected, rtol=1e-5, atol=1e-5)


def test_crop_starts_are_uniform(directory: Path) -> None:
    data = dataset(directory)
    first, second = (starts(get(data, list(range(index, 6 * 3000, 6)))) for index in (2, 4))
    counts = Counter(second)
    assert set(counts) == set(range(31))
    assert max(counts.values()) < 2 * min(counts.values())
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=0.08)


def test_a_short_utterance_is_repeated_with_a_warning(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = dataset(directory)
    assert "1 of 6 utterances are shorter than a crop of 50 frames and are repeated" in caplog.text
    whole = torch.from_numpy(kaldiio.load_scp(str(directory / "feats.scp"))["A-1"])
    torch.testing.assert_close(get(data, [0]).feats[0], torch.cat([whole, whole])[:50], rtol=1e-5, atol=1e-5)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        dataset(directory, frames=31)
    assert caplog.text == ""


def test_cmn_subtracts_the_mean_of_the_crop(directory: Path) -> None:
    plain, centred = (get(dataset(directory, cmn=cmn), [0, 5, 3]).feats for cmn in (False, True))
    torch.testing.assert_close(centred, plain - plain.mean(1, keepdim=True), rtol=0, atol=1e-4)


MASKS = SpecAugmentConfig(freq_masks=1, freq_width=4, time_masks=2, time_width=5)


@pytest.mark.parametrize("cmn", [False, True])
def test_a_crop_depends_only_on_seed_epoch_and_number(directory: Path, cmn: bool) -> None:
    data = dataset(directory, cmn=cmn, spec_augment=MASKS)
    numbers = [4, 0, 5, 4, *range(60)]  # more than are decoded at a time
    together = get(data, numbers, epoch=3).feats
    for row, number in enumerate(numbers):
        assert torch.equal(together[row], get(data, [number], epoch=3).feats[0])
    assert not torch.equal(together, get(data, numbers, epoch=4).feats)
    assert not torch.equal(together, get(dataset(directory, 8, cmn=cmn, spec_augment=MASKS), numbers, 3).feats)
    assert not torch.equal(together[0], get(data, [4 + 6], epoch=3).feats[0])  # the same utterance, in a second pass


@pytest.mark.parametrize("cmn", [False, True])
def test_masked_cells_have_the_mean_of_their_band(directory: Path, cmn: bool) -> None:
    plain, masked = (get(dataset(directory, cmn=cmn, **more), [5]).feats[0] for more in ({}, {"spec_augment": MASKS}))
    changed = plain != masked
    assert 0 < changed.float().mean() < 0.6
    torch.testing.assert_close(masked[changed], plain.mean(0).expand_as(plain)[changed], rtol=0, atol=2e-4)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_do_not_change_the_crops(directory: Path, workers: int) -> None:
    data = dataset(directory, spec_augment=MASKS)
    sampler = EpochSampler(len(data), 2, seed=1, epoch=2)
    loader = DataLoader(data, sampler=sampler, batch_size=None, num_workers=workers)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    for batch, request in zip(batches, sampler, strict=True):
        assert isinstance(batch, Batch)
        expected = data[request]
        for name in ("indices", "labels", "feats"):
            assert torch.equal(getattr(batch, name), getattr(expected, name))


def test_a_batch_can_be_sent_between_processes(directory: Path) -> None:
    batch = get(dataset(directory, spec_augment=MASKS), [1, 2])
    for copy in (pickle.loads(pickle.dumps(batch)), batch.to("cpu")):
        assert torch.equal(copy.feats, batch.feats)
        assert torch.equal(copy.labels, batch.labels)


# bad input


def test_tables_that_differ_are_an_error_with_the_first_difference(directory: Path) -> None:
    table = read_table(directory / "utt2num_frames")
    write_table(directory / "utt2num_frames", {key: value for key, value in table.items() if key != "B-2"})
    with pytest.raises(InputError) as caught:
        dataset(directory)
    assert "utt2spk has B-2, feats.scp has B-2, utt2num_frames has C-1" in str(caught.value)
    assert f"run: tools/data_dir.sh validate {directory}" in str(caught.value)
    write_table(directory / "utt2num_frames", {key: value for key, value in table.items() if key != "C-2"})
    with pytest.raises(InputError, match=r"feats.scp has C-2, utt2num_frames has the end"):
        dataset(directory)


def test_a_missing_ark_is_named_at_once(directory: Path) -> None:
    (directory / "x.ark").unlink()
    with pytest.raises(InputError, match=r"x.ark: no such ark; utterance 'B-1' should be in it"):
        dataset(directory)


def test_a_truncated_ark_is_an_error_with_its_utterance(directory: Path) -> None:
    os.truncate(directory / "x.ark", (directory / "x.ark").stat().st_size - 1)
    data = dataset(directory)
    get(data, [2, 3])
    with pytest.raises(InputError, match=r"x.ark: the ark was cut: utterance 'C-1'"):
        get(data, [4])


def test_wrong_frame_counts_are_errors(directory: Path) -> None:
    write_table(directory / "utt2num_frames", LENGTHS | {"C-2": 190})
    with pytest.raises(InputError, match=r"y.ark: utterance 'C-2' is 200 x 20, .* say 190 x 20"):
        get(dataset(directory), [5])
    write_table(directory / "utt2num_frames", LENGTHS | {"C-2": 0})
    with pytest.raises(InputError, match=r"utt2num_frames:6: '0' is not a number of frames"):
        dataset(directory)


def test_arks_of_other_formats_are_refused(directory: Path) -> None:
    matrices = dict(kaldiio.load_scp(str(directory / "feats.scp")))
    kaldiio.save_ark(f"{directory}/z.ark", matrices, scp=f"{directory}/feats.scp", compression_method=2)
    with pytest.raises(InputError, match="no matrix of one byte per value"):
        dataset(directory)


def test_a_crop_needs_frames() -> None:
    with pytest.raises(InputError, match="frames: 0 does not lie in"):
        from_mapping(CropConfig, {"frames": 0}, "here")


def test_long_epochs_repeat_the_utterances_with_new_crops(directory: Path) -> None:
    data = dataset(directory)
    sampler = EpochSampler(6, 4, seed=0, epoch=0, num_batches=6)
    batches = [data[request] for request in sampler]
    assert Counter(index for batch in batches for index in batch.indices.tolist()) == dict.fromkeys(range(6), 4)
    long = [batch.feats[batch.indices == 5] for batch in batches]
    assert len({float(crop[0, 0]) for crop in torch.cat(long)}) > 1


def test_groups_are_speakers_or_corpora_in_the_prefix_of_ids(directory: Path) -> None:
    data = dataset(directory)
    assert data.groups("utterance") is None
    assert data.groups("speaker").tolist() == data.labels.tolist()
    with pytest.raises(InputError, match="is not of the form CORPUS-SPEAKER"):
        data.groups("corpus")
    corpus = {"A": "b-A", "B": "sp0.9-a-B", "C": "b-C"}
    write_table(directory / "utt2spk", {key: corpus[key[0]] for key in LENGTHS})
    data = dataset(directory)
    assert data.groups("corpus").tolist() == [0 if name.startswith("B") else 1 for name in data.utterances]
    write_table(directory / "utt2spk", dict.fromkeys(LENGTHS, "sp0.9-a-x"))
    data = dataset(directory)
    assert set(data.groups("corpus").tolist()) == {0}


def test_unlabelled_utterances_have_no_class(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert dataset(directory).labelled is None
    speakers = {"A-1": "a-A", "A-2": "b-A-2", "B-1": "b-B-1", "B-2": "b-B-2", "C-1": "a-C", "C-2": "a-C"}
    write_table(directory / "utt2spk", speakers)
    write_table(directory / "spk2unlabelled", dict.fromkeys(("b-A-2", "b-B-1"), "yes"))
    data = dataset(directory)
    assert data.classes == ["a-A", "a-C", "b-B-2"]
    assert data.labels.tolist() == [0, -1, -1, 2, 1, 1]
    assert (data.num_unlabelled, data.labelled.tolist()) == (2, [True, False, False, True, True, True])
    assert get(data, [2, 4]).labels.tolist() == [-1, 1]
    assert len({data.groups("speaker")[n] for n in (0, 1, 2, 3)}) == 4
    assert data.groups("corpus").tolist() == [0, 1, 1, 1, 0, 0]
    with caplog.at_level(logging.INFO):
        known = CropDataset(directory, data.config, 7, labelled_only=True)
    assert "2 unlabelled utterances are left out" in caplog.text
    assert list(known.utterances) == ["A-1", "B-2", "C-1", "C-2"]
    assert (known.labels.tolist(), known.num_unlabelled) == ([0, 2, 1, 1], 0)
    assert known.num_frames.tolist() == [31, 50, 80, 200]  # reading compares them with the arks
    assert get(known, [0, 1, 2, 3]).labels.tolist() == [0, 2, 1, 1]
    assert known.groups("corpus").tolist() == [0, 1, 0, 0]
    groups = known.groups("speaker")  # an empty group would be drawn from, too
    assert groups.tolist() == [0, 2, 1, 1]
    crops = np.concatenate([request.numbers for request in EpochSampler(4, 6, 0, 0, num_batches=4, groups=groups)])
    assert np.bincount(groups[crops % 4]).tolist() == [8, 8, 8]
    write_table(directory / "spk2unlabelled", dict.fromkeys(speakers.values(), "yes"))
    with pytest.raises(InputError, match="all utterances are unlabelled"):
        dataset(directory)
