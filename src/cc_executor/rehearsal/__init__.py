"""A scripted local model for the real Claude Code CLI: `server` plays `scripts`; ``python -P -m cc_executor.rehearsal`` wraps a whole run."""
