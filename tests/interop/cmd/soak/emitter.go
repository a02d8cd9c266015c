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
	// Agents look this often whether their router is back.
	poll = time.Second
)

// emitter numbers logs of a source of its own and hands them to one router, as an agent does. A batch that its stream
// refuses was not sent: its numbers are given again, as agents try another connection with it.
type emitter struct {
	source string
	client v2.IngressClient
	lock   sync.Mutex
	sent   int
	quit   chan struct{}
	done   chan struct{}
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
	for {
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-e.quit:
			_, err := stream.CloseAndRecv()
			return err
		}
		batch := &v2.EnvelopeBatch{}
		next := e.count()
		for range perTick {
			next++
			batch.Batch = append(batch.Batch, sequence.Log(e.source, next))
		}
		if err := stream.Send(batch); err != nil {
			return err
		}
		e.lock.Lock()
		e.sent = next
		e.lock.Unlock()
	}
}
