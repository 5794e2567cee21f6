"""The protocols on the wire as types, one module per protocol."""
