"""One module per kind of caller: its protocol on one side, the session on the other."""
