"""Drives a doppler with grpcio, a gRPC implementation that shares no code with ours.

Usage: smoke.py HOST:PORT CA_FILE CERT_FILE KEY_FILE PROTO_FOLDER

Needs the packages grpcio and grpcio-tools; the messages are generated from our own .proto files into a
temporary folder. Ends with 0 and one line per check, or with the failed one.
"""

import pathlib
import sys
import tempfile
import threading

import grpc
from grpc_tools import protoc

PATIENCE = 20  # seconds; far above what anything here takes
LIMIT = 10 << 20  # the doppler's message limit, bytes


def generate(protos, folder):
    """Generates the message modules, not the services: calls are made by path."""
    files = [str(path.relative_to(protos)) for path in sorted(protos.rglob("*.proto"))]
    status = protoc.main(["protoc", f"-I{protos}", f"--python_out={folder}", *files])
    assert status == 0, f"protoc: {status}"
    sys.path.insert(0, folder)


def connect(address, ca, cert, key):
    read = lambda path: pathlib.Path(path).read_bytes()
    credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
    options = [
        ("grpc.ssl_target_name_override", "doppler"),
        ("grpc.max_send_message_length", 2 * LIMIT),
        ("grpc.max_receive_message_length", LIMIT),
        ("grpc.keepalive_time_ms", 10_000),
    ]
    channel = grpc.secure_channel(address, credentials, options)
    grpc.channel_ready_future(channel).result(timeout=PATIENCE)
    return channel


class Doppler:
    def __init__(self, channel):
        from loggregator.v2 import egress_pb2, envelope_pb2, ingress_pb2
        from plumbing import doppler_pb2

        self.channel, self.egress, self.v2, self.plumbing = channel, egress_pb2, envelope_pb2, doppler_pb2
        self.ingress = ingress_pb2

    def stream_in(self, path, messages, response):
        call = self.channel.stream_unary(path, lambda m: m.SerializeToString(), response.FromString)
        return call(iter(messages), timeout=PATIENCE)

    def unary(self, path, message, response):
        call = self.channel.unary_unary(path, lambda m: m.SerializeToString(), response.FromString)
        return call(message, timeout=PATIENCE)

    def stream_out(self, path, request, response):
        call = self.channel.unary_stream(path, lambda m: m.SerializeToString(), response.FromString)
        return call(request, timeout=PATIENCE)

    def log(self, source_id, payload):
        return self.v2.Envelope(source_id=source_id, log=self.v2.Log(payload=payload))

    def batched_receiver(self, source_id):
        selector = self.egress.Selector(source_id=source_id, log=self.egress.LogSelector())
        request = self.egress.EgressBatchRequest(selectors=[selector])
        return self.stream_out("/loggregator.v2.Egress/BatchedReceiver", request, self.v2.EnvelopeBatch)

    def primed(self, source_id, stream, payloads):
        """Sends markers until the stream delivers one: it is registered."""
        seen = threading.Event()

        def markers():
            while not seen.wait(0.02):
                yield self.v2.EnvelopeBatch(batch=[self.log(source_id, b"marker")])

        sender = threading.Thread(
            target=self.stream_in,
            args=("/loggregator.v2.Ingress/BatchSender", markers(), self.ingress.BatchSenderResponse),
        )
        sender.start()
        try:
            next(payloads(stream))
        finally:
            seen.set()
            sender.join()
        return (payload for payload in payloads(stream) if payload != b"marker")


def v2_payloads(stream):
    for message in stream:
        yield from (envelope.log.payload for envelope in message.batch)


def take(payloads, count):
    return [next(payloads) for _ in range(count)]


def check_batches(doppler):
    stream = doppler.batched_receiver("python-batches")
    payloads = doppler.primed("python-batches", stream, v2_payloads)
    expected = [str(number).encode() for number in range(5_000)]
    batches = [
        doppler.v2.EnvelopeBatch(batch=[doppler.log("python-batches", p) for p in expected[first : first + 100]])
        for first in range(0, len(expected), 100)
    ]
    answer = doppler.stream_in("/loggregator.v2.Ingress/BatchSender", batches, doppler.ingress.BatchSenderResponse)
    assert answer == doppler.ingress.BatchSenderResponse()
    assert take(payloads, len(expected)) == expected
    stream.cancel()


def check_singles(doppler):
    stream = doppler.batched_receiver("python-singles")
    payloads = doppler.primed("python-singles", stream, v2_payloads)
    expected = [str(number).encode() for number in range(500)]
    envelopes = [doppler.log("python-singles", payload) for payload in expected]
    doppler.stream_in("/loggregator.v2.Ingress/Sender", envelopes, doppler.ingress.IngressResponse)
    assert take(payloads, len(expected)) == expected
    stream.cancel()


def check_send(doppler):
    batch = doppler.v2.EnvelopeBatch(batch=[doppler.log("python-send", b"hello")])
    answer = doppler.unary("/loggregator.v2.Ingress/Send", batch, doppler.ingress.SendResponse)
    assert answer == doppler.ingress.SendResponse()


def check_v1(doppler):
    """v2 in, dropsonde out; and dropsonde in, the same bytes out."""
    from dropsonde.events import envelope_pb2, log_pb2

    request = doppler.plumbing.SubscriptionRequest(filter=doppler.plumbing.Filter(appID="python-v1"))
    path, response = "/plumbing.Doppler/BatchSubscribe", doppler.plumbing.BatchResponse
    stream = doppler.stream_out(path, request, response)

    def messages(stream):
        for batch in stream:
            for payload in batch.payload:
                yield envelope_pb2.Envelope.FromString(payload).logMessage.message

    payloads = doppler.primed("python-v1", stream, messages)
    log = log_pb2.LogMessage(message=b"pushed", message_type=log_pb2.LogMessage.OUT, timestamp=1, app_id="python-v1")
    envelope = envelope_pb2.Envelope(origin="o", eventType=envelope_pb2.Envelope.LogMessage, logMessage=log)
    data = doppler.plumbing.EnvelopeData(payload=envelope.SerializeToString())
    doppler.stream_in("/plumbing.DopplerIngestor/Pusher", [data], doppler.plumbing.PushResponse)
    assert next(payloads) == b"pushed"
    stream.cancel()


def check_statuses(doppler):
    def status(call):
        try:
            call()
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError("no error")

    empty = doppler.plumbing.SubscriptionRequest()
    code, details = status(lambda: doppler.unary("/plumbing.Doppler/RecentLogs", empty, doppler.plumbing.BatchResponse))
    assert code == grpc.StatusCode.UNIMPLEMENTED, code
    assert details == "unknown method RecentLogs for service plumbing.Doppler", details

    large = doppler.v2.EnvelopeBatch(batch=[doppler.log("python-large", b"x" * LIMIT)])
    code, details = status(
        lambda: doppler.stream_in("/loggregator.v2.Ingress/BatchSender", [large], doppler.ingress.BatchSenderResponse)
    )
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED, code
    assert details.startswith("grpc: received message larger than max ("), details


def check_many_streams(doppler):
    """Hundreds of subscriptions on the one connection, given up at once; the connection lives on."""
    sources = [f"python-many-{number}" for number in range(300)]
    streams = [doppler.batched_receiver(source) for source in sources]
    for number in (0, 150, 299):
        doppler.primed(sources[number], streams[number], v2_payloads)
    for stream in streams:
        stream.cancel()
    check_send(doppler)


def main():
    address, ca, cert, key, protos = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        generate(pathlib.Path(protos).resolve(), folder)
        channel = connect(address, ca, cert, key)
        doppler = Doppler(channel)
        for check in (check_batches, check_singles, check_send, check_v1, check_statuses, check_many_streams):
            check(doppler)
            print(f"ok {check.__name__.removeprefix('check_')}", flush=True)
        channel.close()


if __name__ == "__main__":
    main()
