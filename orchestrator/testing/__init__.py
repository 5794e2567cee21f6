"""Doubles that ship with the product: virtual time, scripted peers."""
