"""The one exception that a user is meant to read."""

import errno


class UserError(Exception):
    """Something outside the program is wrong: a file, a recipe, a setting, the disk.

    The message says what is wrong, where, and what to do. The command-line tools print it
    without a traceback and exit with code 1; any other exception is a defect of ours.
    """


def os_error(action: str, path: object, error: OSError) -> UserError:
    """Put an operating system's refusal into words: ``action`` is e.g. ``"write"``."""
    hints = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EFBIG: "the file would exceed the file-size limit of this process (ulimit -f)",
        errno.EACCES: "permission denied; check who owns the folder, or choose another one",
        errno.EPERM: "operation not permitted; check who owns the folder, or choose another one",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOENT: "there is no such file or folder",
        errno.EISDIR: "it is a folder, and a file is needed",
        errno.ENOTDIR: "a part of the path is a file, and a folder is needed",
    }
    # Arrow raises this one without its number.
    number = errno.ENOENT if isinstance(error, FileNotFoundError) else error.errno or 0
    reason = hints.get(number, error.strerror or str(error))
    return UserError(f"cannot {action} {path}: {reason}")
