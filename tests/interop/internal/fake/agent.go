package fake

import (
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/pki"
)

// Agent is the part of an agent that takes envelopes from the platform's own programs.
type Agent struct {
	Addr      string
	Envelopes chan *v2.Envelope
	server    *grpc.Server
}

// NewAgent starts an agent; its certificate is named `metron`.
func NewAgent(files pki.Files) (*Agent, error) {
	config, err := files.Server()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	agent := &Agent{
		Addr:      listener.Addr().String(),
		Envelopes: make(chan *v2.Envelope, 10_000),
		server:    grpc.NewServer(grpc.Creds(credentials.NewTLS(config))),
	}
	v2.RegisterIngressServer(agent.server, &ingressService{agent: agent})
	go func() { _ = agent.server.Serve(listener) }()
	return agent, nil
}

// Stop breaks every connection.
func (a *Agent) Stop() { a.server.Stop() }

type ingressService struct {
	v2.UnimplementedIngressServer
	agent *Agent
}

func (s *ingressService) Sender(stream v2.Ingress_SenderServer) error {
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case s.agent.Envelopes <- envelope:
		default:
			// Nobody looks any more.
		}
	}
}
