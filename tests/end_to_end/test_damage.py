"""Outputs that are damaged later are found: each stage compares its inputs with the stamp of their stage."""

import re
from pathlib import Path

from tests.end_to_end.checkout import Checkout
from tests.end_to_end.kills import products


def flip(path: Path) -> None:
    """Change a byte in the middle; the size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    """Keep the first half of the lines."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


DATA, EXP = "data/mini", "exp/mini/student"
# The damage, the file, the stage that reads it, and the stage that fixes it.
CASES = [
    (halve, f"{DATA}/train/wav.scp", 2, 1),
    (halve, f"{DATA}/train/utt2spk", 4, 1),
    (flip, f"{DATA}/train/fbank/feats.1.ark", 4, 2),
    (flip, "exp/mini/teacher/final.pt", 4, 4),
    (flip, f"{DATA}/test/fbank/feats.2.ark", 5, 2),
    (flip, f"{EXP}/final.pt", 5, 4),
    (flip, f"{EXP}/embeddings/test/xvector.ark", 6, 5),
    (halve, f"{DATA}/train/utt2num_frames", 6, 2),
    (flip, f"{EXP}/scores/trials_O.cosine.score", 7, 6),
    (flip, f"{EXP}/results.json", 7, 6),
]


def test_damaged_files_are_found_by_the_stage_that_reads_them(checkout: Checkout) -> None:
    """A stage that runs alone names the damaged file and the stage that fixes it. A whole run fixes all files."""
    uninterrupted = products(checkout)
    for damage, name, reader, maker in CASES:
        path = checkout.folder / name
        whole = path.read_bytes()
        damage(path)
        said = checkout.bad("--stage", str(reader), "--stop-stage", str(reader))
        assert re.search(rf"{name} was damaged or changed after .*: run stage {maker}", said), said
        path.write_bytes(whole)
    for damage, name, *_ in CASES:
        damage(checkout.folder / name)
    for name in ("test/feats.scp", "test/utt2dur", "test/spk2utt", "train/audio.list"):
        (checkout.folder / DATA / name).write_bytes(b"")
    for name in ("test/utt2spk", "test/features.json", "trials/trials_O"):
        (checkout.folder / DATA / name).unlink()
    config = checkout.exp / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 9"))
    checkout.good()
    assert products(checkout) == uninterrupted
