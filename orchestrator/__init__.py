"""Realtime voice agents, many at once: the library part, which needs no cluster."""
