"""One phone call from end to end, told as a person would want to read it."""
