"""Small speaker-verification models, trained by knowledge distillation, in Kaldi-style recipes."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import `SpeakerModel` at its first use: it needs torch, and most programs do not."""
    if name == "SpeakerModel":
        from wespeaker_lite.deploy.speaker_model import SpeakerModel

        return SpeakerModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
