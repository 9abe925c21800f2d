"""Tools for Kaldi data directories: validate, fix, split, combine, subset."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.kaldi.combine import combine
from wespeaker_lite.kaldi.data_dir import unlabelled_speakers
from wespeaker_lite.kaldi.fix import fix
from wespeaker_lite.kaldi.split import split
from wespeaker_lite.kaldi.subset import Selection, subset
from wespeaker_lite.kaldi.validate import validate


def main() -> None:
    """Parse the arguments and run the subcommand."""
    args = _parser().parse_args()
    match args.command:
        case "validate":
            utterances, speakers = validate(args.dir, feats=args.feats, wav=args.wav)
            unlabelled = len(unlabelled_speakers(args.dir))
            placeholders = f" and {unlabelled} placeholders of unknown ones" if unlabelled else ""
            print(f"{args.dir}: valid, {utterances} utterances of {speakers - unlabelled} speakers{placeholders}")
        case "fix":
            changed = fix(args.dir)
            for name, dropped in changed.items():
                print(f"{args.dir}/{name}: written again, {dropped} lines dropped")
            print(f"{args.dir}: " + ("fixed; the old files are in .backup/" if changed else "nothing to fix"))
        case "split":
            print(split(args.dir, args.parts, args.out, args.per_utt, args.at_most), "parts in", args.out)
        case "combine":
            print(combine(args.out, args.dirs), "utterances in", args.out)
        case "subset":
            options = {name: getattr(args, name) for name in ("utts", "speakers", "per_spk", "num_utts", "seed")}
            print(subset(args.dir, args.out, Selection(**options)), "utterances in", args.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="data_dir", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("validate", help="check tables against each other: validate data/mini/train")
    command.add_argument("dir")
    command.add_argument(
        "--no-feats", dest="feats", action="store_false", help="do not check feats.scp and utt2num_frames"
    )
    command.add_argument("--no-wav", dest="wav", action="store_false", help="do not check wav.scp and segments")
    command = commands.add_parser("fix", help="sort, drop incomplete utterances, keep .backup: fix data/mini/train")
    command.add_argument("dir")
    command = commands.add_parser("split", help="split by speaker: split data/mini/train 4 data/mini/train/split")
    command.add_argument("dir")
    command.add_argument("parts", type=int)
    command.add_argument("out", help="folder of the parts: OUT/1 to OUT/N")
    command.add_argument("--per-utt", action="store_true", help="a speaker's utterances may go to several parts")
    command.add_argument(
        "--at-most", action="store_true", help="make fewer parts if there are not enough speakers or utterances"
    )
    command = commands.add_parser("combine", help="join: combine data/both data/a data/b")
    command.add_argument("out")
    command.add_argument("dirs", nargs="+")
    command = commands.add_parser("subset", help="choose by seed: subset data/mini/train data/few --per-spk 2")
    command.add_argument("dir")
    command.add_argument("out")
    command.add_argument("--utts", default="", help="file of the utterances to choose from")
    command.add_argument("--speakers", default="", help="file of the speakers to choose from")
    command.add_argument("--per-spk", type=int, default=0, help="most utterances of each speaker")
    command.add_argument("--num-utts", type=int, default=0, help="number of utterances in all")
    command.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    run(main)
