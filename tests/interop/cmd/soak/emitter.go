package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/sequence"
)

const (
	tick = 10 * time.Millisecond
	// What was sent less than this before a stream broke may not have arrived.
	doubt = 2 * time.Second
	// Agents look this often whether their router is back.
	poll = time.Second
)

// span is a run of numbers, both ends included.
type span = sequence.Gap

// emitter numbers logs of a source of its own and hands them to one router, as an agent does.
type emitter struct {
	source string
	client v2.IngressClient
	lock   sync.Mutex
	sent   int
	recent []mark
	// inDoubt are numbers that were on their way when a stream broke; firsts the first number of each stream.
	inDoubt []span
	firsts  []int
	quit    chan struct{}
	done    chan struct{}
}

// mark is when a number was sent.
type mark struct {
	number int
	at     time.Time
}

func (d *deployment) emitters() ([]*emitter, error) {
	var emitters []*emitter
	for number, router := range d.routers {
		config, err := d.files["client"].Client("doppler")
		if err != nil {
			return nil, err
		}
		conn, err := clients.Dial(router.Addr(), config, grpc.WithKeepaliveParams(clients.AgentKeepAlive))
		if err != nil {
			return nil, err
		}
		emitters = append(emitters, &emitter{
			source: fmt.Sprintf("router-%d", number+1), client: v2.NewIngressClient(conn),
			quit: make(chan struct{}), done: make(chan struct{}),
		})
	}
	return emitters, nil
}

func (e *emitter) count() int {
	e.lock.Lock()
	defer e.lock.Unlock()
	return e.sent
}

func (e *emitter) stop() {
	close(e.quit)
	<-e.done
}

// run sends until told to stop. While there is no stream nothing is numbered.
func (e *emitter) run() {
	defer close(e.done)
	perTick := max(1, *rate*int(tick/time.Millisecond)/1000/2)
	for {
		stream, cancel, err := e.open()
		if err == nil {
			err = e.emit(stream, perTick)
			cancel()
			if err == nil {
				return
			}
			e.broken()
		}
		select {
		case <-time.After(poll):
		case <-e.quit:
			return
		}
	}
}

func (e *emitter) open() (v2.Ingress_BatchSenderClient, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := e.client.BatchSender(ctx)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return stream, cancel, nil
}

// emit sends batches until the stream breaks; nil when it was told to stop and the router has read everything.
func (e *emitter) emit(stream v2.Ingress_BatchSenderClient, perTick int) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	e.lock.Lock()
	e.firsts = append(e.firsts, e.sent+1)
	e.lock.Unlock()
	for {
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-e.quit:
			_, err := stream.CloseAndRecv()
			return err
		}
		if err := stream.Send(e.next(perTick)); err != nil {
			return err
		}
	}
}

func (e *emitter) next(count int) *v2.EnvelopeBatch {
	batch := &v2.EnvelopeBatch{}
	e.lock.Lock()
	defer e.lock.Unlock()
	now := time.Now()
	for range count {
		e.sent++
		batch.Batch = append(batch.Batch, sequence.Log(e.source, e.sent))
	}
	e.recent = append(e.recent, mark{e.sent - count + 1, now})
	for now.Sub(e.recent[0].at) > doubt {
		e.recent = e.recent[1:]
	}
	return batch
}

// broken puts what was sent lately in doubt.
func (e *emitter) broken() {
	e.lock.Lock()
	defer e.lock.Unlock()
	if len(e.recent) > 0 {
		e.inDoubt = append(e.inDoubt, span{First: e.recent[0].number, Last: e.sent})
		e.recent = nil
	}
}

// starts tells whether a stream began with this number.
func (e *emitter) starts(number int) bool {
	e.lock.Lock()
	defer e.lock.Unlock()
	for _, first := range e.firsts {
		if first == number {
			return true
		}
	}
	return false
}

// doubted tells whether a number was on its way when a stream broke.
func (e *emitter) doubted(number int) bool {
	e.lock.Lock()
	defer e.lock.Unlock()
	for _, span := range e.inDoubt {
		if span.First <= number && number <= span.Last {
			return true
		}
	}
	return false
}
