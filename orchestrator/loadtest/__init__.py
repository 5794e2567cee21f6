"""Many simulated callers at once, and what they measure: added latency both ways, lost frames, CPU and memory per session."""
