"""A scripted local model for the real Claude Code CLI: `server` plays `scripts`; ``python -m cc_executor.rehearsal`` wraps a whole run."""
