"""The command `cloudware`, behind the extra `cli`.

Rule 1: this file imports neither cyclopts nor rich, so that without them the command still says how to get them.
"""

import sys

from cloudware_async.cli._ending import Ending, Status, conclude

__all__ = ["main"]


def main() -> int:
    """Run the command that stands on the command line.

    Returns:
        The exit status: 0 done, 1 failed with nothing sent, 2 called wrongly, 3 the text may have gone out.
    """
    return conclude(_run)


def _run() -> None:
    try:
        from cloudware_async.cli._commands import run
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise Ending(f"the command needs {package}: pip install 'cloudware-async[cli]'", Status.FAILED) from None
    run(sys.argv[1:])
