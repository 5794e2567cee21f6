"""The world outside, offline: a Realtime API endpoint and a phone carrier."""
