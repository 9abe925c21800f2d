"""One program per job of a stage: arguments in, a library call, an exit code out."""

import logging
import os
import sys
from collections.abc import Callable

from wespeaker_lite.core.errors import InputError, Stopped


def run(main: Callable[[], None]) -> None:
    """Run a program's `main`: log to stderr, and end with 1 and one line where the input or the machine is at fault.

    Anything else that is raised is a defect of ours and keeps its traceback.
    """
    program = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s %(levelname)s {program}: %(message)s"
    )
    try:
        main()
        sys.stdout.flush()  # which a full disk may refuse
    except InputError as error:
        sys.exit(f"{program}: {error}")
    except Stopped as stop:
        logging.getLogger(__name__).warning("%s", stop)
        sys.exit(128 + stop.signal)  # as a shell reports a program that a signal ended
    except UnicodeEncodeError as error:  # Python reads names of files in any bytes, but our files are UTF-8
        line = error.object[: error.start].rpartition("\n")[2] + error.object[error.start :].partition("\n")[0]
        sys.exit(f"{program}: not UTF-8: {line[:300]!a}: rename that file or folder")
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        _drop_output()
        sys.exit(1)
    except OSError as error:  # no space, no permission, no such file: the machine's own words and the path
        _drop_output()
        sys.exit(f"{program}: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except KeyboardInterrupt:
        sys.exit(130)


def _drop_output() -> None:
    """Drop output that cannot be written: at its end Python would try again, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
