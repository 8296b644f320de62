"""Files that ``mlserve init`` fills in and writes out, and other data files. Read with ``importlib.resources``."""
