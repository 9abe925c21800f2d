"""Tensor files: written completely or not at all, and no code in them runs."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.tensor_files import load_tensors, save_tensors


def test_saved_tensors_are_loaded_unchanged(tmp_path: Path) -> None:
    record = {"weights": torch.arange(3.0), "names": ["a"], "nested": {"step": 3, "none": None}}
    save_tensors(tmp_path / "deep/er/x.pt", record)
    again = load_tensors(tmp_path / "deep/er/x.pt")
    assert torch.equal(again.pop("weights"), record.pop("weights"))
    assert again == record
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["x.pt"]


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("evil",))


def test_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Evil()}, "x.pt")
    with pytest.raises(InputError, match="cut or not a file of this program"):
        load_tensors("x.pt")
    assert not Path("evil").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.pt: no such file"):
        load_tensors(tmp_path / "none.pt")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("a small tmpfs to fill cannot be mounted here (needs root)")
    try:
        save_tensors(tmp_path / "x.pt", {"x": torch.zeros(10)})
        with pytest.raises(OSError, match=r"x\.pt|No space") as caught:
            save_tensors(tmp_path / "x.pt", {"x": torch.zeros(100_000)})
        assert caught.value.errno == 28
        assert len(load_tensors(tmp_path / "x.pt")["x"]) == 10
        assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("damage", ["bit", "zeros"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    weights = torch.arange(1.0, 5001.0)
    save_tensors(tmp_path / "x.pt", {"weights": weights})
    content = bytearray((tmp_path / "x.pt").read_bytes())
    begin = content.find(weights.numpy().tobytes())
    if damage == "bit":
        content[begin + 4003] ^= 4
    else:
        content[begin + 4000 : begin + 8000] = bytes(4000)
    (tmp_path / "x.pt").write_bytes(content)
    assert not torch.equal(torch.load(tmp_path / "x.pt")["weights"], weights), "the damage does not change the weights"
    with pytest.raises(InputError, match=r"x\.pt: .*(checksum|CRC)"):
        load_tensors(tmp_path / "x.pt")
