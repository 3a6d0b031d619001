"""The peer of the rows about calls: Python's xmlrpc.server with the same records.

Usage: mock_server.py URL USER PASSWORD. Fetches VM.get_all_records there once, then prints its port and
serves until its stdin ends."""
import os
import socketserver
import sys
import threading
import xmlrpc.client
import xmlrpc.server


class Handler(xmlrpc.server.SimpleXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"
    rpc_paths = ("/", "/RPC2")

    def log_request(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, xmlrpc.server.SimpleXMLRPCServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """Clients that leave are nothing to print."""


def success(value):
    return {"Status": "Success", "Value": value}


def main():
    url, user, password = sys.argv[1:]
    proxy = xmlrpc.client.ServerProxy(url)
    session = proxy.session.login_with_password(user, password, "2.20", "bench")["Value"]
    records = proxy.VM.get_all_records(session)["Value"]
    uuid = proxy.session.get_uuid(session, session)["Value"]
    proxy.session.logout(session)
    server = Server(("127.0.0.1", 0), Handler, logRequests=False)
    server.register_function(lambda session: success(records), "VM.get_all_records")
    server.register_function(lambda session, ref: success(uuid), "session.get_uuid")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
