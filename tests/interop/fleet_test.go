package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"loggregator/interop/gen/plumbing"
	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/fake"
	"loggregator/interop/internal/platform"
	"loggregator/interop/internal/sequence"
)

// Fleets in which some programs are the platform's: our readers against its routers, its readers and agents against ours.

func TestFleet_TrafficControllerReadsARouterThatHasOnlySubscribe(t *testing.T) {
	t.Parallel()
	doppler := fakeRouter(t, fake.Methods{Subscribe: true})
	controller := running(t, platform.TrafficController(certificates.trafficController, doppler.Addr))
	stream := closing(t, consumerOf(t, controller).Firehose("old-router", suiteToken, ""))
	subscription := next(t, "a subscription", doppler.V1, within)
	if subscription.Method != "Subscribe" || subscription.Request.ShardID != "old-router" {
		t.Fatal(subscription.Method, subscription.Request)
	}
	for number := range 10 {
		sent := v1Log(suiteApp, fmt.Sprint(number))
		must(t, subscription.SendEnvelope(sent))
		if got := next(t, "a log", stream.Envelopes, within); !proto.Equal(got, sent) {
			t.Fatalf("sent %v, got %v", sent, got)
		}
	}
	noErrors(t, stream)
}

func TestFleet_TrafficControllerMergesRoutersAndOutlivesThem(t *testing.T) {
	t.Parallel()
	one, two := fakeRouter(t, everyMethod), fakeRouter(t, everyMethod)
	controller := running(t, platform.TrafficController(certificates.trafficController, one.Addr, two.Addr))
	stream := closing(t, consumerOf(t, controller).Firehose("merged", suiteToken, clients.LogsOnly))
	first := next(t, "a subscription at the first", one.V1, within)
	second := next(t, "a subscription at the second", two.V1, within)
	if first.Request.GetFilter().GetLog() == nil {
		t.Fatal(first.Request)
	}
	expect := func(message string) {
		t.Helper()
		if got := next(t, message, stream.Envelopes, within); string(got.LogMessage.GetMessage()) != message {
			t.Fatalf("%v instead of %s", got, message)
		}
	}
	must(t, first.SendEnvelope(v1Log(suiteApp, "of the first")))
	expect("of the first")
	must(t, second.SendEnvelope(v1Log(suiteApp, "of the second")))
	expect("of the second")

	// One goes away; the client notices nothing, and hears of it again when it is back.
	one.Stop()
	must(t, second.SendEnvelope(v1Log(suiteApp, "of the survivor")))
	expect("of the survivor")
	again, err := fake.NewRouter(one.Addr, certificates.doppler, everyMethod)
	must(t, err)
	t.Cleanup(again.Stop)
	first = next(t, "a new subscription at the first", again.V1, patience)
	must(t, first.SendEnvelope(v1Log(suiteApp, "of the returned")))
	expect("of the returned")

	// A stream that the router ends is opened again.
	second.End(nil)
	second = next(t, "a new subscription at the second", two.V1, patience)
	must(t, second.SendEnvelope(v1Log(suiteApp, "after the end")))
	expect("after the end")
	noErrors(t, stream)
}

func TestFleet_TrafficControllerForwardsWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	doppler := fakeRouter(t, everyMethod)
	controller := running(t, platform.TrafficController(certificates.trafficController, doppler.Addr))
	stream := closing(t, consumerOf(t, controller).Firehose("opaque", suiteToken, ""))
	subscription := next(t, "a subscription", doppler.V1, within)
	// The client skips what it cannot parse, as the platform's does; the next one arrives.
	must(t, subscription.Send([]byte{0xff, 0xff}))
	unknown := v1Log(suiteApp, "with an unknown field")
	unknown.ProtoReflect().SetUnknown([]byte{0xfa, 0x3f, 0x01, 'x'})
	must(t, subscription.SendEnvelope(unknown))
	if got := next(t, "the log", stream.Envelopes, within); !proto.Equal(got, unknown) {
		t.Fatalf("sent %v, got %v", unknown, got)
	}
	noErrors(t, stream)
}

func TestFleet_ReverseLogProxyReadsGoRouters(t *testing.T) {
	t.Parallel()
	one, two := fakeRouter(t, everyMethod), fakeRouter(t, everyMethod)
	proxy := running(t, platform.ReverseLogProxy(certificates.reverseLogProxy, one.Addr, two.Addr))
	batches := readProxy(t, proxy, &v2.EgressBatchRequest{
		ShardId: "shard", DeterministicName: "name", UsePreferredTags: true,
		Selectors: []*v2.Selector{anyLog("source")},
	})
	first := next(t, "a subscription at the first", one.V2, within)
	second := next(t, "a subscription at the second", two.V2, within)
	forwarded := &v2.EgressBatchRequest{
		ShardId: "shard", DeterministicName: "name", UsePreferredTags: true,
		Selectors: []*v2.Selector{anyLog("source")},
	}
	for _, subscription := range []*fake.V2Subscription{first, second} {
		if !proto.Equal(subscription.Request, forwarded) {
			t.Fatal(subscription.Request)
		}
	}
	must(t, first.Send(v2Log("source", "of the first")))
	expectLogs(t, batches, "of the first")
	must(t, second.Send(v2Log("source", "of the second")))
	expectLogs(t, batches, "of the second")

	one.Stop()
	must(t, second.Send(v2Log("source", "of the survivor")))
	expectLogs(t, batches, "of the survivor")
	again, err := fake.NewRouter(one.Addr, certificates.doppler, everyMethod)
	must(t, err)
	t.Cleanup(again.Stop)
	first = next(t, "a new subscription at the first", again.V2, patience)
	must(t, first.Send(v2Log("source", "of the returned")))
	expectLogs(t, batches, "of the returned")
}

func TestFleet_ReverseLogProxySplitsWhatGoRoutersJoin(t *testing.T) {
	t.Parallel()
	doppler := fakeRouter(t, everyMethod)
	proxy := running(t, platform.ReverseLogProxy(certificates.reverseLogProxy, doppler.Addr))
	// This client takes 4 MiB, as every one does that does not ask for more.
	batches := readProxy(t, proxy, &v2.EgressBatchRequest{Selectors: []*v2.Selector{anyLog("")}})
	subscription := next(t, "a subscription", doppler.V2, within)
	var joined []*v2.Envelope
	payload := string(bytes.Repeat([]byte{'x'}, 500<<10))
	for number := range 18 {
		joined = append(joined, v2Log(fmt.Sprint(number), payload))
	}
	must(t, subscription.Send(joined...))
	for got := 0; got < len(joined); {
		for _, envelope := range next(t, "a batch", batches, within) {
			if envelope.SourceId != fmt.Sprint(got) || len(envelope.GetLog().GetPayload()) != len(payload) {
				t.Fatalf("%s instead of %d", envelope.SourceId, got)
			}
			got++
		}
	}
}

// traffic controllers put everything on one connection.
func goProxyOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(clients.ConsumerKeepAlive),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(clients.ProxyLimit)),
		grpc.WithDisableServiceConfig(),
	}
}

// A Go router cannot be asked for the end of a stream; it answers that it does not know how, and goes on sending.
func TestFleet_OurProgramsStopInFrontOfGoRouters(t *testing.T) {
	t.Parallel()
	doppler := fakeRouter(t, everyMethod)
	controller := running(t, platform.TrafficController(certificates.trafficController, doppler.Addr))
	proxy := running(t, platform.ReverseLogProxy(certificates.reverseLogProxy, doppler.Addr))
	consumer := consumerOf(t, controller)
	consumer.Once = true
	stream := closing(t, consumer.Firehose("v1", suiteToken, ""))
	reader, err := connectorTo(t, proxy).Stream(cancelled(t), &v2.EgressBatchRequest{
		ShardId: "v2", Selectors: []*v2.Selector{anyLog(suiteApp)},
	})
	must(t, err)

	v1, v2 := next(t, "a v1 subscription", doppler.V1, within), next(t, "a v2 subscription", doppler.V2, within)
	flood := func(send func(number int) error) {
		for number := 1; send(number) == nil; number++ {
		}
	}
	go flood(func(n int) error { return v1.SendEnvelope(v1Log(suiteApp, fmt.Sprint("number ", n))) })
	go flood(func(n int) error { return v2.Send(sequence.Log(suiteApp, n)) })
	trackers := map[*platform.Component]*sequence.Tracker{controller: sequence.Track(suiteApp), proxy: sequence.Track(suiteApp)}
	go func() {
		for envelope := range stream.Envelopes {
			trackers[controller].V1(envelope)
		}
	}()
	go func() {
		for batch := range reader.Batches {
			for _, envelope := range batch {
				trackers[proxy].V2(envelope)
			}
		}
	}()
	for component, tracker := range trackers {
		eventually(t, "logs flow", func() bool { return tracker.Last() > 1000 })
		must(t, component.Terminate())
	}
	for _, gone := range []<-chan struct{}{v1.Context.Done(), v2.Context.Done()} {
		select {
		case <-gone:
		case <-time.After(patience):
			t.Error("the router's stream does not end")
		}
	}
	for _, tracker := range trackers {
		if gaps := tracker.Gaps(1, tracker.Last()); len(gaps) != 0 {
			t.Errorf("up to %d, the client lacks %v", tracker.Last(), gaps)
		}
	}
}

func TestFleet_GoTrafficControllerPutsItsStreamsOnOneConnection(t *testing.T) {
	t.Parallel()
	router := startRouter(t)
	conn := dialRouter(t, router, goProxyOptions()...)
	client := plumbing.NewDopplerClient(conn)
	const streams = 1500
	all, leave := context.WithCancel(context.Background())
	defer leave()
	subscriptions := make([]plumbing.Doppler_BatchSubscribeClient, streams)
	for number := range subscriptions {
		stream, err := client.BatchSubscribe(all, &plumbing.SubscriptionRequest{
			Filter: &plumbing.Filter{AppID: fmt.Sprintf("app-%d", number)},
		})
		must(t, err)
		subscriptions[number] = stream
	}
	// Ours answers with headers as soon as the subscription stands; the platform's would with the first batch.
	for number, stream := range subscriptions {
		if _, err := stream.Header(); err != nil {
			t.Fatalf("subscription %d: %v", number, err)
		}
	}
	agent := clients.NewAgent(router.Addr(), clientTLS(t, certificates.metron, "doppler"), 1000)
	defer agent.Close()
	for number := range subscriptions {
		must(t, agent.Send([]*v2.Envelope{v2Log(fmt.Sprintf("app-%d", number), fmt.Sprintf("for %d", number))}))
	}
	for number, stream := range subscriptions {
		batch, err := stream.Recv()
		must(t, err)
		for _, payload := range batch.Payload {
			if got := string(decodeV1(t, payload).LogMessage.GetMessage()); got != fmt.Sprintf("for %d", number) {
				t.Fatalf("subscription %d got what was %s", number, got)
			}
		}
	}

	// Everybody leaves at once; the connection lives on.
	leave()
	for _, stream := range subscriptions {
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			t.Fatal(err)
		}
	}
	stream, err := client.BatchSubscribe(cancelled(t), &plumbing.SubscriptionRequest{ShardID: "afterwards"})
	must(t, err)
	_, err = stream.Header()
	must(t, err)
	if state := conn.GetState(); state != connectivity.Ready {
		t.Fatalf("the connection is %s", state)
	}
	must(t, agent.Send([]*v2.Envelope{v2Log("app", "afterwards")}))
	_, err = stream.Recv()
	must(t, err)
}

func TestFleet_GoReverseLogProxySpreadsItsStreams(t *testing.T) {
	t.Parallel()
	router := startRouter(t)
	// Twenty connections, each subscription on one of them.
	var pool []v2.EgressClient
	for range 20 {
		pool = append(pool, v2.NewEgressClient(dialRouter(t, router, goProxyOptions()...)))
	}
	ctx := cancelled(t)
	var streams []v2.Egress_BatchedReceiverClient
	for number := range 60 {
		stream, err := pool[number%len(pool)].BatchedReceiver(ctx, &v2.EgressBatchRequest{
			Selectors:        []*v2.Selector{anyLog(fmt.Sprintf("app-%d", number))},
			UsePreferredTags: true,
		})
		must(t, err)
		_, err = stream.Header()
		must(t, err)
		streams = append(streams, stream)
	}
	agent := clients.NewAgent(router.Addr(), clientTLS(t, certificates.metron, "doppler"), 1000)
	defer agent.Close()
	// As much as one message may hold for an agent; more than a client that asks for nothing would take.
	large := strings.Repeat("x", 6<<20)
	for number := range streams {
		log := v2Log(fmt.Sprintf("app-%d", number), "hello")
		log.Tags = map[string]string{"preferred": "yes"}
		log.DeprecatedTags = map[string]*v2.Value{"deprecated": {Data: &v2.Value_Integer{Integer: 7}}}
		must(t, agent.Send([]*v2.Envelope{log}))
	}
	must(t, agent.Send([]*v2.Envelope{v2Log("app-0", large)}))
	for number, stream := range streams {
		batch, err := stream.Recv()
		must(t, err)
		got := batch.Batch[0]
		// A router delivers tags as it got them; which the reader prefers is the proxy's affair.
		if got.SourceId != fmt.Sprintf("app-%d", number) || got.Tags["preferred"] != "yes" ||
			got.DeprecatedTags["deprecated"].GetInteger() != 7 {
			t.Fatal(got)
		}
	}
	batch, err := streams[0].Recv()
	must(t, err)
	if got := len(batch.Batch[0].GetLog().GetPayload()); got != len(large) {
		t.Fatalf("%d bytes", got)
	}
}

func TestFleet_GoAgentsFeedOurRouter(t *testing.T) {
	t.Parallel()
	router := startRouter(t)
	reader := dialRouter(t, router, goProxyOptions()...)
	stream, err := v2.NewEgressClient(reader).BatchedReceiver(cancelled(t), &v2.EgressBatchRequest{
		Selectors: []*v2.Selector{anyLog("")},
	})
	must(t, err)
	_, err = stream.Header()
	must(t, err)

	const agents, writes, perBatch, recycle = 3, 400, 10, 30
	seen := make(chan map[string]int)
	expected := agents * writes * (perBatch + 1)
	go func() {
		counts := map[string]int{}
		for got := 0; got < expected; {
			batch, err := stream.Recv()
			if err != nil {
				break
			}
			for _, envelope := range batch.Batch {
				counts[string(envelope.GetLog().GetPayload())]++
				got++
			}
		}
		seen <- counts
	}()

	failures := make(chan error, agents)
	for number := range agents {
		go func() { failures <- feed(t, router.Addr(), number, writes, perBatch, recycle) }()
	}
	for range agents {
		must(t, next(t, "an agent's end", failures, patience))
	}
	counts := next(t, "every envelope", seen, patience)
	if len(counts) != expected {
		t.Fatalf("%d different envelopes of %d", len(counts), expected)
	}
}

// feed is one agent's work: batches on one side, v1 envelopes on the other, every connection recycled again and again.
func feed(t *testing.T, addr string, agent, writes, perBatch, recycle int) error {
	config, err := certificates.metron.Client("doppler")
	if err != nil {
		return err
	}
	connections := clients.NewAgent(addr, config, recycle)
	defer connections.Close()
	for write := range writes {
		var batch []*v2.Envelope
		for number := range perBatch {
			batch = append(batch, v2Log("v2", fmt.Sprintf("v2 %d %d %d", agent, write, number)))
		}
		err := errors.Join(
			connections.Send(batch),
			connections.Push(v1Log("v1", fmt.Sprintf("v1 %d %d", agent, write))),
		)
		if err != nil {
			return err
		}
	}
	return nil
}
