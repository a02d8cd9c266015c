package clients

import (
	"context"
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	v2 "loggregator/interop/gen/v2"
)

// Timing of what the platform's programs keep their connections alive with.
var (
	// ConsumerKeepAlive is that of traffic controllers and reverse log proxies.
	ConsumerKeepAlive = keepalive.ClientParameters{
		Time: 15 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true,
	}
	// AgentKeepAlive is that of agents.
	AgentKeepAlive = keepalive.ClientParameters{
		Time: 15 * time.Second, Timeout: 15 * time.Second, PermitWithoutStream: true,
	}
)

// ProxyLimit is the largest message that traffic controllers and reverse log proxies take from a router.
const ProxyLimit = 10 << 20

// Dial opens a channel; it connects with the first call.
func Dial(addr string, config *tls.Config, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	return grpc.NewClient(addr, options...)
}

// Connector reads batches from a reverse log proxy, for ever. It leaves all of gRPC's limits as they are.
type Connector struct {
	Addr string
	TLS  *tls.Config
	// Opened is called when the server answered with headers, that is, at the latest with the first batch.
	Opened func()
}

// ConnectorStream is an open stream. Both channels are closed when its context is done.
type ConnectorStream struct {
	Batches <-chan []*v2.Envelope
	Errors  <-chan error
}

// Stream reads until ctx is done. A stream that fails is opened again at once.
func (c *Connector) Stream(ctx context.Context, request *v2.EgressBatchRequest) (*ConnectorStream, error) {
	conn, err := Dial(c.Addr, c.TLS)
	if err != nil {
		return nil, err
	}
	batches, failures := make(chan []*v2.Envelope, 100), make(chan error, 64)
	go func() {
		defer conn.Close()
		defer close(batches)
		defer close(failures)
		client := v2.NewEgressClient(conn)
		for ctx.Err() == nil {
			err := c.attempt(ctx, client, request, batches)
			select {
			case failures <- err:
			default:
			}
		}
	}()
	return &ConnectorStream{Batches: batches, Errors: failures}, nil
}

func (c *Connector) attempt(
	ctx context.Context, client v2.EgressClient, request *v2.EgressBatchRequest, batches chan<- []*v2.Envelope,
) error {
	stream, err := client.BatchedReceiver(ctx, request)
	if err != nil {
		time.Sleep(50 * time.Millisecond)
		return err
	}
	if c.Opened != nil {
		if _, err := stream.Header(); err == nil {
			c.Opened()
		}
	}
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case batches <- batch.Batch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
