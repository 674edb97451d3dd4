"""Joins standard input and output to a unix socket, as ``docker system dial-stdio`` does."""

from __future__ import annotations

import os
import socket
import sys
import threading

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])


def outward() -> None:
    while data := os.read(0, 65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


threading.Thread(target=outward, daemon=True).start()
while data := connection.recv(65536):
    os.write(1, data)
