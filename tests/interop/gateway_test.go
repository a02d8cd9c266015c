package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/fake"
	"loggregator/interop/internal/platform"
)

// The gateway as clients of Server-Sent Events see it.

// gatewayTo is a gateway in front of a proxy, with these accounts.
func gatewayTo(t *testing.T, proxy string, accounts *fake.Accounts, changes map[string]string) *platform.Component {
	t.Helper()
	gateway := platform.Gateway(certificates.gateway, proxy, accounts.UAA, accounts.CloudController)
	gateway.Env = gateway.Env.With(map[string]string{
		"LOG_ADMIN_CLIENT_ID":     fake.ClientID,
		"LOG_ADMIN_CLIENT_SECRET": fake.ClientSecret,
	}).With(changes)
	return running(t, gateway)
}

// gatewayClient is one that takes HTTP/1.1, or HTTP/2 where the server offers it.
func gatewayClient(t *testing.T, gateway *platform.Component, token string, http2 bool) *clients.Gateway {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: clientTLS(t, certificates.client, "gateway"), ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &clients.Gateway{
		Addr:   "https://" + gateway.Addr(),
		Client: clients.WithToken{Token: token, HTTP: &http.Client{Transport: transport}},
	}
}

type gatewayPath struct {
	path
	accounts *fake.Accounts
	gateway  *platform.Component
}

func newGatewayPath(t *testing.T, changes map[string]string) gatewayPath {
	t.Helper()
	p := newPath(t)
	accounts := fakeAccounts(t)
	return gatewayPath{p, accounts, gatewayTo(t, p.proxy.Addr(), accounts, changes)}
}

// read is a stream whose errors are errors of the test.
func (p gatewayPath) read(t *testing.T, client *clients.Gateway, request *v2.EgressBatchRequest) <-chan []*v2.Envelope {
	t.Helper()
	stream := client.Stream(cancelled(t), request)
	t.Cleanup(func() {
		select {
		case err, open := <-stream.Errors:
			if open {
				t.Errorf("an error at the client: %v", err)
			}
		default:
		}
	})
	return stream.Batches
}

func TestGateway_EveryKindOfEnvelope(t *testing.T) {
	t.Parallel()
	p := newGatewayPath(t, nil)
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %t", http2), func(t *testing.T) {
			client := gatewayClient(t, p.gateway, "bearer admin", http2)
			request := selecting(anyLog("app"), counterOf("app", ""), gaugeOf("app"), timerOf("app"), eventOf("app"))
			stream := primed(t, p.emitter, p.read(t, client, request), v2Log("app", ""))
			log := v2Log("app", "<&>\x00\xff")
			log.Tags = map[string]string{"a": "b", "ä": "\"quoted\""}
			log.InstanceId = "3"
			log.GetLog().Type = v2.Log_ERR
			for _, sent := range []*v2.Envelope{
				log, v2Counter("app", "requests"), v2Gauge("app", "cpu", "memory"), v2Timer("app"), v2Event("app"),
			} {
				p.emitter.Emit(sent)
				if got := next(t, "an envelope", stream, within); !proto.Equal(got, sent) {
					t.Fatalf("\ngot  %v\nsent %v", got, sent)
				}
			}
		})
	}
}

// request makes one request and is its answer.
func (p gatewayPath) request(t *testing.T, method, query, token string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(cancelled(t), method, "https://"+p.gateway.Addr()+"/v2/read"+query, nil)
	must(t, err)
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	transport := &http.Transport{TLSClientConfig: clientTLS(t, certificates.client, "gateway")}
	t.Cleanup(transport.CloseIdleConnections)
	response, err := transport.RoundTrip(request)
	must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func TestGateway_TheBytesOfAnEvent(t *testing.T) {
	t.Parallel()
	p := newGatewayPath(t, nil)
	response := p.request(t, http.MethodGet, "?counter&source_id=src", "bearer admin")
	for header, value := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "Connection": "keep-alive",
	} {
		if got := response.Header.Get(header); got != value {
			t.Errorf("%s: %q", header, got)
		}
	}
	if response.StatusCode != http.StatusOK || len(response.TransferEncoding) != 1 || response.TransferEncoding[0] != "chunked" {
		t.Errorf("%s %q", response.Status, response.TransferEncoding)
	}
	sent := &v2.Envelope{
		Timestamp: 1795293671306864594, SourceId: "src", InstanceId: "3", Tags: map[string]string{"a": "b"},
		Message: &v2.Envelope_Counter{Counter: &v2.Counter{Name: "c", Total: 2}},
	}
	const wanted = `data: {"batch":[{"timestamp":"1795293671306864594","source_id":"src","instance_id":"3",` +
		`"deprecated_tags":{},"tags":{"a":"b"},"counter":{"name":"c","delta":"0","total":"2"}}]}`
	body := bufio.NewReader(response.Body)
	// The headers came: but whether the subscription stands at the router yet nobody says.
	line := make(chan string, 1)
	go func() {
		text, _ := body.ReadString('\n')
		line <- text
	}()
	for got := ""; got == ""; {
		p.emitter.Emit(sent)
		p.emitter.Flush()
		select {
		case got = <-line:
			// Several may be in one event; members come without blanks or with one, never with more.
			first, _, _ := strings.Cut(strings.TrimSuffix(got, "\n"), "}}")
			if first+"}}]}" != wanted {
				t.Fatalf("\ngot    %s\nwanted %s", got, wanted)
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	if empty, err := body.ReadString('\n'); err != nil || empty != "\n" {
		t.Fatalf("%q %v", empty, err)
	}
}

func TestGateway_Refusals(t *testing.T) {
	t.Parallel()
	p := newGatewayPath(t, nil)
	const (
		notFound = `{"message":"resource not found","error":"not_found"}`
		noMethod = `{"message":"method not allowed","error":"method_not_allowed"}`
		noQuery  = `{"message":"query cannot be empty","error":"empty_query"}`
		noKind   = `{"message":"query must provide at least one envelope type","error":"missing_envelope_type"}`
	)
	for _, test := range []struct {
		method, query, token string
		status               int
		body                 string
	}{
		{"GET", "?log", "", 404, notFound},
		{"GET", "?log", "bearer nobody", 404, notFound},
		{"GET", "?log", "Bearer admin", 404, notFound},
		{"GET", "?log", "bearer developer", 404, notFound},
		{"GET", "?log&source_id=" + otherApp, "bearer developer", 404, notFound},
		{"GET", "?log&source_id=" + suiteApp + "&source_id=" + otherApp, "bearer developer", 404, notFound},
		{"GET", "?log&source_id=" + suiteApp + "%2F..%2F" + otherApp, "bearer developer", 404, notFound},
		{"POST", "?log", "", 404, notFound},
		{"POST", "?log", "bearer admin", 405, noMethod},
		{"GET", "", "bearer admin", 400, noQuery},
		{"GET", "?source_id=a", "bearer admin", 400, noKind},
		{"GET", "?LOG", "bearer admin", 400, noKind},
	} {
		response := p.request(t, test.method, test.query, test.token)
		body, err := io.ReadAll(response.Body)
		must(t, err)
		if response.StatusCode != test.status || string(body) != test.body+"\n\n" ||
			response.Header.Get("Content-Type") != "text/plain; charset=utf-8" ||
			response.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%v: %s %q %v", test, response.Status, body, response.Header)
		}
		if !json.Valid(body) {
			t.Errorf("not JSON: %q", body)
		}
	}
	for _, allowed := range []string{"bearer admin", "admin", "bearer developer"} {
		query := "?log&source_id=" + suiteApp
		if response := p.request(t, http.MethodGet, query, allowed); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", allowed, response.Status)
		}
	}
}

func TestGateway_HeartbeatsAndTheirTiming(t *testing.T) {
	t.Parallel()
	p := newGatewayPath(t, nil)
	response := p.request(t, http.MethodGet, "?log", "bearer admin")
	body := bufio.NewReader(response.Body)
	event, err := body.ReadString('\n')
	must(t, err)
	data, err := body.ReadString('\n')
	must(t, err)
	empty, err := body.ReadString('\n')
	must(t, err)
	if event != "event: heartbeat\n" || !regexp.MustCompile(`^data: \d{10}\n$`).MatchString(data) || empty != "\n" {
		t.Fatalf("%q %q %q", event, data, empty)
	}
}

// Streams end after their time with a word; the client comes again, and nothing is lost or doubled between them.
func TestGateway_AcrossStreamTimeouts(t *testing.T) {
	t.Parallel()
	p := newGatewayPath(t, map[string]string{"STREAM_TIMEOUT": "2s"})
	client := gatewayClient(t, p.gateway, "bearer admin", false)
	request := selecting(anyLog("numbered"))
	request.ShardId = "across-timeouts"
	w := watch(t, "numbered")
	w.v2("gateway", p.read(t, client, request))
	w.emit(p.emitter)
	eventually(t, "three stream timeouts", func() bool { return client.Closings.Load() >= 3 })
	w.finish(t)
	w.complete(t, "gateway")
	if opened := client.Opened.Load(); opened < 4 {
		t.Fatalf("%d streams", opened)
	}
}
