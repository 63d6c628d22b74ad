"""A proxy that knows two hosts behind TLS: hub.example and cdn.example.

proxy.py PORT_FILE SEEN CERTIFICATES HUB_PORT CDN_PORT

It answers CONNECT, ends TLS with the certificate of the directory CERTIFICATES, and passes on to the fake
Hub's port, or to that of its CDN. SEEN gets a line for each name that it was asked for.
"""

import os
import socket
import ssl
import sys
import threading

port_file, seen, certificates, hub_port, cdn_port = sys.argv[1:]
PORTS = {"hub.example:443": int(hub_port), "cdn.example:443": int(cdn_port)}
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{certificates}/hub.pem", f"{certificates}/hub.key")


def serve(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    name = head.split()[1].decode()
    with open(seen, "a") as out:
        out.write(f"{name}\n")
    if not head.startswith(b"CONNECT ") or name not in PORTS:
        client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        return client.close()
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    inner = context.wrap_socket(client, server_side=True)
    upstream = socket.create_connection(("127.0.0.1", PORTS[name]))
    threading.Thread(target=pass_on, args=(inner, upstream), daemon=True).start()
    pass_on(upstream, inner)


def pass_on(source, target):
    try:
        while block := source.recv(65536):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def guarded(client):
    try:
        serve(client)
    except (OSError, ssl.SSLError, IndexError):
        client.close()


server = socket.create_server(("127.0.0.1", 0))
with open(port_file + ".new", "w") as out:
    out.write(str(server.getsockname()[1]))
os.rename(port_file + ".new", port_file)
while True:
    connection, _ = server.accept()
    threading.Thread(target=guarded, args=(connection,), daemon=True).start()
