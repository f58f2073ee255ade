"""What is decoded on several threads is safe from the first time on."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

# msgspec 0.22 makes the description of a type when it is first needed; two threads that are the first at the same time read half of one. A kernel in
# which two runs ended at once would be gone.
FIRST_USE: Final = """
import sys, threading
from pathlib import Path
from cc_executor.agents.claude import control
from cc_executor.rehearsal import scripts
from cc_executor.runtime import history
from cc_executor.store import blobs, snapshot
from cc_executor.store.historyrow import HistoryRow
from cc_executor.store.journal import RunFolder
import msgspec

folder = Path(sys.argv[1])
uses = [
    lambda: history._read(RunFolder(folder), "file", history._Receipt),
    lambda: history._read(RunFolder(folder), "file", history._Planned),
    lambda: snapshot._read(folder / "file", snapshot.Act),
    lambda: snapshot._read(folder / "file", snapshot.Tree),
    lambda: blobs._index(folder / "file"),
    lambda: control._questions('{"questions": []}'),
    lambda: scripts.load("hello"),
]
sys.setswitchinterval(1e-6)
for use in uses:
    gate = threading.Barrier(8)
    def work():
        gate.wait()
        use()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def row():
    try:
        msgspec.convert({}, HistoryRow)
    except msgspec.ValidationError:
        pass
gate = threading.Barrier(8)
threads = [threading.Thread(target=lambda: (gate.wait(), row())) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_eight_threads_that_are_the_first_do_not_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")

    def ended(_: int) -> int:
        return subprocess.run([sys.executable, "-c", FIRST_USE, str(tmp_path)], timeout=60, check=False).returncode

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(ended, range(8))) == {0}
