"""An emitter and two consumers on Python's grpcio and websockets, against router, reverse log proxy and traffic
controller.

Usage: clients.py ROUTER RLP TRAFFIC_CONTROLLER CA_FILE CERT_FILE KEY_FILE PROTO_FOLDER

The first three are HOST:PORT. Needs grpcio, grpcio-tools and websockets; the messages are generated from the .proto files
into a temporary folder. Ends with 0 and one line per check, or with what went wrong.
"""

import pathlib
import ssl
import sys
import tempfile
import threading

import grpc
from grpc_tools import protoc
from websockets.sync.client import connect

PATIENCE = 30  # seconds; far above what anything here takes
COUNT = 3_000
SOURCE = "python"


def generate(protos, folder):
    """Generates the message modules, not the services: calls are made by path."""
    files = [str(path.relative_to(protos)) for path in sorted(protos.rglob("*.proto"))]
    status = protoc.main(["protoc", f"-I{protos}", f"--python_out={folder}", *files])
    assert status == 0, f"protoc: {status}"
    sys.path.insert(0, folder)


def channel(address, name, ca, cert, key):
    read = lambda path: pathlib.Path(path).read_bytes()
    credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
    return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)])


def log(payload):
    from loggregator.v2 import envelope_pb2

    return envelope_pb2.Envelope(source_id=SOURCE, log=envelope_pb2.Log(payload=payload))


def emit(router, payloads):
    """Hands batches of up to a hundred to the router and waits until it has read them all."""
    from loggregator.v2 import envelope_pb2, ingress_pb2

    batches = (
        envelope_pb2.EnvelopeBatch(batch=[log(payload) for payload in payloads[first : first + 100]])
        for first in range(0, len(payloads), 100)
    )
    call = router.stream_unary(
        "/loggregator.v2.Ingress/BatchSender",
        lambda message: message.SerializeToString(),
        ingress_pb2.BatchSenderResponse.FromString,
    )
    call(batches, timeout=PATIENCE, wait_for_ready=True)


def read_proxy(proxy):
    """The payloads that a reverse log proxy has for us."""
    from loggregator.v2 import egress_pb2, envelope_pb2

    selector = egress_pb2.Selector(source_id=SOURCE, log=egress_pb2.LogSelector())
    call = proxy.unary_stream(
        "/loggregator.v2.Egress/BatchedReceiver",
        lambda message: message.SerializeToString(),
        envelope_pb2.EnvelopeBatch.FromString,
    )
    request = egress_pb2.EgressBatchRequest(selectors=[selector], use_preferred_tags=True)
    for batch in call(request, timeout=PATIENCE, wait_for_ready=True):
        yield from (envelope.log.payload for envelope in batch.batch)


def read_firehose(address, ca):
    """The payloads of the logs of a firehose."""
    from dropsonde.events import envelope_pb2

    trust = ssl.create_default_context(cafile=ca)
    with connect(f"wss://{address}/firehose/python?filter-type=logs", ssl=trust, open_timeout=PATIENCE) as socket:
        while True:
            message = socket.recv(timeout=PATIENCE)
            assert isinstance(message, bytes), message
            envelope = envelope_pb2.Envelope.FromString(message)
            if envelope.logMessage.app_id == SOURCE:
                yield envelope.logMessage.message


def check(name, router, payloads):
    """Emits markers until the reader has one; then everything that is emitted must come, once and in order."""
    primed = threading.Event()

    def markers():
        while not primed.is_set():
            emit(router, [b"marker"])
            primed.wait(0.05)

    marking = threading.Thread(target=markers, daemon=True)
    marking.start()
    first = next(payloads)
    assert first == b"marker", first
    primed.set()
    marking.join()
    expected = [f"{name} {number}".encode() for number in range(COUNT)]
    emit(router, expected)
    received = []
    while len(received) < COUNT:
        payload = next(payloads)
        if payload != b"marker":
            received.append(payload)
    assert received == expected, f"{name}: not what was emitted"
    payloads.close()
    print(f"ok {name}", flush=True)


def main():
    router, proxy, controller, ca, cert, key, protos = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        generate(pathlib.Path(protos).resolve(), folder)
        emitter = channel(router, "doppler", ca, cert, key)
        check("rlp", emitter, read_proxy(channel(proxy, "reverselogproxy", ca, cert, key)))
        check("firehose", emitter, read_firehose(controller, ca))


if __name__ == "__main__":
    main()
