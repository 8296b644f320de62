"""What other servers' users bring along: their configuration files. Used by the command line and by workers only."""
