package interop

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"loggregator/interop/gen/events"
	"loggregator/interop/gen/plumbing"
	v2 "loggregator/interop/gen/v2"
)

// What the platform's own suite for routers expects, row by row.

const (
	primer = "prime-message"
	// The suite's polling limit is a second; ours is what a busy machine needs.
	within = 10 * time.Second
	// The suite's ingress streams have this deadline.
	ingressDeadline = 10 * time.Second
	settle          = 300 * time.Millisecond
)

type routerSuite struct {
	*testing.T
	conn *grpc.ClientConn
}

func newRouterSuite(t *testing.T) routerSuite {
	t.Parallel()
	return routerSuite{t, dialRouter(t, startRouter(t))}
}

func (s routerSuite) subscribe(request *plumbing.SubscriptionRequest) <-chan []byte {
	stream, err := plumbing.NewDopplerClient(s.conn).Subscribe(cancelled(s.T), request)
	must(s.T, err)
	return received(s.T, stream)
}

func (s routerSuite) batchedReceiver() <-chan []*v2.Envelope {
	stream, err := v2.NewEgressClient(s.conn).BatchedReceiver(cancelled(s.T), &v2.EgressBatchRequest{
		Selectors: []*v2.Selector{anyLog("")},
	})
	must(s.T, err)
	batches := make(chan []*v2.Envelope, 1000)
	go func() {
		defer close(batches)
		for {
			batch, err := stream.Recv()
			if err != nil {
				return
			}
			batches <- batch.Batch
		}
	}()
	return batches
}

func (s routerSuite) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), ingressDeadline)
	s.Cleanup(cancel)
	return ctx
}

func (s routerSuite) pusher() func(*events.Envelope) []byte {
	stream, err := plumbing.NewDopplerIngestorClient(s.conn).Pusher(s.context())
	must(s.T, err)
	return func(envelope *events.Envelope) []byte {
		payload, err := proto.Marshal(envelope)
		must(s.T, err)
		must(s.T, stream.Send(&plumbing.EnvelopeData{Payload: payload}))
		return payload
	}
}

func (s routerSuite) sender() func(*v2.Envelope) {
	stream, err := v2.NewIngressClient(s.conn).Sender(s.context())
	must(s.T, err)
	return func(envelope *v2.Envelope) { _ = stream.Send(envelope) }
}

// prime emits markers until each subscriber has one: its registration is effective.
func (s routerSuite) prime(app string, subscribers ...<-chan []byte) {
	s.Helper()
	push := s.pusher()
	missing := len(subscribers)
	seen := make([]bool, missing)
	for deadline := time.Now().Add(within); missing > 0; {
		if time.Now().After(deadline) {
			s.Fatal("the subscribers are not registered")
		}
		push(v1Log(app, primer))
		time.Sleep(10 * time.Millisecond)
		for number, subscriber := range subscribers {
			select {
			case <-subscriber:
				if !seen[number] {
					seen[number] = true
					missing--
				}
			default:
			}
		}
	}
}

// message is the next payload that is no marker.
func (s routerSuite) message(subscriber <-chan []byte) []byte {
	s.Helper()
	for {
		payload := next(s.T, "a log", subscriber, within)
		if string(decodeV1(s.T, payload).LogMessage.GetMessage()) != primer {
			return payload
		}
	}
}

// only markers follow, for a while.
func (s routerSuite) quiet(subscriber <-chan []byte) {
	s.Helper()
	timeout := time.After(settle)
	for {
		select {
		case payload := <-subscriber:
			if message := decodeV1(s.T, payload).LogMessage.GetMessage(); string(message) != primer {
				s.Fatalf("one log too many: %q", message)
			}
		case <-timeout:
			return
		}
	}
}

func TestRouterRow1_V1SubscriberGetsPushedLogs(t *testing.T) {
	s := newRouterSuite(t)
	subscriber := s.subscribe(&plumbing.SubscriptionRequest{ShardID: "shard-id"})
	s.prime("app", subscriber)
	push := s.pusher()
	every(t, 500*time.Millisecond, func() { push(v1Log("app", "hello")) })
	if kind := decodeV1(t, s.message(subscriber)).GetEventType(); kind != events.Envelope_LogMessage {
		t.Fatal(kind)
	}
}

func TestRouterRow2_DifferentShardsBothReceive(t *testing.T) {
	s := newRouterSuite(t)
	one := s.subscribe(&plumbing.SubscriptionRequest{ShardID: "shard-id-1"})
	two := s.subscribe(&plumbing.SubscriptionRequest{ShardID: "shard-id-2"})
	s.prime("app", one, two)
	s.pusher()(v1Log("app", "hello"))
	s.message(one)
	s.message(two)
}

func TestRouterRow3_AShardIsSharedAboutEqually(t *testing.T) {
	s := newRouterSuite(t)
	one := s.subscribe(&plumbing.SubscriptionRequest{ShardID: "shard-id"})
	two := s.subscribe(&plumbing.SubscriptionRequest{ShardID: "shard-id"})
	s.prime("app", one, two)
	push := s.pusher()
	for range 100 {
		push(v1Log("app", "hello"))
	}
	byOne, byTwo := 0, 0
	for byOne+byTwo < 100 {
		var payload []byte
		count := &byOne
		select {
		case payload = <-one:
		case payload = <-two:
			count = &byTwo
		case <-time.After(within):
			t.Fatalf("%d and %d", byOne, byTwo)
		}
		if string(decodeV1(t, payload).LogMessage.GetMessage()) != primer {
			*count++
		}
	}
	s.quiet(one)
	s.quiet(two)
	if difference := byOne - byTwo; difference > 30 || difference < -30 {
		t.Fatalf("%d and %d", byOne, byTwo)
	}
}

func TestRouterRow4_ALogWithoutSourceArrivesOnce(t *testing.T) {
	s := newRouterSuite(t)
	subscriber := s.subscribe(&plumbing.SubscriptionRequest{ShardID: "shard-id"})
	s.prime("app", subscriber)
	s.sender()(v2Log("", "hello"))
	s.message(subscriber)
	s.quiet(subscriber)
}

func TestRouterRow5_ALogWithoutSourceArrivesOnceAtALogFilter(t *testing.T) {
	s := newRouterSuite(t)
	subscriber := s.subscribe(&plumbing.SubscriptionRequest{
		ShardID: "shard-id",
		Filter:  &plumbing.Filter{Message: &plumbing.Filter_Log{Log: &plumbing.LogFilter{}}},
	})
	s.prime("app", subscriber)
	s.sender()(v2Log("", "hello"))
	s.message(subscriber)
	s.quiet(subscriber)
}

func TestRouterRow6_AnAppStreamCarriesTheVeryBytes(t *testing.T) {
	s := newRouterSuite(t)
	subscriber := s.subscribe(&plumbing.SubscriptionRequest{
		ShardID: "foo",
		Filter:  &plumbing.Filter{AppID: "some-test-app-id"},
	})
	s.prime("some-test-app-id", subscriber)
	pushed := s.pusher()(v1Log("some-test-app-id", "hello"))
	if got := s.message(subscriber); string(got) != string(pushed) {
		t.Fatalf("pushed   %x\nreceived %x", pushed, got)
	}
}

func TestRouterRow7_BatchedReceiverGetsPushedLogs(t *testing.T) {
	s := newRouterSuite(t)
	batches := s.batchedReceiver()
	push := s.pusher()
	every(t, 500*time.Millisecond, func() { push(v1Log("app", "hello")) })
	if batch := next(t, "a batch", batches, within); len(batch) == 0 {
		t.Fatal("an empty batch")
	}
}

func TestRouterRow8_BatchedReceiverGetsSentLogs(t *testing.T) {
	s := newRouterSuite(t)
	batches := s.batchedReceiver()
	send := s.sender()
	every(t, 500*time.Millisecond, func() { send(v2Log("app", "hello")) })
	if batch := next(t, "a batch", batches, within); len(batch) == 0 {
		t.Fatal("an empty batch")
	}
}

func TestRouterRow9_ALogSelectorGetsLogsOnly(t *testing.T) {
	s := newRouterSuite(t)
	batches := s.batchedReceiver()
	send := s.sender()
	every(t, 10*time.Millisecond, func() {
		send(v2Counter("app", "counter"))
		send(v2Log("app", "hello"))
	})
	for range 5 {
		for _, envelope := range next(t, "a batch", batches, within) {
			if envelope.GetLog() == nil {
				t.Fatalf("not a log: %v", envelope)
			}
		}
	}
}
