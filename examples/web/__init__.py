"""A voice agent in the browser."""
