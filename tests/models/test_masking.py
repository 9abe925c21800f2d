import pytest
import torch

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.models.masking import apply_mask, mean_over_time, time_mask


def test_time_mask_marks_the_frames_before_each_length():
    mask = time_mask(torch.tensor([1, 3, 4]), 4)
    assert mask.tolist() == [[True, False, False, False], [True, True, True, False], [True, True, True, True]]


@pytest.mark.parametrize("length", [0, 5, -1])
def test_time_mask_refuses_a_length_outside_the_batch_and_names_the_utterance(length):
    with pytest.raises(InputError, match=f"utterance 1 .* {length} frames"):
        time_mask(torch.tensor([4, length]), 4)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("length", range(1, 10))
def test_a_strided_mask_has_the_length_of_a_strided_convolution(stride, length):
    conv = torch.nn.Conv1d(1, 1, 3, stride, padding=1)
    assert time_mask(torch.tensor([length]), 9)[:, ::stride].sum() == conv(torch.zeros(1, 1, length)).shape[-1]


def test_apply_mask_also_clears_nan():
    maps = torch.full((2, 3, 5, 4), torch.nan)
    maps[0, ..., :2] = maps[1] = 7.0
    masked = apply_mask(maps, time_mask(torch.tensor([2, 4]), 4))
    assert (masked[0, ..., :2] == 7).all()
    assert (masked[0, ..., 2:] == 0).all()
    assert (masked[1] == 7).all()
    assert apply_mask(maps, None) is maps


def test_mean_over_time_counts_only_valid_frames():
    maps = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)
    mean = mean_over_time(maps, time_mask(torch.tensor([3, 1]), 4))
    assert mean.squeeze(-1).tolist() == [[1, 5, 9], [12, 16, 20]]
    torch.testing.assert_close(mean_over_time(maps, None), maps.mean(-1, keepdim=True))
