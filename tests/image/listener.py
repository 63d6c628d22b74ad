"""Listens in place of a Hub, and writes a line to FILE for each connection, which it closes.

listener.py PORT_FILE FILE
"""

import os
import socket
import sys

port_file, seen = sys.argv[1:]
server = socket.create_server(("127.0.0.1", 0))
with open(port_file + ".new", "w") as out:
    out.write(str(server.getsockname()[1]))
os.rename(port_file + ".new", port_file)
while True:
    connection, _ = server.accept()
    with open(seen, "a") as out:
        out.write("connection\n")
    connection.close()
