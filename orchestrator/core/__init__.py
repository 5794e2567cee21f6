"""The logic of a conversation: pure state machines, events in, commands out. No socket, no clock, no await."""
