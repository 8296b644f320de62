"""Turning failures into exit codes, the same for every verb.

=====  ====================================================================
0      done
1      it failed; one line on standard error says why
2      wrong usage, or a setting that is wrong
3      no server is running or reachable
4      a model that ``start`` was told to load could not be loaded
130    interrupted from the keyboard; 143 and 129: by SIGTERM and SIGHUP
=====  ====================================================================

An exception with an ``exit_code`` attribute chooses its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from mlserve.errors import ServeError, SettingError

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_RUNNING, EXIT_MODEL_FAILED, EXIT_INTERRUPTED = 1, 2, 3, 4, 130


def guarded(call: Callable[[], int | None]) -> int:
    """The exit code of ``call``: what it returns (None is 0), or what its failure means."""
    try:
        return call() or 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SettingError as error:
        return _fail(str(error), EXIT_USAGE)
    except ServeError as error:
        return _fail(error.message, getattr(error, "exit_code", EXIT_FAILED))
    except BrokenPipeError:
        # The reader of our output has gone; without this the interpreter complains once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        return _fail(str(error), EXIT_FAILED)


def _fail(message: str, code: int) -> int:
    print(f"mlserve: error: {message}", file=sys.stderr)
    return code
