"""Compare two recordings, or a test recording with an enrolment. Print a score and, with a threshold, a decision.

The score is the cosine of the embeddings, after subtraction of the training set's mean if verify.json of stage 6 has
it. The threshold is that of the EER on a trial list of the experiment. With --p-target, it is that of the
log-likelihood ratio, for which the experiment needs the scoring cosine_linear.

Example:
    python -m wespeaker_lite.bin.verify --model exp/mini/ecapa_c64_kd/final.pt a.wav b.wav
"""

import argparse
import json
import sys
from typing import Any

from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError


def main() -> None:
    """Parse the arguments, compare the recordings, and print the decision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="final.pt or an exported .onnx (default: the model of the package)")
    parser.add_argument("files", nargs="*", metavar="FILE", help="two recordings")
    parser.add_argument("--enroll", nargs="+", default=[], metavar="FILE", help="recordings of one speaker")
    parser.add_argument("--test", metavar="FILE", help="the recording to compare with --enroll")
    parser.add_argument("--trials", metavar="NAME", help="list whose EER threshold is used (default: the first)")
    parser.add_argument(
        "--p-target", type=float, help="prior of a target trial, to decide by the calibrated log-likelihood ratio"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--stream", action="store_true", help="print decisions along the test recording")
    parser.add_argument(
        "--window",
        type=float,
        default=3.0,
        help="seconds of audio for a decision of --stream; 0 for all so far (default: 3)",
    )
    parser.add_argument("--hop", type=float, default=0.5, help="seconds between decisions of --stream (default: 0.5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    args = parser.parse_args()
    if bool(args.files) == bool(args.enroll or args.test) or (args.files and len(args.files) != 2):
        raise InputError("name two recordings, or --enroll FILE... and --test FILE")
    enroll, test = (args.files[:1], args.files[1]) if args.files else (args.enroll, args.test)
    if not enroll or not test:
        raise InputError("--enroll and --test go together")
    import torch

    from wespeaker_lite.deploy.decision import decide, describe, find_rule
    from wespeaker_lite.deploy.speaker_model import SpeakerModel

    torch.set_num_threads(args.threads)
    model = SpeakerModel.load(args.model)
    rule = find_rule(model.verification, args.p_target, args.trials)
    if args.stream:
        _stream(model, rule, enroll, test, args)
        return
    decision = decide(rule, model.score(enroll, test))
    print(json.dumps({"enroll": enroll, "test": test, **decision}) if args.json else describe(decision))


def _stream(model: Any, rule: Any, enroll: list[str], test: str, args: argparse.Namespace) -> None:
    from wespeaker_lite.deploy.stream import Running, StreamOptions, line_of

    running = Running(rule, StreamOptions(args.window, args.hop))
    for decision in running.decisions(model, enroll, test):
        print(line_of(decision, args.json), flush=True)
    print(running.cost_said(), file=sys.stderr)


if __name__ == "__main__":
    run(main)
