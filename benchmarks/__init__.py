"""Measurements: mlserve beside other servers, on this machine, in interleaved rounds."""
