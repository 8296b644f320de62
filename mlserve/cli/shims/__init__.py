"""TorchServe's commands, for scripts that call them: written into a folder by ``mlserve compat install-shims``."""
