"""The command line: `residualdroppath`, short `rdp`."""
