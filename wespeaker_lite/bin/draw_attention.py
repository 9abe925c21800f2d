r"""Draw the self-attention maps of a teacher and its students, and measure how close they are.

PNG shows the first utterance of the data dir. A .json in the same folder has, for each student and stage, the mean
KL(teacher's row || student's row) over the first utterances.

Example:
    python -m wespeaker_lite.bin.draw_attention --system teacher=exp/x/bc_cmt_base/final.pt \
        --system plain=exp/x/bc_cmt_tiny/final.pt --system kd=exp/x/bc_cmt_tiny_attn_kd/final.pt \
        --data data/x/test --out exp/x/bc_cmt_tiny_attn_kd/report/attention.png
"""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.report.without_kd import find_without_kd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_mutually_exclusive_group(required=True)
    actions.add_argument(
        "--system", action="append", metavar="NAME=final.pt", help="a model: the teacher first, then each student"
    )
    actions.add_argument(
        "--without-kd", metavar="EXP", help="only print the name of the experiment that is as EXP, but without KD"
    )
    parser.add_argument("--data", metavar="DIR", help="data dir with feats.scp")
    parser.add_argument("--out", metavar="PNG", help="picture to write")
    parser.add_argument(
        "--utterances", type=int, default=20, help="number of utterances to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="seconds of each utterance to measure (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.without_kd:
        print(find_without_kd(options.without_kd) or "")
        return
    if not options.data or not options.out:
        parser.error("--system needs --data and --out")
    # Here, because it imports torch, which --without-kd does not need.
    from wespeaker_lite.report.attention_maps import Excerpt, load_systems, write_attention

    excerpt = Excerpt(options.utterances, options.seconds)
    write_attention(load_systems(options.system), options.data, options.out, excerpt)


if __name__ == "__main__":
    run(main)
