"""The order of crops in an epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.sampler import EpochSampler


def numbers(sampler: EpochSampler) -> list[list[int]]:
    return [request.numbers.tolist() for request in sampler]


def test_an_epoch_has_every_utterance_once_except_an_incomplete_batch() -> None:
    sampler = EpochSampler(23, 5, seed=0, epoch=0)
    batches = numbers(sampler)
    assert [len(batch) for batch in batches] == [5] * len(sampler) == [5] * 4
    assert len({number for batch in batches for number in batch}) == 20
    assert batches == numbers(EpochSampler(23, 5, seed=0, epoch=0))
    assert batches != numbers(EpochSampler(23, 5, seed=0, epoch=1))
    assert batches != numbers(EpochSampler(23, 5, seed=1, epoch=0))
    assert all(request.epoch == 9 for request in EpochSampler(23, 5, seed=1, epoch=9))


def test_many_epochs_use_all_utterances_equally() -> None:
    counts = Counter(
        number for epoch in range(500) for batch in numbers(EpochSampler(23, 5, 0, epoch)) for number in batch
    )
    assert set(counts) == set(range(23))
    assert min(counts.values()) > 390  # of 500 * 20 / 23 = 435


def test_the_order_without_unlabelled_utterances_stays_that_of_finished_trainings() -> None:
    rng = np.random.default_rng((3, 4))
    passes = [rng.permutation(23) + turn * 23 for turn in range(2)]
    whole = numbers(EpochSampler(23, 5, seed=3, epoch=4, num_batches=8))
    assert np.concatenate(whole).tolist() == np.concatenate(passes)[:40].tolist()


@given(start=st.integers(0, 7))
def test_an_epoch_resumes_where_it_was_interrupted(start: int) -> None:
    whole = numbers(EpochSampler(100, 13, seed=3, epoch=4))
    rest = EpochSampler(100, 13, seed=3, epoch=4, start_batch=start)
    assert numbers(rest) == whole[start:]
    assert len(rest) == len(whole) - start


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_the_global_batches(world_size: int) -> None:
    whole = numbers(EpochSampler(50, 12, seed=3, epoch=4))
    ranks = [numbers(EpochSampler(50, 12, 3, 4, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for batch, shares in zip(whole, zip(*ranks, strict=True), strict=True):
        assert sorted(batch) == sorted(number for share in shares for number in share)
        assert {len(share) for share in shares} == {12 // world_size}


GROUPS = np.repeat([0, 1, 2], [1, 3, 20])  # the speaker of each of 24 utterances


def test_all_speakers_get_the_same_number_of_crops() -> None:
    sampler = EpochSampler(24, 6, seed=1, epoch=2, num_batches=10, groups=GROUPS)
    crops = np.concatenate([request.numbers for request in sampler])
    assert np.bincount(GROUPS[crops % 24]).tolist() == [20, 20, 20]
    assert len(set(crops.tolist())) == 60  # no crop twice: an utterance that comes again has the number of another pass
    taken = np.bincount(crops % 24, minlength=24)
    assert taken[0] == 20
    assert sorted(taken[1:4]) == [6, 7, 7]
    assert set(taken[4:]) == {1}  # a speaker's utterances take turns
    for batch in sampler:
        assert np.bincount(GROUPS[batch.numbers % 24]).tolist() == [2, 2, 2]


def test_sampling_by_group_depends_only_on_seed_and_epoch() -> None:
    whole = numbers(EpochSampler(24, 6, seed=1, epoch=2, groups=GROUPS))
    assert whole == numbers(EpochSampler(24, 6, seed=1, epoch=2, groups=GROUPS))
    assert whole != numbers(EpochSampler(24, 6, seed=1, epoch=3, groups=GROUPS))
    assert whole != numbers(EpochSampler(24, 6, seed=2, epoch=2, groups=GROUPS))
    assert whole[2:] == numbers(EpochSampler(24, 6, seed=1, epoch=2, groups=GROUPS, start_batch=2))
    ranks = [numbers(EpochSampler(24, 6, 1, 2, rank=rank, world_size=2, groups=GROUPS)) for rank in range(2)]
    for batch, shares in zip(whole, zip(*ranks, strict=True), strict=True):
        assert (batch[::2], batch[1::2]) == shares


def test_invalid_batches_are_refused() -> None:
    with pytest.raises(InputError, match="a batch of 10 cannot be shared evenly by 4 processes"):
        EpochSampler(100, 10, 0, 0, world_size=4)
    with pytest.raises(InputError, match="9 utterances do not fill one batch of 10"):
        EpochSampler(9, 10, 0, 0)


# unlabelled utterances

LABELLED = np.array([True] * 16 + [False] * 8)


def crops_of(**options: object) -> np.ndarray:
    """The crop numbers of an epoch, (batches, batch_size)."""
    return np.array(numbers(EpochSampler(24, 6, seed=1, epoch=2, labelled=LABELLED, **options)))


@pytest.mark.parametrize(("share", "batches", "unlabelled"), [(0.0, 4, 8), (0.5, 10, 30), (0.1, 10, 6), (0.01, 3, 1)])
def test_each_batch_has_its_share_of_unlabelled_crops(share: float, batches: int, unlabelled: int) -> None:
    crops = crops_of(num_batches=batches, unlabelled_share=share)
    without = ~LABELLED[crops % 24]
    assert without.sum() == unlabelled
    assert np.ptp(without.sum(1)) <= 1
    assert len(set(crops.ravel().tolist())) == crops.size  # no crop twice
    for members in (LABELLED, ~LABELLED):  # each utterance as often as the others of its kind
        assert np.ptp(np.bincount(crops.ravel() % 24, minlength=24)[members]) <= 1


def test_labelled_and_unlabelled_crops_are_spread_over_ranks_and_resumed() -> None:
    options = {"num_batches": 7, "unlabelled_share": 0.4}
    whole = crops_of(**options)
    np.testing.assert_array_equal(crops_of(**options, start_batch=3), whole[3:])
    ranks = [crops_of(**options, rank=rank, world_size=3) for rank in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(ranks, 1)), np.sort(whole))
    shares = np.array([LABELLED[rank % 24].sum(1) for rank in ranks])
    assert np.ptp(shares, axis=0).max() <= 1
    assert shares.min() >= 1
    assert not np.array_equal(whole, np.array(numbers(EpochSampler(24, 6, 1, 3, labelled=LABELLED, **options))))


def test_speakers_and_corpora_share_the_labelled_crops() -> None:
    speakers = np.array([0, 1, 1, 1, *[2] * 12, *range(3, 11)])  # the unlabelled are alone
    crops = crops_of(num_batches=10, unlabelled_share=0.4, groups=speakers).ravel() % 24
    assert np.bincount(speakers[crops])[:3].tolist() == [12, 12, 12]
    assert np.bincount(crops, minlength=24)[16:].tolist() == [3] * 8
    corpora = np.array([0] * 4 + [1] * 14 + [2] * 6)  # the second has labelled and unlabelled utterances
    crops = crops_of(num_batches=10, unlabelled_share=0.4, groups=corpora).ravel() % 24
    kinds = Counter(zip(corpora[crops].tolist(), LABELLED[crops].tolist(), strict=True))
    assert kinds == {(0, True): 18, (1, True): 18, (1, False): 12, (2, False): 12}


def test_each_process_needs_a_labelled_crop() -> None:
    crops_of(num_batches=4, unlabelled_share=0.8, world_size=1)
    with pytest.raises(
        InputError, match=r"a batch of 6 crops has 1.2 labelled ones, and each of 2 processes needs one"
    ):
        crops_of(num_batches=4, unlabelled_share=0.8, world_size=2)
    with pytest.raises(InputError, match=r"set train.unlabelled_share lower or train.batch_size higher"):
        crops_of(num_batches=4, unlabelled_share=0.9)
