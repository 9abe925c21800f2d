"""Programs, one per job of a stage. They parse arguments and call the library."""

import logging
import os
import sys
from collections.abc import Callable

from wespeaker_lite.core.errors import InputError, Stopped


def run(main: Callable[[], None]) -> None:
    """Run a program's `main` with logs on stderr. Bad input and errors of the system give one line and exit code 1.

    Any other exception is a defect and keeps its traceback.
    """
    program = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s %(levelname)s {program}: %(message)s"
    )
    try:
        main()
        sys.stdout.flush()  # may fail on a full disk
    except InputError as error:
        sys.exit(f"{program}: {error}")
    except Stopped as stop:
        logging.getLogger(__name__).warning("%s", stop)
        sys.exit(128 + stop.signal)  # the exit code that a shell reports for a signal
    except UnicodeEncodeError as error:  # file names may be any bytes, but our files are UTF-8
        line = error.object[: error.start].rpartition("\n")[2] + error.object[error.start :].partition("\n")[0]
        sys.exit(f"{program}: not UTF-8: {line[:300]!a}: rename that file or folder")
    except BrokenPipeError:  # the reader of our output has ended, as `head` does
        _drop_output()
        sys.exit(1)
    except OSError as error:  # no space, no permission, no such file
        _drop_output()
        sys.exit(f"{program}: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except KeyboardInterrupt:
        sys.exit(130)


def _drop_output() -> None:
    """Drop output that cannot be written. Otherwise Python would try again at exit, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
