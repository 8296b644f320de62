"""``python -m mlserve`` is the ``mlserve`` command."""

from mlserve.cli import main

if __name__ == "__main__":
    main()
