"""Programs to start from. Each folder has a README with the one command that runs it."""
