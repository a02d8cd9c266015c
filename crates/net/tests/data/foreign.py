"""The other side of tests/foreign.rs: a client and a server of the gRPC library for Python."""

import sys
from concurrent import futures

import grpc

SERVICE = "/test.Echo/"
LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def status_of(call):
    try:
        result = call()
        list(result) if hasattr(result, "__next__") else result
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def client(addr, ca, cert, key):
    credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
    options = LIMITS + [
        ("grpc.ssl_target_name_override", "doppler"),
        ("grpc.keepalive_time_ms", 10000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    channel = grpc.secure_channel(addr, credentials, options)
    unary = channel.unary_unary(SERVICE + "Unary")
    count = channel.unary_stream(SERVICE + "Count")
    collect = channel.stream_unary(SERVICE + "Collect")
    hang = channel.unary_stream(SERVICE + "Hang")

    assert unary(b"hello", timeout=20) == b"hello"
    assert unary(b"", timeout=20) == b""
    big = bytes(range(256)) * 40_000
    assert unary(big, timeout=20) == big
    assert list(count(b"x" * 2000, timeout=20)) == [b"\x07" * 2000] * 2000
    assert collect((b"y" * 5000 for _ in range(2000)), timeout=20) == b"2000 10000000"

    assert status_of(lambda: unary(b"x" * 10485761, timeout=20)) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "grpc: received message larger than max (10485761 vs. 10485760)",
    )
    assert status_of(lambda: unary(b"x" * 1000, compression=grpc.Compression.Gzip, timeout=20)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        'grpc: Decompressor is not installed for grpc-encoding "gzip"',
    )
    assert status_of(lambda: channel.unary_unary(SERVICE + "Fail")(b"", timeout=20)) == (
        grpc.StatusCode.UNKNOWN,
        "EOF",
    )
    assert status_of(lambda: channel.unary_unary(SERVICE + "Nope")(b"", timeout=20)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "unknown method Nope for service test.Echo",
    )
    assert status_of(lambda: hang(b"", timeout=0.2))[0] == grpc.StatusCode.DEADLINE_EXCEEDED

    calls = [hang(b"") for _ in range(1000)]
    for call in calls:
        call.cancel()
    assert unary(b"still here", timeout=20) == b"still here"
    channel.close()
    print("all good", flush=True)


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            SERVICE + "Unary": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
            SERVICE + "Count": grpc.unary_stream_rpc_method_handler(self.count),
            SERVICE + "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            SERVICE + "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }.get(details.method)

    def count(self, request, _context):
        for _ in request:
            yield b"\x07" * len(request)

    def collect(self, requests, _context):
        lengths = [len(request) for request in requests]
        return b"%d %d" % (len(lengths), sum(lengths))

    def fail(self, _request, context):
        context.abort(grpc.StatusCode.ABORTED, "100 % ä")


def server(ca, cert, key):
    credentials = grpc.ssl_server_credentials([(read(key), read(cert))], read(ca), True)
    running = grpc.server(futures.ThreadPoolExecutor(8), options=LIMITS)
    running.add_generic_rpc_handlers((Echo(),))
    port = running.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    print(port, flush=True)
    # Until our standard input is closed.
    sys.stdin.read()
    running.stop(1).wait()


if __name__ == "__main__":
    {"client": client, "server": server}[sys.argv[1]](*sys.argv[2:])
