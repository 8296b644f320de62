"""Imports a module that nobody has."""

import module_that_nobody_has  # noqa: F401


def handle(data, context):
    return ["never"] * len(data)
