"""The entry ``workflow`` of a manifest."""

from __future__ import annotations

import json
import os


class Workflow:
    """A workflow as the manifest names it: files by their base names."""

    def __init__(self, workflow_name: str, spec_file: str, handler: str | None = None) -> None:
        self.workflow_name = workflow_name
        self.spec_file = os.path.basename(spec_file)
        self.handler = os.path.basename(handler) if handler else None
        self.workflow_dict = {"workflowName": workflow_name, "specFile": self.spec_file}
        if self.handler:
            self.workflow_dict["handler"] = self.handler

    def __str__(self) -> str:
        return json.dumps(self.workflow_dict)

    __repr__ = __str__
