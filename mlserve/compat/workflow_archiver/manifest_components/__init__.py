"""Where scripts look for the values of a manifest."""
