package interop

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"loggregator/interop/gen/events"
	"loggregator/interop/gen/plumbing"
	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/pki"
	"loggregator/interop/internal/platform"
	"loggregator/interop/internal/process"
)

// patience is far above what anything here takes on a busy machine; only a failing test waits so long.
const patience = 30 * time.Second

// certificates of one deployment, and of an authority that has nothing to do with it.
var certificates struct {
	doppler, trafficController, reverseLogProxy, gateway, metron, client, cloudController, uaa, stranger pki.Files
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "loggregator-interop-")
		if err == nil {
			defer os.RemoveAll(dir)
			err = makeCertificates(dir)
		}
		if err == nil {
			// Before the first test, or its time would run while the programs are built.
			_, err = process.Path("router")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func makeCertificates(dir string) error {
	authority, err := pki.New(dir, "loggregator-ca")
	if err != nil {
		return err
	}
	other, err := pki.New(dir, "unrelated-ca")
	if err != nil {
		return err
	}
	c := &certificates
	var wait sync.WaitGroup
	failures := make(chan error, 9)
	issue := func(files *pki.Files, authority *pki.Authority, name string) {
		wait.Go(func() {
			issued, err := authority.Issue(name)
			*files = issued
			failures <- err
		})
	}
	issue(&c.doppler, authority, "doppler")
	issue(&c.trafficController, authority, "trafficcontroller")
	issue(&c.reverseLogProxy, authority, "reverselogproxy")
	issue(&c.gateway, authority, "gateway")
	issue(&c.metron, authority, "metron")
	issue(&c.client, authority, "client")
	issue(&c.cloudController, authority, "cloud-controller")
	issue(&c.uaa, authority, "uaa")
	issue(&c.stranger, other, "stranger")
	wait.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return err
		}
	}
	return nil
}

// skip says that this machine lacks something, where scripts/test looks for it; in CI that is a failure.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	if path := os.Getenv("LOGGREGATOR_TEST_SKIPS"); path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		must(t, err)
		defer file.Close()
		_, err = fmt.Fprintf(file, "interop: %s: %s\n", t.Name(), reason)
		must(t, err)
	}
	t.Skip(reason)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// next takes from a channel within the given time.
func next[T any](t *testing.T, what string, channel <-chan T, within time.Duration) T {
	t.Helper()
	select {
	case value, open := <-channel:
		if !open {
			t.Fatalf("%s: it is over", what)
		}
		return value
	case <-time.After(within):
		t.Fatalf("%s: nothing within %s", what, within)
	}
	panic("unreachable")
}

// running starts a component and kills it when the test is over, as the platform's suites do.
func running(t *testing.T, component *platform.Component) *platform.Component {
	t.Helper()
	must(t, component.Start())
	t.Cleanup(func() {
		component.Kill()
		if t.Failed() {
			t.Logf("stderr of the component at %s:\n%s", component.Addr(), component.Stderr())
		}
	})
	return component
}

// startRouter starts a router as the platform's tests do: its agent is not there.
func startRouter(t *testing.T) *platform.Component {
	t.Helper()
	return running(t, platform.Router(certificates.doppler, "127.0.0.1:0"))
}

func clientTLS(t *testing.T, files pki.Files, serverName string) *tls.Config {
	t.Helper()
	config, err := files.Client(serverName)
	must(t, err)
	return config
}

// dial opens a channel that the test's end closes.
func dial(t *testing.T, addr string, config *tls.Config, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := clients.Dial(addr, config, options...)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dialRouter is how the platform's router suite connects: with the router's own certificate.
func dialRouter(t *testing.T, router *platform.Component, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dial(t, router.Addr(), clientTLS(t, certificates.doppler, "doppler"), options...)
}

// cancelled is a context that ends with the test.
func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx
}

// v1Log is a log envelope in its canonical form.
func v1Log(app, message string) *events.Envelope {
	return &events.Envelope{
		Origin:    proto.String("origin"),
		EventType: events.Envelope_LogMessage.Enum(),
		Timestamp: proto.Int64(time.Now().UnixNano()),
		LogMessage: &events.LogMessage{
			Message:     []byte(message),
			MessageType: events.LogMessage_OUT.Enum(),
			Timestamp:   proto.Int64(time.Now().UnixNano()),
			AppId:       proto.String(app),
		},
		Deployment: proto.String("deployment"),
		Job:        proto.String("job"),
		Index:      proto.String("index"),
		Ip:         proto.String("ip"),
	}
}

func v2Log(source, message string) *v2.Envelope {
	return &v2.Envelope{
		Timestamp: time.Now().UnixNano(),
		SourceId:  source,
		Message:   &v2.Envelope_Log{Log: &v2.Log{Payload: []byte(message)}},
	}
}

func v2Counter(source, name string) *v2.Envelope {
	return &v2.Envelope{
		Timestamp: time.Now().UnixNano(),
		SourceId:  source,
		Message:   &v2.Envelope_Counter{Counter: &v2.Counter{Name: name, Delta: 1}},
	}
}

func v2Gauge(source string, names ...string) *v2.Envelope {
	metrics := map[string]*v2.GaugeValue{}
	for _, name := range names {
		metrics[name] = &v2.GaugeValue{Unit: "unit", Value: 1}
	}
	return &v2.Envelope{
		Timestamp: time.Now().UnixNano(),
		SourceId:  source,
		Message:   &v2.Envelope_Gauge{Gauge: &v2.Gauge{Metrics: metrics}},
	}
}

func v2Timer(source string) *v2.Envelope {
	return &v2.Envelope{
		Timestamp: time.Now().UnixNano(),
		SourceId:  source,
		Message:   &v2.Envelope_Timer{Timer: &v2.Timer{Name: "http", Start: 1, Stop: 2}},
	}
}

func v2Event(source string) *v2.Envelope {
	return &v2.Envelope{
		Timestamp: time.Now().UnixNano(),
		SourceId:  source,
		Message:   &v2.Envelope_Event{Event: &v2.Event{Title: "title", Body: "body"}},
	}
}

func anyLog(source string) *v2.Selector {
	return &v2.Selector{SourceId: source, Message: &v2.Selector_Log{Log: &v2.LogSelector{}}}
}

// received collects the payloads of a v1 subscription.
func received(t *testing.T, stream interface {
	Recv() (*plumbing.Response, error)
}) <-chan []byte {
	payloads := make(chan []byte, 10_000)
	go func() {
		defer close(payloads)
		for {
			response, err := stream.Recv()
			if err != nil {
				return
			}
			payloads <- response.Payload
		}
	}()
	return payloads
}

func decodeV1(t *testing.T, payload []byte) *events.Envelope {
	t.Helper()
	envelope := &events.Envelope{}
	must(t, proto.Unmarshal(payload, envelope))
	return envelope
}

// every calls send now and then again after each interval until the test is over.
func every(t *testing.T, interval time.Duration, send func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			send()
			select {
			case <-time.After(interval):
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
}
