"""Legs: connections that move messages and know nothing of conversations."""
