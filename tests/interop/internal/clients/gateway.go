package clients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	v2 "loggregator/interop/gen/v2"
)

const (
	// failures in a row after which a gateway client gives up.
	mostFailures = 10
	// how long a supervisor waits before it starts a program again.
	startAgain = 200 * time.Millisecond
)

// Gateway reads v2 envelopes from an RLP gateway as Server-Sent Events.
type Gateway struct {
	// Addr is the base URL.
	Addr string
	// Client adds what authorises the request.
	Client interface {
		Do(*http.Request) (*http.Response, error)
	}
	// Opened counts answers with 200, Heartbeats and Closings the events of these names.
	Opened, Heartbeats, Closings atomic.Int64
}

// GatewayStream is an open stream. Both channels are closed when the client has given up or was cancelled.
type GatewayStream struct {
	Batches <-chan []*v2.Envelope
	Errors  <-chan error
}

// Stream reads until ctx is done or too many attempts in a row failed.
func (g *Gateway) Stream(ctx context.Context, request *v2.EgressBatchRequest) *GatewayStream {
	batches, failures := make(chan []*v2.Envelope, 100), make(chan error, 64)
	go func() {
		defer close(batches)
		defer close(failures)
		for failed := 0; failed <= mostFailures && ctx.Err() == nil; {
			opened, err := g.attempt(ctx, request, batches)
			if opened {
				failed = 0
			} else {
				failed++
			}
			if err != nil && ctx.Err() == nil {
				select {
				case failures <- err:
				default:
				}
			}
		}
	}()
	return &GatewayStream{Batches: batches, Errors: failures}
}

// Supervised is Stream in a program that is started again whenever the client has given up, as nozzles are: a gateway that is
// away for a moment costs eleven attempts, which take no time at all.
func (g *Gateway) Supervised(ctx context.Context, request *v2.EgressBatchRequest) *GatewayStream {
	batches, failures := make(chan []*v2.Envelope, 100), make(chan error, 64)
	go func() {
		defer close(batches)
		defer close(failures)
		for ctx.Err() == nil {
			stream := g.Stream(ctx, request)
			for batch := range stream.Batches {
				batches <- batch
			}
			for err := range stream.Errors {
				select {
				case failures <- err:
				default:
				}
			}
			time.Sleep(startAgain)
		}
	}()
	return &GatewayStream{Batches: batches, Errors: failures}
}

// attempt makes one request and reads it to its end. The first result tells whether it was answered with 200.
func (g *Gateway) attempt(ctx context.Context, wanted *v2.EgressBatchRequest, batches chan<- []*v2.Envelope) (bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.Addr+"/v2/read?"+Query(wanted), nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Cache-Control", "no-cache")
	response, err := g.Client.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return false, fmt.Errorf("unexpected status code %d: %s", response.StatusCode, body)
	}
	g.Opened.Add(1)
	return true, g.read(ctx, bufio.NewReader(response.Body), batches)
}

// read takes the body line by line.
func (g *Gateway) read(ctx context.Context, body *bufio.Reader, batches chan<- []*v2.Envelope) error {
	var data strings.Builder
	for {
		line, err := body.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a line: %w", err)
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "data: "):
			data.WriteString(strings.TrimPrefix(line, "data: "))
		case line == "event: heartbeat":
			g.Heartbeats.Add(1)
			// Its data and the empty line after it, whatever stands there.
			for range 2 {
				if _, err := body.ReadString('\n'); err != nil {
					return fmt.Errorf("within a heartbeat: %w", err)
				}
			}
		case line == "event: closing":
			g.Closings.Add(1)
			// The server has to end the response, or this waits for ever.
			_, err := io.Copy(io.Discard, body)
			return err
		case line == "":
			batch := &v2.EnvelopeBatch{}
			if err := protojson.Unmarshal([]byte(data.String()), batch); err != nil {
				return fmt.Errorf("%q: %w", data.String(), err)
			}
			data.Reset()
			select {
			case batches <- batch.Batch:
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return fmt.Errorf("a line that no client understands: %q", line)
		}
	}
}

// Query is a request as the query of a gateway; values stand unescaped.
func Query(request *v2.EgressBatchRequest) string {
	parts := []string{"shard_id=" + request.ShardId, "deterministic_name=" + request.DeterministicName}
	sources := map[string]bool{}
	kinds := map[string]bool{}
	add := func(part string) {
		if !kinds[part] {
			kinds[part] = true
			parts = append(parts, part)
		}
	}
	for _, selector := range request.Selectors {
		if id := selector.SourceId; id != "" && !sources[id] {
			sources[id] = true
			parts = append(parts, "source_id="+id)
		}
		switch kind := selector.Message.(type) {
		case *v2.Selector_Log:
			add("log")
		case *v2.Selector_Counter:
			if kind.Counter.Name != "" {
				add("counter.name=" + kind.Counter.Name)
			} else {
				add("counter")
			}
		case *v2.Selector_Gauge:
			if len(kind.Gauge.Names) != 0 {
				add("gauge.name=" + kind.Gauge.Names[0])
			} else {
				add("gauge")
			}
		case *v2.Selector_Timer:
			add("timer")
		case *v2.Selector_Event:
			add("event")
		}
	}
	return strings.Join(parts, "&")
}

// WithToken is an HTTP client that sends this Authorization with every request.
type WithToken struct {
	Token string
	HTTP  *http.Client
}

// Do sends the request with the token.
func (w WithToken) Do(request *http.Request) (*http.Response, error) {
	request.Header.Set("Authorization", w.Token)
	return w.HTTP.Do(request)
}
