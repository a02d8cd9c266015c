package clients

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"loggregator/interop/gen/events"
	"loggregator/interop/gen/plumbing"
	v2 "loggregator/interop/gen/v2"
)

const (
	batchLimit    = 100
	batchInterval = 100 * time.Millisecond
	reconnectPoll = time.Second
)

// Emitter hands envelopes in, in batches of up to 100 or every 100 ms, over a BatchSender stream that is opened again
// when it broke. What was being sent when it broke is lost, as it is with the platform's library.
type Emitter struct {
	client    v2.IngressClient
	conn      *grpc.ClientConn
	envelopes chan *v2.Envelope
	flush     chan chan struct{}
	done      chan struct{}
	stop      context.CancelFunc
	lock      sync.Mutex
	lost      int
}

// NewEmitter starts an emitter; serverName is `metron` for an agent, `doppler` for a router.
func NewEmitter(addr string, config *tls.Config, options ...grpc.DialOption) (*Emitter, error) {
	conn, err := Dial(addr, config, options...)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Emitter{
		client: v2.NewIngressClient(conn), conn: conn, stop: stop,
		envelopes: make(chan *v2.Envelope, batchLimit), flush: make(chan chan struct{}), done: make(chan struct{}),
	}
	go e.run(ctx)
	return e, nil
}

// Emit hands one envelope over.
func (e *Emitter) Emit(envelope *v2.Envelope) { e.envelopes <- envelope }

// Flush returns when everything emitted before was given to the stream.
func (e *Emitter) Flush() {
	done := make(chan struct{})
	e.flush <- done
	<-done
}

// Lost is the number of envelopes in batches whose sending failed.
func (e *Emitter) Lost() int {
	e.lock.Lock()
	defer e.lock.Unlock()
	return e.lost
}

// Close flushes and closes the connection.
func (e *Emitter) Close() {
	e.Flush()
	e.stop()
	<-e.done
	_ = e.conn.Close()
}

func (e *Emitter) run(ctx context.Context) {
	defer close(e.done)
	var stream v2.Ingress_BatchSenderClient
	var batch []*v2.Envelope
	send := func() {
		if len(batch) == 0 {
			return
		}
		var err error
		if stream == nil {
			stream, err = e.client.BatchSender(ctx)
		}
		if err == nil {
			err = stream.Send(&v2.EnvelopeBatch{Batch: batch})
		}
		if err != nil {
			stream = nil
			e.lock.Lock()
			e.lost += len(batch)
			e.lock.Unlock()
		}
		batch = nil
	}
	ticker := time.NewTicker(batchInterval)
	defer ticker.Stop()
	for {
		select {
		case envelope := <-e.envelopes:
			if batch = append(batch, envelope); len(batch) == batchLimit {
				send()
			}
		case <-ticker.C:
			send()
		case done := <-e.flush:
			for more := true; more; {
				select {
				case envelope := <-e.envelopes:
					if batch = append(batch, envelope); len(batch) == batchLimit {
						send()
					}
				default:
					more = false
				}
			}
			send()
			close(done)
		case <-ctx.Done():
			if stream != nil {
				_ = stream.CloseSend()
			}
			return
		}
	}
}

// Agent is the part of an agent that faces a router: a pool of connections for batches and one for v1 envelopes, each
// connection with one stream and recycled after a number of writes.
type Agent struct {
	v2, v1 []*agentStream
	next   int
}

type agentStream struct {
	addr    string
	tls     *tls.Config
	recycle int
	open    func(context.Context, *grpc.ClientConn) (grpc.ClientStream, error)
	conn    *grpc.ClientConn
	stream  grpc.ClientStream
	cancel  context.CancelFunc
	writes  int
}

// PoolSize is the number of connections that an agent keeps for each of its two sides.
const PoolSize = 5

// NewAgent makes an agent whose connections are given up after this many writes each.
func NewAgent(addr string, config *tls.Config, recycle int) *Agent {
	agent := &Agent{}
	for range PoolSize {
		agent.v2 = append(agent.v2, &agentStream{addr: addr, tls: config, recycle: recycle,
			open: func(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
				return v2.NewIngressClient(conn).BatchSender(ctx)
			}})
		agent.v1 = append(agent.v1, &agentStream{addr: addr, tls: config, recycle: recycle,
			open: func(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
				return plumbing.NewDopplerIngestorClient(conn).Pusher(ctx)
			}})
	}
	return agent
}

// Send gives a batch to the next connection that takes it.
func (a *Agent) Send(batch []*v2.Envelope) error {
	return a.write(a.v2, &v2.EnvelopeBatch{Batch: batch})
}

// Push gives a v1 envelope to the next connection that takes it.
func (a *Agent) Push(envelope *events.Envelope) error {
	payload, err := proto.Marshal(envelope)
	if err != nil {
		return err
	}
	return a.write(a.v1, &plumbing.EnvelopeData{Payload: payload})
}

func (a *Agent) write(pool []*agentStream, message proto.Message) (err error) {
	for range pool {
		a.next++
		if err = pool[a.next%len(pool)].write(message); err == nil {
			return nil
		}
	}
	// The platform's agents look again after a second; what they had in hand is lost.
	time.Sleep(reconnectPoll)
	return err
}

func (s *agentStream) write(message proto.Message) error {
	if s.stream == nil {
		conn, err := Dial(s.addr, s.tls, grpc.WithKeepaliveParams(AgentKeepAlive))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := s.open(ctx, conn)
		if err != nil {
			cancel()
			_ = conn.Close()
			return err
		}
		s.conn, s.stream, s.cancel, s.writes = conn, stream, cancel, 0
	}
	err := s.stream.SendMsg(message)
	if s.writes++; err != nil {
		s.drop()
	} else if s.writes >= s.recycle {
		_ = s.stream.CloseSend()
		// The answer, whatever it is, comes when everything was read.
		_ = s.stream.RecvMsg(&v2.BatchSenderResponse{})
		s.drop()
	}
	return err
}

func (s *agentStream) drop() {
	s.cancel()
	_ = s.conn.Close()
	s.conn, s.stream = nil, nil
}

// Close ends every stream in order.
func (a *Agent) Close() {
	for _, stream := range append(a.v2, a.v1...) {
		if stream.stream != nil {
			_ = stream.stream.CloseSend()
			_ = stream.stream.RecvMsg(&v2.BatchSenderResponse{})
			stream.drop()
		}
	}
}
