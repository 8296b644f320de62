"""``python -m mlserve.worker``: started by the server, never by hand."""

import sys

from mlserve.worker.main import main

if __name__ == "__main__":
    sys.exit(main())
