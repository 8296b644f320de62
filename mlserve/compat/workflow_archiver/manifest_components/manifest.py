"""A workflow's manifest."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from mlserve.compat.workflow_archiver.manifest_components.workflow import Workflow
from mlserve.compat.workflow_archiver.version import __version__


class Manifest:
    """``WAR-INF/MANIFEST.json``; its text is ``str(manifest)``."""

    def __init__(self, workflow: Workflow) -> None:
        self.creation_time = datetime.now().strftime("%d/%m/%Y %H:%M:%S")
        self.workflow = workflow
        self.archiver_version = __version__
        self.manifest_dict: dict[str, Any] = {
            "createdOn": self.creation_time,
            "workflow": workflow.workflow_dict,
            "archiverVersion": __version__,
        }

    def __str__(self) -> str:
        return json.dumps(self.manifest_dict, indent=2)

    __repr__ = __str__
