"""The one error that a user causes and can mend."""


class InputError(Exception):
    """Bad input: a file, a line, an utterance, an option or a config key.

    The message is complete: it names the place (file and line, or utterance), what is wrong, and where one is known,
    the command that mends it. Programs print it as one line and exit with 1, without a traceback.
    """
