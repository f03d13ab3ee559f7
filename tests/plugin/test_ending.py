"""A run that does not come to its end is red, with a sentence, whatever ended its process; others end as they did."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from helpers import LIMIT

from robustness.util import supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child process is waited for on Linux alone")
SENTENCE = "robustness: the run did not finish: "


@pytest.fixture
def run(project):
    """Run tests whose code is given, in the project whose conftest hands over a model; give status and output."""

    def run(code, *arguments, **environment):
        project.write("test_it.py", "import atexit, ctypes, os, signal, sys, threading, time\n" + textwrap.dedent(code))
        process = project.start("test_it.py", *arguments, **environment)
        out, err = process.communicate(timeout=LIMIT)
        return process.returncode, out, err

    return run


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("os._exit(0)", 1),
        ("os._exit(3)", 3),
        ("__import__('posix')._exit(0)", 1),
        ("ctypes.CDLL(None)._exit(0)", 1),
        ("threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(600)", 1),
        ("os.execv(sys.executable, [sys.executable, '-c', ''])", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(600)", -signal.SIGALRM),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_what_ends_the_process_is_red_with_a_sentence(run, code, status):
    """Catches: exit status 0 and no word of a run in whose middle a model has left."""
    got, out, err = run(f"def test_it():\n    {code}\n", "-p", "no:faulthandler")
    assert got == status
    assert err.count(SENTENCE) == 1
    assert " passed" not in out


@pytest.mark.parametrize("where", ["conftest.py", "test_it.py"])
def test_an_import_that_ends_the_process(run, project, where):
    project.write("exits.py", "import os\nos._exit(0)\n")
    if where == "conftest.py":
        project.write("conftest.py", "import exits\n")
    got, _, err = run("import exits\n" if where == "test_it.py" else "", "--robustness-card", "models/tiny.toml")
    assert got == 1
    assert SENTENCE in err


@pytest.mark.parametrize(("held", "status"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("code", ["atexit.register(os._exit, 0)", "pass"])
def test_what_happens_after_the_end_changes_nothing(run, code, held, status):
    """Catches: a red run that an exit handler makes green, and a green one that is called unfinished."""
    got, _, err = run(f"def test_it():\n    {code}\n    assert {held}\n")
    assert got == status
    assert SENTENCE not in err


CONTROLLER_ENDS = """
import os
def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # the environment would name the worker that this test runs on
        config.pluginmanager.register(Ends())
class Ends:
    def pytest_runtest_logreport(self, report):
        os._exit(0)
"""


def test_workers_and_their_controller(run, project):
    """Catches: a worker, or the process that hears all workers, that leaves with status 0."""
    got, out, _ = run("def test_it():\n    os._exit(0)\n", "-n", "2")
    assert got == 1
    assert "crashed" in out
    conftest = (project.root / "conftest.py").read_text()
    project.write("conftest.py", conftest + CONTROLLER_ENDS)
    got, _, err = run("def test_it():\n    pass\n", "-n", "2")
    assert got == 1
    assert SENTENCE in err


@pytest.mark.parametrize("place", ["pass  # here", 'log("modules")', "import os, signal"])
@pytest.mark.parametrize("command", ["pytest", "robustness sweep"])
def test_a_model_that_leaves_in_its_forward_its_factory_or_its_import(project, place, command):
    project.fill()
    for entry in (project.store / "evidence").glob("??/*"):
        entry.unlink()
    project.edit(project.net, (place, "import os; os._exit(0)"))
    arguments = ("suites/test_clean.py",) if command == "pytest" else ()
    if command == "pytest":
        process = project.start(*arguments)
    else:
        process = subprocess.Popen(
            [sys.executable, "-m", "robustness.cli.main", "sweep", "--card", "models/tiny.toml"],
            cwd=project.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        project.started.append(process)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert SENTENCE in err


WAITS = """
def test_it():
    print("pid", os.getpid(), file=sys.__stderr__, flush=True)
    time.sleep(600)
"""


def begun(stream):
    """Read until the test runs; give the number of its process."""
    for line in stream:
        if "pid " in line:
            return int(line.split("pid ")[1])
    raise AssertionError("it ended")


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 2), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_signals_reach_the_run(project, sent, status):
    """Catches: an interruption that nobody hears, and a run that goes on after its parent was killed."""
    project.write("test_it.py", "import os, sys, time\n" + WAITS)
    process = project.start("test_it.py", "-s")
    child = begun(process.stderr)
    assert child != process.pid
    process.send_signal(sent)
    out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == status
    assert ("KeyboardInterrupt" in out) == (sent == signal.SIGINT)
    while True:  # until it is gone
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)


def test_ctrl_c_at_a_terminal_interrupts_once(project):
    """Catches: an interruption that the terminal sends to both, passed on as a second one."""
    project.write("test_it.py", "import os, sys, time\n" + WAITS)
    project.write(
        "conftest.py",
        (project.root / "conftest.py").read_text()
        + "import time\ndef pytest_sessionfinish():\n    time.sleep(1)\n    print('finished as it should')\n",
    )
    child, terminal = pty.fork()
    if not child:
        os.chdir(project.root)
        os.execv(sys.executable, [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", "test_it.py"])
    seen, sent = b"", False
    while True:
        try:
            some = os.read(terminal, 4096)
        except OSError:
            break
        seen += some
        if not some:
            break
        if b"pid " in seen and not sent:
            sent = bool(os.write(terminal, b"\x03"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert b"finished as it should" in seen
    assert seen.count(b"KeyboardInterrupt !!!") == 1


def test_a_program_that_calls_pytest_goes_on_after_it(project):
    """Catches: a fork inside of a program, which then does twice what follows."""
    project.write("test_it.py", "import os\ndef test_it():\n    open('runs', 'a').write(f'{os.getpid()} ')\n")
    project.write(
        "program.py", "import os, pytest\npytest.main(['test_it.py'])\nopen('ends', 'a').write(f'{os.getpid()} ')\n"
    )
    subprocess.run([sys.executable, "program.py"], cwd=project.root, check=True, timeout=LIMIT, capture_output=True)
    assert (project.root / "runs").read_text() == (project.root / "ends").read_text()


def program(code):
    """Run a program of its own; give status and standard error."""
    begin = "import os, sys, threading, time\nfrom robustness.util import supervisor\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + textwrap.dedent(code)], timeout=LIMIT, capture_output=True, text=True
    )
    return done.returncode, done.stderr


def test_threads_that_are_left_behind_hold_no_run():
    code = """
        supervisor.AFTER = 1.0
        tell = supervisor.supervised()
        tell("begun")
        tell("{}")
        threading.Thread(target=time.sleep, args=(600,)).start()
    """
    for status in (0, 7):
        got, err = program(code.format(status))
        assert got == status
        assert "running threads" in err


def test_a_run_that_is_stopped_goes_on_when_it_is_continued():
    """Catches: a wait whose time ran out meanwhile, which Python takes for a signal with any number."""
    code = """
        from robustness.util import supervisor
        tell = supervisor.supervised()
        tell("begun")
        print("ready", flush=True)
        input()
        tell("0")
    """
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], text=True, **ends)
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * supervisor.TURN)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
    _, err = process.communicate("\n", timeout=LIMIT)
    assert (process.returncode, err) == (0, "")


def test_where_nobody_can_wait_the_exit_itself_is_watched():
    """What holds on other systems, and beside other threads."""
    begin = "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\ntell = supervisor.supervised()\n"
    got, err = program(begin + "os._exit(0)")
    assert (got, err.count(SENTENCE)) == (1, 1)
    got, err = program(begin + "tell('begun')\ntell('4')\nos._exit(0)")
    assert (got, err) == (4, "")
    got, err = program(begin + "os.fork() or os._exit(0)\nos.wait()\ntell('0')\n")
    assert (got, err) == (0, "")
