"""Agents that behave badly, as Python code for `python -I -S -c`. Each forks what it needs; `FOLDER` is where they leave signs."""

from __future__ import annotations

from typing import Final

# A child in a session of its own appends a byte every 10 ms, as the Claude Code CLI's tools run; the agent itself prints a line as often.
TICKER: Final = r"""
import os, time
folder = os.environ["FOLDER"]
if os.fork() == 0:
    os.setsid()
    os.close(1); os.close(2)
    file = os.open(folder + "/ticks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        os.write(file, b".")
        time.sleep(0.01)
while True:
    os.write(1, b".")
    time.sleep(0.01)
"""

# Deaf to every polite signal, in all the ways in which a process can leave its group: a session of its own, a double fork, a cleared environment.
STUBBORN: Final = r"""
import os, signal, sys, time
def deaf():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
def live():
    deaf()
    open(os.environ["FOLDER"] + "/born-%d" % os.getpid(), "w").close()
    while True:
        time.sleep(1)
deaf()
if os.fork() == 0:
    os.setsid(); live()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid(); live()
    os._exit(0)
if os.fork() == 0:
    os.setsid(); deaf()
    os.environ["PATH"] = "/bin"
    code = ("import os, signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
            "open(%r + '/born-' + str(os.getpid()), 'w').close()\nwhile True: time.sleep(1)" % os.environ["FOLDER"])
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code], {})
live()
"""

# Two processes that fork and end every moment, each in a new session, so that nobody lives long enough to be met.
HOPPERS: Final = r"""
import os, signal, time
def hop():
    while True:
        os.setsid()
        if os.fork():
            os._exit(0)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        if os.fork() == 0:
            hop()
        os._exit(0)
os.write(1, b"hopping\n")
while True:
    time.sleep(1)
"""

# Says when it is told to stop, and ends as a well-behaved agent does.
POLITE: Final = r"""
import os, signal, time
def stop(number, frame):
    os.write(1, b"stopped by %d\n" % number)
    os._exit(3)
signal.signal(signal.SIGINT, stop)
os.write(1, b"ready\n")
while True:
    time.sleep(1)
"""
