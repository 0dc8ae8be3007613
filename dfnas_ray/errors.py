"""Errors that a user can act on.

Every message says what is wrong, with which value, and what to change. The command line prints them as one line and
exits with code 2; a program that imports the package catches `DfnasError`.
"""

INTERRUPTED = "Interrupted. What is finished is kept; the same command goes on from there."
"""What a command prints when it is interrupted."""

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
"""Exit codes of a command."""


def printable(name: object) -> str:
    """Return a name from outside, such as a file name, in a form that any terminal can show."""
    text = str(name)
    return text if text.isprintable() else ascii(text)


def shortened(text: str, limit: int = 300) -> str:
    """Return a text from outside in a form that any terminal can show.

    If it has more than ``limit`` characters, its middle is left out.
    """
    if len(text) <= limit and len(shown := _escaped(text)) <= limit:
        return shown
    left_out = f" ... ({len(text):,} characters) ... "
    kept = max(2, limit - len(left_out))
    end = kept // 4
    return f"{_escaped(text[:kept])[: kept - end]}{left_out}{_escaped(text[-end:])[-end:] if end else ''}"


def _escaped(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


class DfnasError(Exception):
    """Base of all errors that the user can fix, without a change of the code."""

    def __str__(self) -> str:
        """Return the message, shortened to 1,000 characters: what is wrong, and what to do."""
        return shortened(super().__str__(), 1000)


class ConfigError(DfnasError):
    """A setting is unknown, has the wrong type, is out of range, or contradicts another one."""


class TeacherError(DfnasError):
    """The teacher cannot be built, loaded or used."""


class DatasetError(DfnasError):
    """A labelled dataset is missing, unreadable, or does not fit the teacher."""


class GenotypeError(DfnasError):
    """A genotype does not belong to the search space, or no genotype satisfies the limit."""


class StorageError(DfnasError):
    """The run directory cannot be written or read."""


class AlteredError(StorageError):
    """A file of a run directory is of another version, or was altered. Its stage can be run again."""


class ShardError(AlteredError):
    """A shard is truncated, altered, or from another run. Running the synthesis again replaces it."""


class ExportError(DfnasError):
    """A network cannot be exported to another tool's format, or the exported program gives other results."""


class SynthesisError(DfnasError):
    """Images cannot be synthesized from this teacher with these settings."""


class ClusterError(DfnasError):
    """Ray cannot be reached, or lacks the resources that were asked for."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
