"""The files workload: every model reads equal bytes; a model that does not, or that breaks, fails alone."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.watching import Watcher

import proact
from proact.lab.files import FILES, SIZE
from proact.lab.files import bench as bench_module
from proact.lab.files.bench import FileBench, UnmeasurableError, latency
from proact.lab.files.fileset import Amounts, FileSet, temporary
from proact.lab.files.process import FileProcess
from proact.lab.job import asked_loads
from proact.lab.measure import Cell
from proact.lab.models.files_proact import carried_out
from proact.lab.registry import MODELS, missing_engine
from proact.lab.run import Settings, run
from proact.lab.server_process import ServerError
from proact.lab.summary import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


FEW = Amounts(small=12, large=64 * SIZE, reads=21, appends=7)
WORKERS = [name for name, model in MODELS.items() if model.files]

#: One model of each file in ``models/``; proact's has two ways. The other models differ only in their
#: arguments.
DIFFERENT = {model.files[0]: name for name, model in reversed(MODELS.items()) if model.files}.values()

#: The outcome when a readiness model waits for a file.
TOLD = {
    "blocking": "blocking calls, one after the other",
    "nonblocking": "pread with O_NONBLOCK waits and returns 512 bytes",
    "select": "select reports 2 of 2 states ready at once",
    "poll": "poll reports 2 of 2 states ready at once",
    "epoll": "epoll refuses it, EPERM",
    "libevent": "libevent refuses it",
    "sigio": "O_ASYNC brings no signal",
}

#: How the models with their own file operations work, if nothing is denied to the ring.
HOW = {
    "io_uring": "read, write, fsync: operations of a ring",
    "proact-io_uring": "read, write, fsync: operations of the loop's ring (io_uring)",
    "proact-epoll": "read, write, fsync: proact's pool of threads beside epoll",
    "proact-poll": "read, write, fsync: proact's pool of threads beside poll",
    "proact-select": "read, write, fsync: proact's pool of threads beside select",
    "asyncio": "run_in_executor",
    "proact.fs": "proact.fs: ",
    "aiofiles": "aiofiles on asyncio",
    "caio": "caio.",
}


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[FileSet, dict[str, str]]]:
    """A small file set, and the correct digests."""
    with temporary(seed=7, amounts=FEW) as files:
        yield files, files.create()
    assert not Path(files.directory).exists()


def cell(model: str = "threads", workload: str = "files-small", concurrency: int = 2) -> Cell:
    return Cell(model, workload, concurrency, concurrency, SIZE, None, 0)


def measured(where: FileBench, *of: Any) -> Any:
    with where:
        return where.measure(cell(*of))


def few(duration: float = 0.0) -> FileBench:
    return FileBench(seed=7, cpu=None, warmup=0.0, duration=duration, tick=lambda: None, amounts=FEW)


@pytest.mark.parametrize("model", WORKERS)
def test_every_model_moves_the_right_bytes(model: str, made: tuple[FileSet, dict[str, str]]) -> None:
    files, truth = made
    operations = {"files-small": FEW.small, "files-append": FEW.appends}
    every = model in DIFFERENT or model == "proact-io_uring"
    for workload in FILES if every else ("files-small", "files-append"):
        if reason := MODELS[model].missing(3, workload):
            if workload in dict(MODELS[model].cannot):
                continue
            pytest.skip(reason)
        if workload == "files-direct" and files.refuses_direct():
            continue  # another test checks such a cell
        with FileProcess(model, workload, 3, files) as process:
            for _ in range(2 if workload == "files-append" else 1):
                report = process.round()
                assert report["digest"] == truth[workload]
                assert report["operations"] == len(report["latencies"])
                assert report["operations"] == operations.get(workload, FEW.reads)
                assert 0 < min(report["latencies"]) <= report["seconds"] * 1e9
            if model in HOW:
                assert report["how"].startswith(HOW[model])
            if model in TOLD:  # one thread, however many operations are wanted at once
                assert report["how"].endswith(TOLD[model])
                assert process.threads()[0] == 1
            else:
                assert report["how"]


def test_what_is_denied_to_the_ring_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := missing_engine("io_uring"):
        pytest.skip(reason)
    monkeypatch.setenv("PROACT_URING_DENY", "fsync,recv")
    with closing(proact.new_event_loop("io_uring")) as loop:
        said = carried_out(loop.engine_info())
    assert said.startswith("operations of the loop's ring (io_uring); fsync (fsync: ")
    assert said.endswith("): done by a pool of threads")
    assert "recv" not in said


def test_the_truth_is_what_lies_in_the_files(made: tuple[FileSet, dict[str, str]]) -> None:
    files, truth = made
    assert set(truth) == set(FILES)
    small = b"".join(Path(files.small(number)).read_bytes() for number in range(FEW.small))
    assert hashlib.sha256(small).hexdigest() == truth["files-small"]
    large = Path(files.large).read_bytes()
    assert len(large) == FEW.large
    pieces = b"".join(large[at : at + SIZE] for at in files.offsets())
    assert hashlib.sha256(pieces).hexdigest() == truth["files-random"]
    assert len(set(truth.values())) == 3  # the O_DIRECT reads have the digest of the random reads


def test_a_cell_is_measured_as_the_others_are() -> None:
    got = measured(few(duration=0.02), "threads", "files-random", 4)
    assert got["seconds"] >= 0.02
    assert got["messages"] % FEW.reads == 0
    assert got["bytes"] == got["messages"] * SIZE
    assert sum(count for _, count in got["latency"]["histogram"]) == got["messages"]
    assert got["server_user_seconds"] + got["server_system_seconds"] > 0
    assert got["switches_voluntary"] > 0
    assert got["occupied"]["threads"] == 5
    if got["counted"] is not None:  # one call per operation, and some for the threads
        assert got["counted"]["calls"] >= got["counted"]["messages"]


def test_where_the_time_went_is_divided() -> None:
    probed = frozenset({cell("blocking", "files-append", 1)})
    bench = FileBench(
        seed=1, cpu=None, warmup=0.01, duration=0.0, tick=lambda: None, split=probed, amounts=FEW
    )
    got = measured(bench, "blocking", "files-append", 1)
    assert got["unsplit"] is None
    assert got["split"]["messages"] == pytest.approx(FEW.appends)
    assert got["split"]["calls"]["fsync"]["count"] == FEW.appends


def test_latencies_become_steps_and_percentiles() -> None:
    found = latency([*range(1, 1000), 10_000_000])
    assert found["percentiles"]["p50"] == 501
    assert found["percentiles"]["max"] == found["percentiles"]["p99.99"] == 10_000_000
    assert found["histogram"][:2] == [[1, 1], [2, 1]]
    upper, count = found["histogram"][-1]
    assert count == 1
    assert 10_000_000 <= upper < 10_000_000 * 1.001


def test_wrong_bytes_fail_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    create = FileSet.create

    def spoilt(files: FileSet) -> dict[str, str]:
        truth = create(files)
        with Path(files.small(3)).open("r+b") as file:
            file.write(b"x")
        return truth

    monkeypatch.setattr(FileSet, "create", spoilt)
    with pytest.raises(
        ServerError, match=r"^moved other bytes than it should have: digest [0-9a-f]{12} instead"
    ):
        measured(few())


def test_a_file_that_is_too_short_fails_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    create = FileSet.create

    def cut(files: FileSet) -> dict[str, str]:
        truth = create(files)
        os.truncate(files.small(3), 100)
        return truth

    monkeypatch.setattr(FileSet, "create", cut)
    with pytest.raises(ServerError, match="exit code 1: ValueError: moved 100 of 4096 bytes"):
        measured(few())


def test_a_filesystem_without_o_direct_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSet, "refuses_direct", lambda files: "no O_DIRECT here")
    with pytest.raises(UnmeasurableError, match="no O_DIRECT here"):
        measured(few(), "threads", "files-direct")


def test_why_o_direct_is_refused(
    made: tuple[FileSet, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        assert flags & os.O_DIRECT
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("proact.lab.files.fileset.os.open", refuse)
    reason = f"the filesystem of {made[0].directory} refuses O_DIRECT: Invalid argument"
    assert made[0].refuses_direct() == reason


def test_no_room_for_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROACT_LAB_DIR", "/nowhere/at/all")
    with pytest.raises(
        ServerError, match=r"^the files to work on can't be made: .*No such file or directory"
    ):
        measured(few())


@pytest.mark.parametrize(
    ("blow", "reason"),
    [
        (signal.SIGKILL, "the server ended: killed by SIGKILL"),
        (signal.SIGSTOP, "hangs: said nothing for 3 s"),
    ],
    ids=["crash", "hang"],
)
def test_a_model_that_breaks_fails_alone(
    blow: signal.Signals,
    reason: str,
    lab_children: Callable[[int], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Longer than a worker has to wait for a core on a busy machine.
    monkeypatch.setattr("proact.lab.files.process.ROUND_TIMEOUT", 3.0)
    monkeypatch.setattr(bench_module, "Amounts", lambda: FEW)

    def strike(cell: Cell) -> None:
        if cell.model == "poll" and (worker := lab_children(os.getpid()).get("files")):
            os.kill(worker, blow)

    watcher = Watcher(strike)
    settings = Settings(
        ("epoll", "poll", "bare-epoll"), ("files-small",), (2,), duration=0.05, warmup=0.0, seed=1
    )
    document = run(settings, watcher)
    cells = {cell["model"]: cell for cell in document["cells"]}
    status = {name: cell["status"] for name, cell in cells.items()}
    assert status == {"epoll": "ok", "poll": "failed", "bare-epoll": "not measured"}
    assert cells["poll"]["reason"] == reason
    assert cells["bare-epoll"]["reason"] == "serves echo, churn, web, slow-readers only"
    assert lab_children(os.getpid()) == {}
    (block,) = blocks(document)
    assert block.load.unit == "operation"
    assert [(row.model, bool(row.how)) for row in block.rows] == [("epoll", True)]


#: A run with few files, so that the models are soon at work.
QUICKLY = (
    "from proact.cli import main; from proact.lab.files import bench; from proact.lab.files.fileset "
    f"import Amounts; few = {FEW}; bench.Amounts = lambda: few; main()"
)


@pytest.mark.parametrize(
    ("blow", "exit_code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("python", [("-c", QUICKLY), ("-m", "proact")], ids=["at work", "making the files"])
def test_a_run_that_is_stopped_leaves_nothing(
    python: tuple[str, str],
    blow: signal.Signals,
    exit_code: int,
    said: str,
    tmp_path: Path,
    wait_for_children: Callable[[int, int], dict[str, int]],
) -> None:
    command = [sys.executable, *python, "lab", "run", "--workload", "files-small", "--models", "epoll"]
    command += ["--repeat", "1"]
    with subprocess.Popen(
        [*command, "--duration", "30"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PROACT_LAB_DIR": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        assert "2 cells" in process.stderr.readline()
        if "-c" in python:
            assert set(wait_for_children(process.pid, 1)) == {"files"}  # there is no load process
        else:
            deadline = time.monotonic() + 20
            while not list(tmp_path.glob("*/small-0")):
                assert time.monotonic() < deadline
                time.sleep(0.001)
        assert list(tmp_path.iterdir())
        process.send_signal(blow)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (exit_code, f"proact: {said}\n")
        wait_for_children(process.pid, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_loads_of_files_have_no_size_and_no_rate() -> None:
    settings = Settings(("epoll",), ("echo", "files-small"), (1, 16), (1,), (64, 128), (None, 9.0))
    assert [load for load in settings.loads() if load[0] == "files-small"] == [
        ("files-small", 1, 1, SIZE, None),
        ("files-small", 16, 16, SIZE, None),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kqueue"], "invalid choice: 'kqueue'"),
        (["bare-epoll"], "invalid choice: 'bare-epoll'"),
        (["epoll", "--concurrency=0"], "argument --concurrency: 0 is not 1 or more"),
        (["epoll", "--workload=echo"], "invalid choice: 'echo'"),
    ],
)
def test_the_process_refuses_what_it_does_not_know(arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "proact.lab.files", *arguments, "--files={}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_files_from_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-c", QUICKLY, "lab", "run", "--workload", "files-append"]
    sheet = tmp_path / "files.csv"
    more = ["--models", "epoll", "--no-split", "--duration", "0.01", "--warmup", "0", f"--csv={sheet}"]
    environment = os.environ | {"PROACT_LAB_DIR": str(tmp_path)}
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    for concurrency in (1, 16):
        assert f"files-append: {concurrency} at once x 4 KiB" in done.stdout
    assert "ops/s" in done.stdout
    assert "operations/s" in done.stderr
    assert "epoll refuses it, EPERM" in sheet.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["files.csv"]


def test_files_stands_for_all_of_its_kinds() -> None:
    assert asked_loads("echo,files-append,files", "", "", "", "")["workloads"] == (
        "echo",
        "files-append",
        "files-small",
        "files-random",
        "files-direct",
    )
