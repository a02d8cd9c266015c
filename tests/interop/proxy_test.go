package interop

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/platform"
)

// The reverse log proxy as clients of its Egress service see it.

func connectorTo(t *testing.T, proxy *platform.Component) *clients.Connector {
	t.Helper()
	return &clients.Connector{Addr: proxy.Addr(), TLS: clientTLS(t, certificates.client, "reverselogproxy")}
}

// readProxy reads with a client that asks for no other limits than gRPC has; an error of its stream is one of the test.
func readProxy(t *testing.T, proxy *platform.Component, request *v2.EgressBatchRequest) <-chan []*v2.Envelope {
	t.Helper()
	stream, err := connectorTo(t, proxy).Stream(cancelled(t), request)
	must(t, err)
	t.Cleanup(func() {
		select {
		case err := <-stream.Errors:
			t.Errorf("an error at the client: %v", err)
		default:
		}
	})
	return stream.Batches
}

// expectLogs takes batches until these logs came, and nothing else.
func expectLogs(t *testing.T, batches <-chan []*v2.Envelope, messages ...string) {
	t.Helper()
	for len(messages) > 0 {
		for _, envelope := range next(t, "a batch with "+messages[0], batches, within) {
			if len(messages) == 0 || string(envelope.GetLog().GetPayload()) != messages[0] {
				t.Fatalf("%v instead of %v", envelope, messages)
			}
			messages = messages[1:]
		}
	}
}

// path is our router and our proxy, an emitter at one end.
type path struct {
	router, proxy *platform.Component
	emitter       *clients.Emitter
}

func newPath(t *testing.T) path {
	t.Helper()
	router := startRouter(t)
	proxy := running(t, platform.ReverseLogProxy(certificates.reverseLogProxy, router.Addr()))
	return path{router, proxy, emitterTo(t, router)}
}

func emitterTo(t *testing.T, router *platform.Component) *clients.Emitter {
	t.Helper()
	emitter, err := clients.NewEmitter(router.Addr(), clientTLS(t, certificates.metron, "doppler"))
	must(t, err)
	t.Cleanup(emitter.Close)
	return emitter
}

const marker = "marker"

// primed emits markers of this source, one of each kind, until the reader has one, and strains them out.
func primed(t *testing.T, emitter *clients.Emitter, batches <-chan []*v2.Envelope, like *v2.Envelope) <-chan *v2.Envelope {
	t.Helper()
	mark := proto.Clone(like).(*v2.Envelope)
	mark.InstanceId = marker
	for seen := false; !seen; {
		emitter.Emit(mark)
		emitter.Flush()
		select {
		case _, open := <-batches:
			if !open {
				t.Fatal("the stream is over")
			}
			seen = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	envelopes := make(chan *v2.Envelope, 1000)
	go func() {
		defer close(envelopes)
		for batch := range batches {
			for _, envelope := range batch {
				if envelope.InstanceId != marker {
					envelopes <- envelope
				}
			}
		}
	}()
	return envelopes
}

// describe names an envelope in the tests of selectors.
func describe(envelope *v2.Envelope) string {
	switch message := envelope.Message.(type) {
	case *v2.Envelope_Log:
		return envelope.SourceId + " log"
	case *v2.Envelope_Counter:
		return envelope.SourceId + " counter " + message.Counter.Name
	case *v2.Envelope_Gauge:
		return envelope.SourceId + " gauge " + strings.Join(slices.Sorted(maps.Keys(message.Gauge.Metrics)), "+")
	case *v2.Envelope_Timer:
		return envelope.SourceId + " timer"
	case *v2.Envelope_Event:
		return envelope.SourceId + " event"
	}
	return envelope.SourceId + " nothing"
}

func counterOf(source, name string) *v2.Selector {
	return &v2.Selector{SourceId: source, Message: &v2.Selector_Counter{Counter: &v2.CounterSelector{Name: name}}}
}

func gaugeOf(source string, names ...string) *v2.Selector {
	return &v2.Selector{SourceId: source, Message: &v2.Selector_Gauge{Gauge: &v2.GaugeSelector{Names: names}}}
}

func timerOf(source string) *v2.Selector {
	return &v2.Selector{SourceId: source, Message: &v2.Selector_Timer{Timer: &v2.TimerSelector{}}}
}

func eventOf(source string) *v2.Selector {
	return &v2.Selector{SourceId: source, Message: &v2.Selector_Event{Event: &v2.EventSelector{}}}
}

func TestProxy_EverySelector(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	type envelopes []*v2.Envelope
	for _, test := range []struct {
		name    string
		request *v2.EgressBatchRequest
		like    *v2.Envelope
		wanted  []string
	}{
		{"log", selecting(anyLog("")), v2Log("a", ""), []string{"a log", "b log"}},
		{"log of a source", selecting(anyLog("a")), v2Log("a", ""), []string{"a log"}},
		{"counter", selecting(counterOf("", "")), v2Counter("a", "x"), []string{"a counter x", "a counter y", "b counter x"}},
		{"counter by name", selecting(counterOf("", "x")), v2Counter("a", "x"), []string{"a counter x", "b counter x"}},
		{"counter by source and name", selecting(counterOf("a", "y")), v2Counter("a", "y"), []string{"a counter y"}},
		{"gauge", selecting(gaugeOf("")), v2Gauge("a", "cpu"), []string{"a gauge cpu", "a gauge cpu+memory", "b gauge cpu"}},
		{"gauge by name", selecting(gaugeOf("", "cpu")), v2Gauge("a", "cpu"), []string{"a gauge cpu", "b gauge cpu"}},
		{"gauge by names", selecting(gaugeOf("", "memory", "cpu")), v2Gauge("a", "cpu", "memory"), []string{"a gauge cpu+memory"}},
		{"timer", selecting(timerOf("")), v2Timer("a"), []string{"a timer", "b timer"}},
		{"timer of a source", selecting(timerOf("b")), v2Timer("b"), []string{"b timer"}},
		{"event", selecting(eventOf("")), v2Event("a"), []string{"a event", "b event"}},
		{"event of a source", selecting(eventOf("b")), v2Event("b"), []string{"b event"}},
		{"several", selecting(anyLog("a"), counterOf("", "x"), eventOf("b")), v2Log("a", ""),
			[]string{"a log", "a counter x", "b counter x", "b event"}},
		{"the legacy selector alone", &v2.EgressBatchRequest{LegacySelector: anyLog("b")}, v2Log("b", ""), []string{"b log"}},
		{"the legacy selector beside others is ignored",
			&v2.EgressBatchRequest{LegacySelector: anyLog("b"), Selectors: []*v2.Selector{timerOf("a")}},
			v2Timer("a"), []string{"a timer"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := primed(t, p.emitter, readProxy(t, p.proxy, test.request), test.like)
			// Last comes one that this reader wants: then everything before it has come.
			last := proto.Clone(test.like).(*v2.Envelope)
			last.InstanceId = "last"
			for _, envelope := range (envelopes{
				v2Log("a", "1"), v2Counter("a", "x"), v2Counter("a", "y"), v2Gauge("a", "cpu"), v2Gauge("a", "cpu", "memory"),
				v2Timer("a"), v2Event("a"), v2Log("b", "1"), v2Counter("b", "x"), v2Gauge("b", "cpu"), v2Timer("b"),
				v2Event("b"), {SourceId: "a"}, last,
			}) {
				p.emitter.Emit(envelope)
			}
			p.emitter.Flush()
			var got []string
			for {
				envelope := next(t, "an envelope", stream, within)
				if envelope.InstanceId == "last" {
					break
				}
				got = append(got, describe(envelope))
			}
			if !slices.Equal(got, test.wanted) {
				t.Fatalf("\ngot    %q\nwanted %q", got, test.wanted)
			}
		})
	}
}

func selecting(selectors ...*v2.Selector) *v2.EgressBatchRequest {
	return &v2.EgressBatchRequest{Selectors: selectors}
}

func TestProxy_TagsAsTheClientPrefersThem(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	log := v2Log("tagged", "hello")
	log.Tags = map[string]string{"both": "preferred", "new": "n"}
	log.DeprecatedTags = map[string]*v2.Value{
		"both":    {Data: &v2.Value_Text{Text: "deprecated"}},
		"text":    {Data: &v2.Value_Text{Text: "t"}},
		"integer": {Data: &v2.Value_Integer{Integer: -3}},
		"decimal": {Data: &v2.Value_Decimal{Decimal: 0.8}},
		"large":   {Data: &v2.Value_Decimal{Decimal: 1e21}},
		"empty":   {},
	}
	t.Run("preferred", func(t *testing.T) {
		request := selecting(anyLog("tagged"))
		request.UsePreferredTags = true
		stream := primed(t, p.emitter, readProxy(t, p.proxy, request), v2Log("tagged", ""))
		p.emitter.Emit(log)
		wanted := proto.Clone(log).(*v2.Envelope)
		wanted.DeprecatedTags = nil
		wanted.Tags = map[string]string{
			"both": "deprecated", "new": "n", "text": "t", "integer": "-3", "decimal": "0.8", "large": "1e+21",
		}
		if got := next(t, "the log", stream, within); !proto.Equal(got, wanted) {
			t.Fatalf("\ngot    %v\nwanted %v", got, wanted)
		}
	})
	t.Run("deprecated", func(t *testing.T) {
		stream := primed(t, p.emitter, readProxy(t, p.proxy, selecting(anyLog("tagged"))), v2Log("tagged", ""))
		p.emitter.Emit(log)
		wanted := proto.Clone(log).(*v2.Envelope)
		wanted.Tags = nil
		wanted.DeprecatedTags["both"] = &v2.Value{Data: &v2.Value_Text{Text: "preferred"}}
		wanted.DeprecatedTags["new"] = &v2.Value{Data: &v2.Value_Text{Text: "n"}}
		if got := next(t, "the log", stream, within); !proto.Equal(got, wanted) {
			t.Fatalf("\ngot    %v\nwanted %v", got, wanted)
		}
	})
}

func TestProxy_ShardsAndSingleEnvelopes(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	request := selecting(anyLog("shared"))
	request.ShardId = "shard"
	one := primed(t, p.emitter, readProxy(t, p.proxy, request), v2Log("shared", ""))
	two := primed(t, p.emitter, readProxy(t, p.proxy, request), v2Log("shared", ""))

	single, err := v2.NewEgressClient(dial(t, p.proxy.Addr(), clientTLS(t, certificates.client, "reverselogproxy"))).
		Receiver(cancelled(t), &v2.EgressRequest{Selectors: []*v2.Selector{anyLog("shared")}})
	must(t, err)
	_, err = single.Header()
	must(t, err)

	for number := range 100 {
		p.emitter.Emit(v2Log("shared", fmt.Sprint(number)))
	}
	p.emitter.Flush()
	byOne, byTwo, seen := 0, 0, map[string]bool{}
	for byOne+byTwo < 100 {
		var envelope *v2.Envelope
		count := &byOne
		select {
		case envelope = <-one:
		case envelope = <-two:
			count = &byTwo
		case <-time.After(within):
			t.Fatalf("%d and %d", byOne, byTwo)
		}
		*count++
		payload := string(envelope.GetLog().GetPayload())
		if seen[payload] {
			t.Fatalf("%s twice", payload)
		}
		seen[payload] = true
	}
	if difference := byOne - byTwo; difference > 30 || difference < -30 {
		t.Fatalf("%d and %d", byOne, byTwo)
	}
	for number := 0; number < 100; {
		envelope, err := single.Recv()
		must(t, err)
		if envelope.InstanceId == marker {
			continue
		}
		if got := string(envelope.GetLog().GetPayload()); got != fmt.Sprint(number) {
			t.Fatalf("%s instead of %d", got, number)
		}
		number++
	}
}

// The call can be opened; what is wrong with it is its final status.
func TestProxy_Refusals(t *testing.T) {
	t.Parallel()
	router := startRouter(t)
	proxy := platform.ReverseLogProxy(certificates.reverseLogProxy, router.Addr())
	proxy.Env["MAX_EGRESS_STREAMS"] = "2"
	running(t, proxy)
	client := v2.NewEgressClient(dial(t, proxy.Addr(), clientTLS(t, certificates.client, "reverselogproxy")))
	refused := func(request *v2.EgressBatchRequest, code codes.Code, message string) {
		t.Helper()
		stream, err := client.BatchedReceiver(cancelled(t), request)
		must(t, err)
		_, err = stream.Recv()
		if got := status.Convert(err); got.Code() != code || got.Message() != message {
			t.Fatalf("%v", err)
		}
	}
	refused(&v2.EgressBatchRequest{}, codes.InvalidArgument, "Selectors cannot be empty")
	refused(selecting(&v2.Selector{SourceId: "a"}), codes.InvalidArgument, "Selectors must have a Message")
	for range 2 {
		stream, err := client.BatchedReceiver(cancelled(t), selecting(anyLog("")))
		must(t, err)
		_, err = stream.Header()
		must(t, err)
	}
	refused(selecting(anyLog("")), codes.ResourceExhausted, "unable to create stream, max egress streams reached: 2")
	refused(&v2.EgressBatchRequest{}, codes.ResourceExhausted, "unable to create stream, max egress streams reached: 2")
}

// gRPC's own limit of 4 MiB is what clients take unless they ask for more.
func TestProxy_NoMessageIsLargerThanClientsTake(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	stream := primed(t, p.emitter, readProxy(t, p.proxy, selecting(anyLog("large"))), v2Log("large", ""))
	payload := strings.Repeat("x", 90<<10)
	const count = 200
	for number := range count {
		log := v2Log("large", payload)
		log.InstanceId = fmt.Sprint(number)
		p.emitter.Emit(log)
	}
	p.emitter.Flush()
	for number := range count {
		envelope := next(t, "a large log", stream, within)
		if envelope.InstanceId != fmt.Sprint(number) || len(envelope.GetLog().GetPayload()) != len(payload) {
			t.Fatalf("%s instead of %d", envelope.InstanceId, number)
		}
	}
}
