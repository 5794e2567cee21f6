"""The offline Realtime API: one model session as a pure machine, and the leg that it speaks through."""
