"""A triage agent with two specialists who hand back to it."""
