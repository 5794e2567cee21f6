"""Plain HTTP at the offline endpoint: what the live API answers beside its WebSockets, and what drives the simulator."""
