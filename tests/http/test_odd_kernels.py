"""A kernel that does not keep the timeouts of sockets: an emulator, for example. Its system calls are replaced here."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import (
    HOST,
    LAST_REQUEST,
    SERVER_COMMAND,
    StartServer,
    is_problem,
    split_responses,
    write_config,
)
from tests.faulty_meter import FaultyMeter
from tests.system_packages import program

SET_NOTHING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

int setsockopt(int socket, int level, int option, const void *value, socklen_t length)
{
    int (*real)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");
    if (level == SOL_SOCKET && option == SO_RCVTIMEO) {
        errno = EINVAL;
        return RESULT;
    }
    return real(socket, level, option, value, length);
}
"""
KERNELS = {'refuses': -1, 'ignores': 0}


@pytest.fixture(params=KERNELS)
def odd_kernel(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose kernel refuses SO_RCVTIMEO, or accepts it and does nothing."""
    library = tmp_path / 'kernel.so'
    result = KERNELS[request.param]
    compiler = [program('cc', 'gcc'), '-shared', '-fPIC', f'-DRESULT={result}', '-x', 'c', '-']
    command = [*compiler, '-o', str(library), '-ldl']
    subprocess.run(command, input=SET_NOTHING, text=True, check=True)
    return {'LD_PRELOAD': str(library)}


def test_a_kernel_without_timeouts_serves_everything(
    start_server: StartServer, meter: FaultyMeter, odd_kernel: dict[str, str]
) -> None:
    """Requests get their responses, and those that do not arrive in time are 408, by Python's own timeouts."""
    server = start_server(meter.port, environment=odd_kernel)
    for path in '/', '/telegram', '/health', '/dashboard':
        assert server.get(path).status == 200
    with server.connect() as slow:
        slow.sendall(LAST_REQUEST[:10].encode())
        pipelined = f'GET /telegram HTTP/1.1\r\n{HOST}\r\n' + LAST_REQUEST
        responses = split_responses(server.raw(pipelined.encode()))
        assert [response.status for response in responses] == [200, 404]
        received = b''
        while chunk := slow.recv(65536):
            received += chunk
    (refusal,) = split_responses(received)
    assert is_problem(refusal, 408, 'request_timeout')


def test_check_says_whose_timeouts_are_used(tmp_path: Path, odd_kernel: dict[str, str]) -> None:
    """--check reports that the timeouts of clients are Python's where those of the kernel do not hold."""
    config = write_config(tmp_path, {'port': '/dev/serial/none'}, {})
    report = subprocess.run(
        [*SERVER_COMMAND, '--check', '--config', config],
        capture_output=True,
        text=True,
        check=True,
        env=odd_kernel,
    )
    (line,) = [line for line in report.stdout.splitlines() if line.startswith('client timeouts')]
    assert 'by Python' in line
