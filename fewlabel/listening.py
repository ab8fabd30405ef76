"""Where a page of this machine listens, and who reaches it there."""

import socket
from ipaddress import ip_address
from typing import Final

from fewlabel.errors import UserError

__all__ = ["address_of", "is_local", "listen"]

_TRIED_PORTS: Final = 20


def is_local(host: str) -> bool:
    """Whether `host`, a name or address to listen at, is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket at the first free port of `port` and the 19 after it; at any for port 0.

    Raises:
        UserError: none of them is free, the address is not of this machine, or the port is none.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}; a port lies between 1 and 65535, and 0 takes any that is free.")
    last = min(port + _TRIED_PORTS - 1, 65535) if port else 0
    reason = ""
    for candidate in range(port, last + 1):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            return socket.create_server((host, candidate), family=family)
        except socket.gaierror as error:
            raise UserError(f"--host {host} is no address of this machine: {error.strerror}.") from error
        except OSError as error:
            reason = error.strerror or str(error)
    raise UserError(
        f"Can't listen at {host}, ports {port} to {last}: {reason}. Choose another --port, or 0 for any that is free; "
        "--host must be an address of this machine."
    )


def address_of(listening: socket.socket) -> str:
    """What to type into a browser of this machine; for all of its addresses, the loopback."""
    host, port = listening.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"
