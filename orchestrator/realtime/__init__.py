"""The realtime agents API."""
