"""The Ray actors: thin shells that unpack and delegate."""
