package interop

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"loggregator/interop/gen/events"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/platform"
)

// The WebSockets of the traffic controller as clients on gorilla/websocket see them.

// webSocket is a connection by hand.
func webSocket(t *testing.T, controller *platform.Component, path string) (*websocket.Conn, *http.Response) {
	t.Helper()
	dialer := websocket.Dialer{
		TLSClientConfig: clientTLS(t, certificates.client, "trafficcontroller"), EnableCompression: true,
	}
	conn, response, err := dialer.DialContext(cancelled(t), "wss://"+controller.Addr()+path, nil)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn, response
}

func TestFirehose_TwoConsumersOfOneIdShareIt(t *testing.T) {
	t.Parallel()
	router := startRouter(t)
	controller := running(t, platform.TrafficController(certificates.trafficController, router.Addr()))
	emitter := emitterTo(t, router)
	var streams []<-chan *events.Envelope
	for range 2 {
		stream := closing(t, consumerOf(t, controller).Firehose("shared", "", clients.LogsOnly))
		streams = append(streams, stream.Envelopes)
	}
	// Both are members when both got a marker.
	seen := [2]bool{}
	for !seen[0] || !seen[1] {
		emitter.Emit(v2Log(marker, "marker"))
		emitter.Flush()
		select {
		case <-streams[0]:
			seen[0] = true
		case <-streams[1]:
			seen[1] = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	for number := range 100 {
		emitter.Emit(v2Log("app", fmt.Sprint(number)))
	}
	emitter.Flush()
	counts, got := [2]int{}, map[string]bool{}
	for len(got) < 100 {
		var envelope *events.Envelope
		member := 0
		select {
		case envelope = <-streams[0]:
		case envelope = <-streams[1]:
			member = 1
		case <-time.After(within):
			t.Fatalf("%d of 100, %v", len(got), counts)
		}
		message := string(envelope.GetLogMessage().GetMessage())
		if envelope.GetLogMessage().GetAppId() != "app" {
			continue
		}
		if got[message] {
			t.Fatalf("%s twice", message)
		}
		got[message] = true
		counts[member]++
	}
	if difference := counts[0] - counts[1]; difference > 30 || difference < -30 {
		t.Fatal(counts)
	}
}

func TestFirehose_Filters(t *testing.T) {
	t.Parallel()
	router := startRouter(t)
	controller := running(t, platform.TrafficController(certificates.trafficController, router.Addr()))
	emitter := emitterTo(t, router)
	for filter, wanted := range map[string][]events.Envelope_EventType{
		clients.LogsOnly:    {events.Envelope_LogMessage},
		clients.MetricsOnly: {events.Envelope_ValueMetric, events.Envelope_CounterEvent},
		"LOGS":              {events.Envelope_LogMessage, events.Envelope_ValueMetric, events.Envelope_CounterEvent},
	} {
		stream := closing(t, consumerOf(t, controller).Firehose("filtered-"+filter, "", filter))
		kinds := map[events.Envelope_EventType]int{}
		// All that should come has come three times.
		for deadline := time.Now().Add(within); slices.ContainsFunc(wanted, func(kind events.Envelope_EventType) bool {
			return kinds[kind] < 3
		}); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", filter, kinds)
			}
			emitter.Emit(v2Log("app", "hello"))
			emitter.Emit(v2Gauge("app", "cpu"))
			emitter.Emit(v2Counter("app", "requests"))
			emitter.Flush()
			for more := true; more; {
				select {
				case envelope := <-stream.Envelopes:
					kinds[envelope.GetEventType()]++
				case <-time.After(10 * time.Millisecond):
					more = false
				}
			}
		}
		if got := slices.Sorted(maps.Keys(kinds)); len(got) != len(wanted) {
			t.Errorf("%s: %v", filter, kinds)
		}
		noErrors(t, stream)
	}
}

func TestFirehose_HandshakeAndClose(t *testing.T) {
	s := newTrafficControllerSuite(t)
	// The client offers compression; it is never taken.
	conn, response := webSocket(t, s.controller, "/firehose/by-hand?")
	// Ours says what time it is, as in every answer.
	response.Header.Del("Date")
	names := slices.Sorted(maps.Keys(response.Header))
	if !slices.Equal(names, []string{"Connection", "Sec-Websocket-Accept", "Upgrade"}) ||
		response.Header.Get("Upgrade") != "websocket" || response.Header.Get("Connection") != "Upgrade" {
		t.Errorf("%v", response.Header)
	}
	pings := make(chan string, 10)
	conn.SetPingHandler(func(payload string) error {
		pings <- payload
		return conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(time.Second))
	})
	pongs := make(chan string, 10)
	conn.SetPongHandler(func(payload string) error {
		pongs <- payload
		return nil
	})
	type message struct {
		kind int
		data []byte
		err  error
	}
	messages := make(chan message, 10)
	go func() {
		for {
			kind, data, err := conn.ReadMessage()
			messages <- message{kind, data, err}
			if err != nil {
				return
			}
		}
	}()
	if payload := next(t, "the first ping", pings, within); payload != "" {
		t.Errorf("a ping with %q", payload)
	}
	subscription := next(t, "a subscription", s.doppler.V1, within)
	must(t, subscription.Send([]byte("anything")))
	if got := next(t, "the message", messages, within); got.kind != websocket.BinaryMessage || string(got.data) != "anything" {
		t.Errorf("%v", got)
	}
	// Clients that send data are not listened to.
	must(t, conn.WriteMessage(websocket.TextMessage, []byte("is anybody there?")))
	must(t, conn.WriteControl(websocket.PingMessage, []byte("payload"), time.Now().Add(within)))
	if payload := next(t, "a pong", pongs, within); payload != "payload" {
		t.Errorf("a pong with %q", payload)
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	must(t, conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(within)))
	var closed *websocket.CloseError
	if got := next(t, "the close", messages, within); !errors.As(got.err, &closed) || closed.Code != websocket.CloseNormalClosure {
		t.Errorf("%v", got.err)
	}
	next(t, "the end of the subscription", doneOf(subscription.Context.Done()), within)
}

// Pongs are sent by who reads. A consumer that does not take its envelopes sends none, and is closed for it.
func TestFirehose_AConsumerThatBlocksIsClosed(t *testing.T) {
	s := newTrafficControllerSuite(t)
	consumer := consumerOf(t, s.controller)
	consumer.Once = true
	stream := closing(t, consumer.Firehose("blocked", "", ""))
	subscription := next(t, "a subscription", s.doppler.V1, within)
	started := time.Now()
	// One is in the consumer's hand, and a ping behind it.
	must(t, subscription.SendEnvelope(v1Log(suiteApp, "first")))
	must(t, subscription.SendEnvelope(v1Log(suiteApp, "second")))
	next(t, "the end of the subscription", doneOf(subscription.Context.Done()), time.Minute)
	if blocked := time.Since(started); blocked < 25*time.Second {
		t.Errorf("after %s", blocked)
	}
	next(t, "the first", stream.Envelopes, within)
	next(t, "the second", stream.Envelopes, within)
	const reason = "Client did not respond to ping before keep-alive timeout expired."
	var closed *websocket.CloseError
	if err := next(t, "the close", stream.Errors, within); !errors.As(err, &closed) ||
		closed.Code != websocket.ClosePolicyViolation || closed.Text != reason {
		t.Errorf("%v", err)
	}
}
