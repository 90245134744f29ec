"""`proact doctor --seccomp-profile`: under it the ring works; without its addition proact falls back.

The profile is applied by libseccomp, which container runtimes use too, to child processes.
"""

import errno
import json
import platform
import re
import subprocess
import sys

import pytest
import seccomp
from support import children, loops

from proact.cli import seccomp as profiles
from proact.cli.error import CommandError

SUITE = ("test_tcp.py", "test_sock.py", "test_readers_writers.py", "test_subprocess.py", "test_file_ops.py")

# A runtime's default in Docker's own form, small: conditions, alternatives for machines, io_uring refused.
BASE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        *profiles.ordinary()["syscalls"],
        {
            "names": ["io_uring_setup", "io_uring_enter", "vhangup"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 38,
        },
        {"name": "vmsplice", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}},
        {"names": ["umount2"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["swapon"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["quotactl"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["get_mempolicy"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "arm64"]}},
        {"names": ["set_mempolicy"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        {"names": ["mbind"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64", "arm64"]}},
    ],
}

pytestmark = [
    pytest.mark.skipif(bool(loops.REFERENCE), reason="only proact has a profile"),
    pytest.mark.skipif(
        platform.machine() not in profiles.MACHINES, reason=f"no profile for {platform.machine()}"
    ),
]
applied = pytest.mark.skipif(
    seccomp.LIBSECCOMP is None, reason="no libseccomp here to apply a profile (apt-get install libseccomp2)"
)


@pytest.fixture
def narrow(tmp_path):
    return written(tmp_path / "narrow.json", profiles.profile(None))


@pytest.fixture
def default(tmp_path):
    """What a runtime allows by default: without the addition."""
    return written(tmp_path / "default.json", profiles.ordinary())


@pytest.fixture
def io_uring(proact):
    entry = proact.engine_report()["engines"]["io_uring"]
    if not entry["available"]:
        pytest.skip(f"refused here already, so nothing would be shown: {entry['reason']}")


def written(path, profile):
    path.write_text(json.dumps(profile))
    return path


def run(profile, *command, check=True, **extra):
    under = (
        [sys.executable, str(children.TESTS / "seccomp.py"), f"profile={profile}", "--"] if profile else []
    )
    done = subprocess.run(
        [*under, sys.executable, *map(str, command)],
        env=children.environment(**extra),
        cwd=children.TESTS,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def report(profile):
    """A loop's report about its engine, after some I/O of every kind."""
    return json.loads(run(profile, children.PROGRAMS / "engine_after_use.py").stdout)


def raw(profile):
    return json.loads(run(profile, children.PROGRAMS / "raw_calls.py").stdout)


@applied
def test_the_ring_is_whole_under_the_profile(io_uring, narrow):
    assert report(narrow) == report(None)
    assert report(narrow)["chosen"] == "io_uring"


@applied
def test_without_the_addition_proact_runs_on_epoll_and_says_why(io_uring, default):
    assert raw(default)["setup"] == errno.ENOSYS
    told = report(default)
    assert told["chosen"] == "epoll"
    reason = told["engines"]["io_uring"]["reason"]
    assert "ENOSYS" in reason
    assert "seccomp" in reason
    named = run(default, children.PROGRAMS / "engine.py", check=False, PROACT_ENGINE="io_uring")
    assert named.returncode == 1
    assert "seccomp" in named.stderr.splitlines()[-1]


@applied
@pytest.mark.parametrize("engines", ["io_uring", "epoll"])
def test_the_suite_passes_under_the_profile(io_uring, narrow, engines):
    words = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *SUITE)
    assert " passed" in run(narrow, *words, PROACT_TEST_ENGINES=engines).stdout


@applied
def test_no_more_of_io_uring_is_allowed_than_proact_uses(io_uring, narrow):
    answers = raw(narrow)
    assert answers["setup"] == errno.EFAULT
    for name in ("register", "register by index"):
        allowed = {opcode for opcode, error in enumerate(answers[name]) if error != errno.ENOSYS}
        assert allowed == set(profiles.REGISTER.values())
    allowed = {1 << bit for bit, error in enumerate(answers["enter"]) if error != errno.ENOSYS}
    assert sum(allowed) == profiles.ENTER


@applied
def test_the_rest_is_as_a_runtime_has_it(narrow):
    answers = raw(narrow)
    assert answers["clone"] == errno.EINVAL
    refused = {name: answers[name] for name in ("clone with namespaces", "clone3", "unshare")}
    assert set(refused.values()) == {errno.ENOSYS}, refused
    allowed = {family for family, error in enumerate(answers["sockets"]) if error != errno.ENOSYS}
    assert allowed == set(profiles.SOCKETS.values())


@applied
def test_a_runtimes_own_default_is_extended(io_uring, tmp_path):
    base = written(tmp_path / "base.json", BASE)
    made = json.loads(run(None, "-m", "proact", "doctor", "--seccomp-profile", "--base", base).stdout)
    assert report(written(tmp_path / "made.json", made))["chosen"] == "io_uring"


def test_conditions_are_resolved(tmp_path):
    made = profiles.profile(written(tmp_path / "base.json", BASE))
    assert made["defaultErrnoRet"] == 1
    assert made["architectures"][0] == profiles.MACHINES[platform.machine()][1]
    assert not {"archMap", "includes", "excludes", "name"} & {
        key for rule in (made, *made["syscalls"]) for key in rule
    }
    before = {name for rule in profiles.ordinary()["syscalls"] for name in rule["names"]}
    after = [rule for rule in made["syscalls"] if not before & set(rule["names"])]
    named = [name for rule in after for name in rule["names"]]
    assert named[:5] == ["vhangup", "vmsplice", "acct", "quotactl", "get_mempolicy"]
    assert set(named[5:]) == {"io_uring_setup", "io_uring_enter", "io_uring_register"}


def test_the_profile_has_the_form_of_the_oci(narrow):
    made = json.loads(narrow.read_text())
    assert set(made) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    for rule in made["syscalls"]:
        assert set(rule) <= {"names", "action", "errnoRet", "args", "comment"}
        assert rule["names"] == sorted(set(rule["names"]))
        for condition in rule["args"]:
            assert set(condition) <= {"index", "value", "valueTwo", "op"}
            assert condition["op"] in seccomp.COMPARISONS
    once = [name for rule in made["syscalls"] if not rule["args"] for name in rule["names"]]
    assert len(once) == len(set(once))


def test_the_page_about_containers_says_what_the_profile_has():
    page = (children.TESTS.parent / "docs" / "guide" / "containers.md").read_text()
    rows = dict(re.findall(r"(?m)^\| `(io_uring_\w+)` \| (.*) \|$", page))
    made = json.loads(run(None, "-m", "proact", "doctor", "--seccomp-profile").stdout)
    rules = [rule for rule in made["syscalls"] if rule["names"][0].startswith("io_uring_")]
    assert set(rows) == {name for rule in rules for name in rule["names"]}
    assert {rule["action"] for rule in rules} == {"SCMP_ACT_ALLOW"}
    # An opcode's opposite is named as that.
    named = rows["io_uring_register"].partition(" Not: ")[0]
    opcodes = {name.partition("_")[2] for name in profiles.REGISTER if name.startswith("REGISTER_")}
    assert set(re.findall(r"`(\w+)`", named)) == opcodes
    opposites = [name.partition("_")[2] for name in profiles.REGISTER if name.startswith("UNREGISTER_")]
    assert [f"`{name}` and its opposite" in named for name in opposites] == [True, True]
    assert named.startswith({7: "seven of"}[len(profiles.REGISTER)])
    named = rows["io_uring_enter"].partition(" Not ")[0]
    flags = {"GETEVENTS": 1, "EXT_ARG": 8, "REGISTERED_RING": 16, "NO_IOWAIT": 128}  # linux/io_uring.h
    assert sum(flags[name] for name in re.findall(r"`(\w+)`", named)) == profiles.ENTER


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": "SCMP_ACT_ERRNO"}', None])
def test_what_is_no_profile_is_refused(tmp_path, text):
    path = tmp_path / "base.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CommandError, match=r"base\.json"):
        profiles.profile(path)


def test_a_base_without_the_profile_is_a_mistake():
    done = run(None, "-m", "proact", "doctor", "--base", "x.json", check=False)
    assert (done.returncode, done.stderr) == (2, "proact: --base is for --seccomp-profile\n")
