package interop

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/platform"
)

// Pings: those that the platform's programs send must never be punished.

// grpcPorts are our two gRPC servers.
func grpcPorts(t *testing.T, check func(t *testing.T, addr, name string)) {
	t.Run("router", func(t *testing.T) {
		t.Parallel()
		check(t, startRouter(t).Addr(), "doppler")
	})
	t.Run("rlp", func(t *testing.T) {
		t.Parallel()
		proxy := running(t, platform.ReverseLogProxy(certificates.reverseLogProxy, startRouter(t).Addr()))
		check(t, proxy.Addr(), "reverselogproxy")
	})
}

func TestKeepAlive_PingsEveryFifteenSecondsWithoutAStreamAreFine(t *testing.T) {
	t.Parallel()
	grpcPorts(t, func(t *testing.T, addr, name string) {
		conn := dial(t, addr, clientTLS(t, certificates.client, name), grpc.WithKeepaliveParams(clients.AgentKeepAlive))
		conn.Connect()
		eventually(t, "connected", func() bool { return conn.GetState() == connectivity.Ready })
		// Three pings and their answers. A GOAWAY or a missing answer (15 s) would change the state.
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
		defer cancel()
		if conn.WaitForStateChange(ctx, connectivity.Ready) {
			t.Fatalf("the connection became %s", conn.GetState())
		}
	})
}

// rawConn is HTTP/2 by hand.
type rawConn struct {
	net.Conn
	framer *http2.Framer
}

func rawHTTP2(t *testing.T, addr, name string) rawConn {
	t.Helper()
	config := clientTLS(t, certificates.client, name)
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", addr, config)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	framer := http2.NewFramer(conn, conn)
	must(t, framer.WriteSettings())
	return rawConn{conn, framer}
}

// What a Go server answers to the third ping too many is GOAWAY ENHANCE_YOUR_CALM `too_many_pings`. Ours must at least
// answer the pings that it takes, and say so when it takes no more.
func TestKeepAlive_AFloodOfPingsIsAnsweredOrEndedWithAWord(t *testing.T) {
	t.Parallel()
	grpcPorts(t, func(t *testing.T, addr, name string) {
		raw := rawHTTP2(t, addr, name)
		_ = raw.SetDeadline(time.Now().Add(patience))
		const pings = 100
		go func() {
			for number := range pings {
				if raw.framer.WritePing(false, [8]byte{byte(number)}) != nil {
					return
				}
			}
		}()
		answered := 0
		for answered < pings {
			frame, err := raw.framer.ReadFrame()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				t.Fatalf("ended without a word after %d answers", answered)
			}
			switch frame := frame.(type) {
			case *http2.PingFrame:
				if frame.IsAck() {
					answered++
				}
			case *http2.GoAwayFrame:
				if frame.ErrCode != http2.ErrCodeEnhanceYourCalm || string(frame.DebugData()) != "too_many_pings" {
					t.Fatalf("GOAWAY %s %q", frame.ErrCode, frame.DebugData())
				}
				t.Logf("%s: GOAWAY %s %q after %d answers", name, frame.ErrCode, frame.DebugData(), answered)
				return
			}
		}
		t.Logf("%s: %d pings answered, no GOAWAY", name, answered)
	})
}

// A channel that was cut off connects again by itself.
func TestKeepAlive_AChannelConnectsAgainAfterARestart(t *testing.T) {
	t.Parallel()
	router := startRouter(t)
	conn := dialRouter(t, router, goProxyOptions()...)
	call := func() error {
		stream, err := v2.NewEgressClient(conn).BatchedReceiver(cancelled(t), &v2.EgressBatchRequest{
			Selectors: []*v2.Selector{anyLog("")},
		}, grpc.WaitForReady(true))
		if err == nil {
			_, err = stream.Header()
		}
		return err
	}
	must(t, call())
	router.Kill()
	must(t, router.Start())
	eventually(t, "a stream after the restart", func() bool { return call() == nil })
}
