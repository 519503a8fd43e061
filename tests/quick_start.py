"""Starts the commands without Python and the libraries being loaded each time, which is most of a start.

A template process loads the server as Python does, forgets the modules of this project again, and then forks for each
start. The fork loads the command's own modules anew, with its own arguments, environment and streams, and ends as any
process of Python does.

A test of the loading itself, of the command line or of limits that a shell sets starts Python instead, as do those with
other variables for Python in the environment, and all tests when it has REAL_STARTS.

    python quick_start.py NUMBER    is the template; NUMBER is the descriptor of the socket on which it gets its jobs
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from select import select
from tempfile import TemporaryFile
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent
PRODUCT = 'dsmr_rest'
REAL_STARTS = 'DSMR_TEST_REAL_STARTS'
"""In the environment: each process is started as people start it."""
LONGEST_JOB = 2**17
"""Bytes of a job: most of them are the environment."""
LONGEST_NUMBER = 32
DESCRIPTORS = 4
"""Of a job: where its process reports, and its stdin, stdout and stderr."""


class QuickProcess:
    """A process that the template has started: what the tests use of subprocess.Popen, with the same meanings."""

    def __init__(self, reports: socket.socket, stdout: IO[str] | None) -> None:
        """The first of the `reports` is the process's number, the second its status when it has ended."""
        self._reports = reports
        self.stdout = stdout
        self.returncode: int | None = None
        self.pid = self._next_number()

    def _next_number(self) -> int:
        number = self._reports.recv(LONGEST_NUMBER)
        assert number, 'the template has ended'
        return int(number)

    def poll(self) -> int | None:
        """The exit status, as that of `wait`; None while the process is running."""
        self._await_end(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; of a process that a signal has ended, its negated number. Raises TimeoutExpired."""
        self._await_end(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f'process {self.pid}', timeout or 0)
        return self.returncode

    def _await_end(self, seconds: float | None) -> None:
        if self.returncode is not None:
            return
        has_ended, _, _ = select([self._reports], [], [], seconds)
        if has_ended:
            self.returncode = os.waitstatus_to_exitcode(self._next_number())
            self._reports.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def strict_environment() -> dict[str, str]:
    """The environment of the tests, in which Python makes each warning an error unless it says otherwise."""
    return {'PYTHONWARNINGS': 'error', **os.environ}


def variables_for_python(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change how Python starts."""
    return {name: value for name, value in environment.items() if name.startswith('PYTHON')}


Process = subprocess.Popen[str] | QuickProcess


class Template:
    """The process from which others are forked."""

    def __init__(self) -> None:
        self._jobs, of_template = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = of_template.fileno()
        command = [sys.executable, __file__, str(number)]
        environment = strict_environment()
        self.variables_for_python = variables_for_python(environment)
        with of_template:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, pass_fds=[number], env=environment
            )

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int
    ) -> QuickProcess:
        """Starts the script and the arguments of a command. Nothing comes from its stdin.

        `stdout` is a descriptor or subprocess.PIPE, `stderr` a descriptor.
        """
        if stdout == subprocess.PIPE:
            reading, writing = os.pipe()
            try:
                reports = self._fork(command, environment, writing, stderr)
            finally:
                os.close(writing)
            return QuickProcess(reports, os.fdopen(reading))
        return QuickProcess(self._fork(command, environment, stdout, stderr), None)

    def _fork(
        self, command: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int
    ) -> socket.socket:
        """Returns where the process reports."""
        reports, of_process = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        job = Job(str(Path.cwd()), list(command), dict(environment))
        with of_process, Path(os.devnull).open() as stdin:
            descriptors = [of_process.fileno(), stdin.fileno(), stdout, stderr]
            socket.send_fds(self._jobs, [json.dumps(job).encode()], descriptors)
        return reports

    def close(self) -> None:
        """Ends the template. The processes that it has started are the tests' to end."""
        self._jobs.close()
        self._process.wait()


class _Current:
    """The template of the tests of this process, if there is one."""

    template: Template | None = None


@contextmanager
def from_template() -> Iterator[None]:
    """Within the block `start` forks from a template, unless REAL_STARTS forbids it."""
    if REAL_STARTS in os.environ:
        yield
        return
    with closing(Template()) as template:
        _Current.template = template
        try:
            yield
        finally:
            _Current.template = None


def start(
    command: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int
) -> Process:
    """Starts a command: Python, one of the project's scripts, and its arguments.

    `stdout` is a descriptor or subprocess.PIPE, `stderr` a descriptor.
    """
    template = _Current.template
    if template and variables_for_python(environment) == template.variables_for_python:
        _, *script = command
        return template.start(script, environment, stdout, stderr)
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, env=environment)


def finished(
    command: Sequence[str], environment: Mapping[str, str], seconds: float
) -> 'subprocess.CompletedProcess[str]':
    """A process that has ended, with its output. Raises TimeoutExpired when it takes longer."""
    with TemporaryFile('w+') as stdout, TemporaryFile('w+') as stderr:
        process = start(command, environment, stdout.fileno(), stderr.fileno())
        try:
            status = process.wait(seconds)
        finally:
            process.kill()
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, status, stdout.read(), stderr.read())


# The template


class Job(NamedTuple):
    """What a process is to run: in which folder, which script with which arguments, with which environment."""

    folder: str
    command: list[str]
    environment: dict[str, str]


def load_the_libraries() -> None:
    """Loads what the server loads when it starts, and forgets what of it is this project's."""
    sys.path[0] = str(ROOT)
    import dsmr_rest.commands.daemon  # noqa: F401, PLC0415 this is what the template is for

    for name in list(sys.modules):
        package, _, _ = name.partition('.')
        if package == PRODUCT:
            del sys.modules[name]


def next_job(jobs: socket.socket) -> Job:
    """The job of this process, which is a fork: the template never returns, but ends when there are no more jobs."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(jobs, LONGEST_JOB, DESCRIPTORS)
        if not message:
            jobs.close()
            sys.exit()
        if not os.fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    jobs.close()
    reports, *streams = descriptors
    fork_with_a_witness(reports)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return Job(*json.loads(message))


def fork_with_a_witness(reports: int) -> None:
    """Returns in a new process. Its parent, this one, reports its number, and when it has ended, its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process:
        os.write(reports, str(process).encode())
        _, status = os.waitpid(process, 0)
        os.write(reports, str(status).encode())
        os._exit(0)
    os.close(reports)


def become(job: Job) -> None:
    """Makes of this process what it would be if Python had been started for the job."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    script = Path(job.command[0])
    sys.path[0] = str(script.parent)
    sys.argv = job.command


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the witnesses
    load_the_libraries()
    job = next_job(socket.socket(fileno=int(sys.argv[1])))
    become(job)
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
