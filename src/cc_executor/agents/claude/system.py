"""The lines of type `system` by their subtype, typed. As lenient as `frames`, and as ignorant of what they mean to us."""

from __future__ import annotations

import msgspec


class _Said(msgspec.Struct, frozen=True, gc=False):
    pass


class McpServer(_Said, frozen=True):
    """An MCP server and its state."""

    name: str = ""
    status: str = ""


class Init(_Said, frozen=True):
    """`system/init`."""

    session_id: str = ""
    model: str = ""
    cwd: str = ""
    permissionMode: str = ""  # noqa: N815  # the CLI's own spelling
    claude_code_version: str = ""
    apiKeySource: str = ""  # noqa: N815  # the CLI's own spelling
    tools: list[str] = []
    mcp_servers: list[McpServer] = []


class Status(_Said, frozen=True):
    """`system/status`; null ends `compacting`."""

    status: str | None = None


class SessionState(_Said, frozen=True):
    """`system/session_state_changed`."""

    state: str = ""


class ApiRetry(_Said, frozen=True):
    """`system/api_retry`; `error_status` null: no HTTP answer."""

    attempt: int = 0
    max_retries: int = 0
    retry_delay_ms: float = 0.0
    error_status: int | None = None
    error: str | None = None


class ModelFallback(_Said, frozen=True):
    """`system/model_fallback`."""

    fallback_model: str = ""
    trigger: str | None = None


class Refusal(_Said, frozen=True):
    """`system/model_refusal_no_fallback`."""

    content: str | None = None
    api_refusal_category: str | None = None


class TaskPatch(_Said, frozen=True):
    """What changed of a task."""

    status: str | None = None
    description: str | None = None
    is_backgrounded: bool = False


class Task(_Said, frozen=True):
    """`task_started`, `task_progress`, `task_notification` and, with `patch`, `task_updated`."""

    task_id: str = ""
    status: str | None = None
    description: str | None = None
    summary: str | None = None
    is_backgrounded: bool = False
    patch: TaskPatch = TaskPatch()


class Hook(_Said, frozen=True):
    """`system/hook_started` and `system/hook_response`."""

    hook_name: str = ""
    outcome: str | None = None
    stdout: str | None = None
    stderr: str | None = None
