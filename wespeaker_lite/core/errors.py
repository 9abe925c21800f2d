"""How programs end that did nothing wrong: an error that a user causes and can fix, and a stop that was asked for."""


class InputError(Exception):
    """Bad input: a file, a line, an utterance, an option or a config key.

    The message is complete: it names the place (file and line, or utterance), what is wrong, and where one is known,
    the command that fixes it. Programs print it as one line and exit with 1, without a traceback.
    """


class Stopped(Exception):
    """A signal asked the program to stop, and it did so where nothing is lost: the same command resumes from there."""

    def __init__(self, signal: int, message: str) -> None:
        """Note the number of the signal; the message says what is kept."""
        super().__init__(message)
        self.signal = signal
