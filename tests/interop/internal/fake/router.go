// Package fake has routers and an agent as grpc-go serves them, for our programs to read from and to report to.
package fake

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"loggregator/interop/gen/events"
	"loggregator/interop/gen/plumbing"
	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/pki"
)

// messageLimit is what a Go router accepts.
const messageLimit = 10 << 20

// V1Subscription is a subscription that the router has received.
type V1Subscription struct {
	Request *plumbing.SubscriptionRequest
	// Method is `Subscribe` or `BatchSubscribe`.
	Method string
	// Context is done when the reader has gone.
	Context context.Context
	send    func(payloads ...[]byte) error
	end     chan error
}

// Send delivers payloads as they are.
func (s *V1Subscription) Send(payloads ...[]byte) error { return s.send(payloads...) }

// SendEnvelope delivers one envelope.
func (s *V1Subscription) SendEnvelope(envelope *events.Envelope) error {
	payload, err := proto.Marshal(envelope)
	if err != nil {
		return err
	}
	return s.send(payload)
}

// End ends the stream from the router's side.
func (s *V1Subscription) End(err error) { s.end <- err }

// V2Subscription is the same of the v2 API.
type V2Subscription struct {
	Request *v2.EgressBatchRequest
	Context context.Context
	stream  v2.Egress_BatchedReceiverServer
	end     chan error
}

// Send delivers one batch.
func (s *V2Subscription) Send(envelopes ...*v2.Envelope) error {
	return s.stream.Send(&v2.EnvelopeBatch{Batch: envelopes})
}

// End ends the stream from the router's side.
func (s *V2Subscription) End(err error) { s.end <- err }

// Router is a router of the platform as far as its readers can see: headers only with the first message, streams that
// last until the reader goes, and only the methods that it was given.
type Router struct {
	Addr string
	// V1 and V2 hand out subscriptions as they come.
	V1     chan *V1Subscription
	V2     chan *V2Subscription
	server *grpc.Server
}

// Methods of a fake router.
type Methods struct {
	Subscribe, BatchSubscribe, BatchedReceiver bool
}

// NewRouter starts a router on addr (port 0: a free one) that has these methods; the others are UNIMPLEMENTED.
func NewRouter(addr string, files pki.Files, methods Methods) (*Router, error) {
	config, err := files.Server()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	router := &Router{
		Addr:   listener.Addr().String(),
		V1:     make(chan *V1Subscription, 100),
		V2:     make(chan *V2Subscription, 100),
		server: grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.MaxRecvMsgSize(messageLimit)),
	}
	plumbing.RegisterDopplerServer(router.server, &v1Service{router: router, methods: methods})
	v2.RegisterEgressServer(router.server, &v2Service{router: router, methods: methods})
	go func() { _ = router.server.Serve(listener) }()
	return router, nil
}

// Stop breaks every connection.
func (r *Router) Stop() { r.server.Stop() }

type v1Service struct {
	plumbing.UnimplementedDopplerServer
	router  *Router
	methods Methods
}

func (s *v1Service) Subscribe(request *plumbing.SubscriptionRequest, stream plumbing.Doppler_SubscribeServer) error {
	if !s.methods.Subscribe {
		return s.UnimplementedDopplerServer.Subscribe(request, stream)
	}
	return s.serve("Subscribe", request, stream.Context(), func(payloads ...[]byte) error {
		for _, payload := range payloads {
			if err := stream.Send(&plumbing.Response{Payload: payload}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *v1Service) BatchSubscribe(
	request *plumbing.SubscriptionRequest, stream plumbing.Doppler_BatchSubscribeServer,
) error {
	if !s.methods.BatchSubscribe {
		return s.UnimplementedDopplerServer.BatchSubscribe(request, stream)
	}
	return s.serve("BatchSubscribe", request, stream.Context(), func(payloads ...[]byte) error {
		return stream.Send(&plumbing.BatchResponse{Payload: payloads})
	})
}

func (s *v1Service) serve(
	method string, request *plumbing.SubscriptionRequest, ctx context.Context, send func(...[]byte) error,
) error {
	subscription := &V1Subscription{
		Request: request, Method: method, Context: ctx, send: send, end: make(chan error, 1),
	}
	s.router.V1 <- subscription
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-subscription.end:
		return err
	}
}

type v2Service struct {
	v2.UnimplementedEgressServer
	router  *Router
	methods Methods
}

func (s *v2Service) BatchedReceiver(request *v2.EgressBatchRequest, stream v2.Egress_BatchedReceiverServer) error {
	if !s.methods.BatchedReceiver {
		return s.UnimplementedEgressServer.BatchedReceiver(request, stream)
	}
	subscription := &V2Subscription{
		Request: request, Context: stream.Context(), stream: stream, end: make(chan error, 1),
	}
	s.router.V2 <- subscription
	select {
	case <-stream.Context().Done():
		return stream.Context().Err()
	case err := <-subscription.end:
		return err
	}
}
