"""Runs inside a guest and does what the test outside asks for: a JSON object a line, each answered by one.

{"run": "ip link"}                    a line of the shell: {"status": 0, "out": ..., "err": ...}
{"start": ["ssrun", ...]}             a program: {"line": the first line that it prints, "err": ... if there is none}
{"next": true}                        the next line that it prints
{"stop": true}                        SIGTERM: {"status": ..., "out": ..., "err": ...}
{"end": true}                         the guest powers off
"""

from __future__ import annotations

import json
import subprocess
import sys
import termios
import threading
from typing import Any

START_S, STOP_S = 120, 60


class Program:
    """The one that is running."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(words, stdin=-3, stdout=-1, stderr=-1, text=True)
        self.err: list[str] = []
        assert self.process.stderr is not None
        self.reader = threading.Thread(target=self.err.extend, args=(self.process.stderr,))
        self.reader.start()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        limit = threading.Timer(START_S, self.process.kill)
        limit.start()
        line = self.process.stdout.readline()
        limit.cancel()
        return {"line": line} if line else {"line": "", "err": self.ended()}

    def ended(self) -> str:
        self.process.wait()
        self.reader.join()
        return "".join(self.err)

    def stop(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        limit = threading.Timer(STOP_S, self.process.kill)
        limit.start()
        self.process.terminate()
        out = self.process.stdout.read()
        err = self.ended()
        limit.cancel()
        return {"status": self.process.returncode, "out": out, "err": err}


def run(command: str) -> dict[str, Any]:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, stdin=-3, check=False)
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr}


def raw() -> None:
    """The line between us is no terminal."""
    mode = termios.tcgetattr(0)
    mode[0] = mode[1] = mode[3] = 0
    mode[6][termios.VMIN] = 1
    termios.tcsetattr(0, termios.TCSANOW, mode)


def main() -> None:
    raw()
    program: Program | None = None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "end" in asked:
            return
        if "run" in asked:
            answer = run(asked["run"])
        elif "start" in asked:
            program = Program(asked["start"])
            answer = program.line()
        else:
            assert program is not None
            answer = program.line() if "next" in asked else program.stop()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
