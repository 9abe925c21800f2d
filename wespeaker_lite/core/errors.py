"""Exceptions that are not defects: bad input that the user can fix, and a requested stop."""


class InputError(Exception):
    """Bad input: a file, a line, an utterance, an option or a config key.

    The message is complete: it names the place (file and line, or utterance), the fault and, if known, the command that
    fixes it. Programs print it as one line, without a traceback, and exit with 1.
    """


class Stopped(Exception):
    """A signal asked the program to stop. Nothing is lost: the same command resumes from there."""

    def __init__(self, signal: int, message: str) -> None:
        """Keep the number of the signal. The message says what was saved."""
        super().__init__(message)
        self.signal = signal
