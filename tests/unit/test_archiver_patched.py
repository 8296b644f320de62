"""Scripts that replace parts of torch_model_archiver's modules go on working."""

import zipfile
from unittest import mock

from mlserve.compat.model_archiver import ModelArchiver, ModelArchiverConfig


def test_a_replaced_zipfile_gets_file_mode_and_compression(tmp_path):
    """As TorchServe's own tests do it, to store instead of compressing."""
    handler = tmp_path / "h.py"
    handler.write_text("def handle(data, context): ...")
    config = ModelArchiverConfig(model_name="m", handler=str(handler), export_path=str(tmp_path), version="1.0")
    real, calls = zipfile.ZipFile, []

    def stored(file, mode, compression):
        calls.append((mode, compression))
        return real(file, mode, zipfile.ZIP_STORED)

    with mock.patch("mlserve.compat.model_archiver.model_packaging_utils.zipfile.ZipFile", stored):
        ModelArchiver.generate_model_archive(config)
    assert calls == [("w", zipfile.ZIP_DEFLATED)]
    with zipfile.ZipFile(tmp_path / "m.mar") as archive:
        assert "h.py" in archive.namelist()
