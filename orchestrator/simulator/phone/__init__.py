"""Phone calls that reach the offline endpoint as if over SIP: who calls, what is said and heard, and who is told."""
