"""Write the resolved config of an experiment, and print its keys and values for the shell."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.recipe import resolved


def main() -> None:
    """Parse the arguments and call `wespeaker_lite.recipe.resolved`."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    resolving = actions.add_parser("resolve", help="fill in defaults, check every key, write OUT")
    resolving.add_argument("--config", required=True, help="a file of conf/")
    resolving.add_argument("--overrides", help="a corpus' overrides.yaml")
    resolving.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="a value that replaces those of both files",
    )
    resolving.add_argument("--out", required=True, help="the experiment's config.yaml")
    copying = actions.add_parser("from-model", help="write the config of a trained model to OUT")
    copying.add_argument("--model", required=True, help="final.pt of the model")
    copying.add_argument("--out", required=True)
    showing = actions.add_parser("show", help="print OUT")
    showing.add_argument("--out", required=True)
    args = parser.parse_args()
    if args.action == "from-model":
        resolved.copy_from_model(args.model, args.out)
    elif args.action == "resolve":
        resolved.resolve(args.config, args.overrides, args.set, args.out)
    print("\n".join(resolved.for_shell(args.out)))


if __name__ == "__main__":
    run(main)
