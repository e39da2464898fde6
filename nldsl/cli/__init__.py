"""The command `nldsl`: one file per sub-command, each imported only when it is invoked."""
