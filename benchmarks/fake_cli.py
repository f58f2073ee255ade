"""Stands in for the CLI where only the reading of its output is measured: answers the handshake of the SDK, then writes a recorded stream.

Run by its first line; `FAKE_CLI_STREAM` names the file, `FAKE_CLI_REPORT` where to say what CPU that took.
"""

import json
import os
import sys
import time

NAMES = ("CLAUDE_FAKE_STREAM", "CLAUDE_FAKE_REPORT")  # an environment for agents holds what begins with CLAUDE_


def main() -> None:
    if "--version" in sys.argv or "-v" in sys.argv:
        print("2.1.329 (Claude Code)")
        return
    if "--input-format" in sys.argv:
        for line in sys.stdin:
            message = json.loads(line)
            if message["type"] == "user":
                break
            if message["type"] == "control_request":
                answer = {"subtype": "success", "request_id": message["request_id"], "response": {}}
                print(json.dumps({"type": "control_response", "response": answer}), flush=True)
    else:
        sys.stdin.read()
    stream = os.open(os.environ[NAMES[0]], os.O_RDONLY)
    began = time.monotonic()
    block = bytearray(64 * 1024)
    view = memoryview(block)
    while size := os.readv(stream, [block]):
        done = 0
        while done < size:
            done += os.write(1, view[done:size])
    with open(os.environ[NAMES[1]], "w") as report:
        json.dump({"cpu": time.process_time(), "seconds": time.monotonic() - began}, report)


main()
