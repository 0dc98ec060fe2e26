"""What the benchmarks read of the system while a load runs, and of what wrk prints."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.bench import cpu
from tests.bench.loadgen.loadgen import wrk_result
from tests.net import needs, until

WRK = """Running 1s test @ http://10.213.0.1/22000
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.32ms    2.47ms  17.48ms   87.48%
    Req/Sec    17.04k     3.90k   22.82k    70.00%
  Latency Distribution
     50%   59.00us
     75%    2.18ms
     90%    1.20sBLANK
     99%   16.06ms
  16983 requests in 1.00s, 359.34MB read
Requests/sec:  16938.31
Transfer/sec:    1.5GB
""".replace("BLANK", " ")  # as wrk aligns seconds with what has a longer unit


def test_what_wrk_prints() -> None:
    found = wrk_result(WRK)
    assert (found.requests, found.requests_s, found.bytes_s) == (16_983, 16_938.31, 1.5 * (1 << 30))
    assert found.latency_us == {"p50": 59.0, "p75": 2_180.0, "p90": 1_200_000.0, "p99": 16_060.0}
    assert wrk_result(WRK.replace("1.5GB", "512.00B")).bytes_s == 512
    with pytest.raises(RuntimeError, match="unable to connect"):
        wrk_result("unable to connect to 10.213.0.1:80 Connection refused")


TIMER_LIST = """now at 36000000000000 nsecs

cpu: 0
 clock 0:
  .offset:     0 nsecs
  .idle_calls     : 8543351
  .idle_sleeptime : 9813111545558 nsecs
  .iowait_sleeptime: 68342264389 nsecs
cpu: 1
  .idle_sleeptime : 7000000000 nsecs
  .iowait_sleeptime: 1 nsecs

Tick Device: mode:     1
"""
STAT = """cpu  4337443 67875 963022 1716201 20728 0 30705 4212 0 0
cpu0 2074250 32356 459361 981283 6819 0 12499 2129 0 0
cpu1 2263193 35518 503660 734918 13909 0 18206 2082 0 0
intr 45097459 0 0
"""


def test_idle_time_is_told_in_nanoseconds() -> None:
    assert cpu.idle_of_timer_list(TIMER_LIST) == [9_813_111_545_558 + 68_342_264_389, 7_000_000_001]
    assert cpu.idle_of_stat(STAT) == [(981_283 + 6_819) * 10_000_000, (734_918 + 13_909) * 10_000_000]
    assert cpu.idle_of_timer_list("") == []


@pytest.mark.parametrize(
    ("text", "idle_ns", "source"),
    [
        (TIMER_LIST, [7_000_000_000_000, 6_000_000_000_000], "timer_list, in ns"),
        (None, [6_999_990_000_000, 6_000_000_000_000], "/proc/stat, in steps of 10 ms"),
    ],
)
def test_idle_time_is_the_better_of_two_sources(
    text: str | None, idle_ns: list[int], source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timer_list is as of the last time that a core woke; it may not be there."""
    monkeypatch.setattr(cpu, "TIMER_LIST", tmp_path / "timer_list")
    monkeypatch.setattr(cpu, "idle_of_stat", lambda _: [6_999_990_000_000, 6_000_000_000_000])
    if text is not None:
        for number in ("9813111545558", "68342264389"):
            text = text.replace(number, "3500000000000")
        cpu.TIMER_LIST.write_text(text)
    assert cpu.idle_ns() == tuple(idle_ns)
    assert source in cpu.idle_source()


def test_a_core_s_time_is_told_apart() -> None:
    before = cpu.Reading(0, (100, 0), (1_000, 0), (50,))
    after = cpu.Reading(1_000, (700, 0), (1_300, 900), (57,))
    first, second = cpu.spent(before, after)
    assert first == cpu.Spent(1_000, busy_ns=400, idle_softirq_ns=100, ksoftirqd_ns=7)
    assert first.busy == 0.4
    assert second == cpu.Spent(1_000, busy_ns=1_000, idle_softirq_ns=100, ksoftirqd_ns=None)
    unknown = cpu.spent(cpu.Reading(0, (0,), None, ()), cpu.Reading(10, (20,), None, ()))
    assert unknown == (cpu.Spent(10, busy_ns=0, idle_softirq_ns=None, ksoftirqd_ns=None),)


def test_a_core_is_read_by_all_its_counters() -> None:
    """Whatever this kernel has of them."""
    before = cpu.read()
    found = cpu.spent(before, cpu.read())
    assert len(found) == os.cpu_count()
    assert all(0 <= core.busy <= 1 for core in found)


@needs("gcc", "taskset")
def test_the_loop_takes_what_others_leave() -> None:
    """Beside a process that always runs it is given next to nothing; SCHED_IDLE weighs 3, a usual process 1,024."""
    core = min(os.sched_getaffinity(0))
    with cpu.spare(core) as loop:
        first = loop.left_ns()
        assert until(lambda: loop.left_ns() > first)
        with subprocess.Popen(["taskset", "-c", str(core), "sh", "-c", "while :; do :; done"]) as other:
            try:
                time.sleep(0.2)
                before, left_ns = cpu.read(), loop.left_ns()
                time.sleep(0.5)
                spent, left_ns = cpu.spent(before, cpu.read())[core], loop.left_ns() - left_ns
            finally:
                other.kill()
    assert left_ns < 0.2 * spent.elapsed_ns
    assert spent.busy > 0.8  # the loop is no idle task


@needs("gcc")
def test_the_loop_says_why_it_cannot_run() -> None:
    done = subprocess.run([cpu.program(), "0", "/missing/file"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "spare: /missing/file: No such file or directory\n")
    with pytest.raises(RuntimeError, match="has ended: 1"), cpu.spare(1023):
        pass


@needs("gcc")
def test_a_program_that_runs_can_be_compiled_again(tmp_path: Path) -> None:
    source, target = tmp_path / "wait.c", tmp_path / "wait"
    source.write_text("#include <unistd.h>\nint main(void) { return pause(); }\n")
    cpu.compile_to(target, [str(source)])
    with subprocess.Popen([target]) as running:
        cpu.compile_to(target, [str(source)])
        assert running.poll() is None
        running.kill()
    source.write_text("int main(void) { return }\n")
    with pytest.raises(subprocess.CalledProcessError):
        cpu.compile_to(target, [str(source)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wait", "wait.c"]
