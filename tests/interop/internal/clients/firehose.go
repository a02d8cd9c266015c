// Package clients behaves on the wire as the platform's client libraries do: which requests they make, with which
// headers, what they accept, when they come again. It stands on the same transports and shares no code with them.
package clients

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/proto"

	"loggregator/interop/gen/events"
)

const (
	handshakeTimeout = 10 * time.Second
	firstRetry       = 500 * time.Millisecond
	longestRetry     = time.Minute
	mostTries        = 1000
)

// Filters of a firehose.
const (
	LogsOnly    = "logs"
	MetricsOnly = "metrics"
)

// Consumer reads v1 envelopes from a traffic controller.
type Consumer struct {
	// URL of the traffic controller, wss://host:port.
	URL string
	TLS *tls.Config
	// Refresh fetches a token when the one at hand is empty or refused; nil: never.
	Refresh func() (string, error)
	// IdleTimeout ends a connection on which no envelope came for so long; 0: none. Pings do not count.
	IdleTimeout time.Duration
	// Once: an error ends the stream instead of a new attempt.
	Once bool
	// Cookie is sent along, as a browser does; empty: none.
	Cookie string
	// Connected is called whenever a connection stands.
	Connected func()
}

// Unauthorized is a 401; it tells what the traffic controller had to say.
type Unauthorized struct{ Body string }

func (u *Unauthorized) Error() string { return "unauthorized error: " + u.Body }

// Stream is an open stream. Both channels are closed when it is over.
type Stream struct {
	Envelopes <-chan *events.Envelope
	Errors    <-chan error
	close     func()
}

// Close tells the traffic controller that the client leaves, and waits until it is gone.
func (s *Stream) Close() { s.close() }

// Firehose opens a firehose. The question mark is always there; an empty filter means everything.
func (c *Consumer) Firehose(subscription, token, filter string) *Stream {
	query := ""
	if filter != "" {
		query = "filter-type=" + filter
	}
	return c.open("/firehose/"+subscription+"?"+query, token)
}

// App opens the stream of one application.
func (c *Consumer) App(guid, token string) *Stream {
	return c.open("/apps/"+guid+"/stream", token)
}

type reader struct {
	consumer  *Consumer
	path      string
	token     string
	envelopes chan *events.Envelope
	errors    chan error
	lock      sync.Mutex
	conn      *websocket.Conn
	stop      context.Context
}

func (c *Consumer) open(path, token string) *Stream {
	stop, cancel := context.WithCancel(context.Background())
	r := &reader{
		consumer: c, path: path, token: token, stop: stop,
		// Nothing is read ahead: a consumer that blocks answers no pings.
		envelopes: make(chan *events.Envelope),
		errors:    make(chan error, 16),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(r.envelopes)
		defer close(r.errors)
		r.run()
	}()
	return &Stream{Envelopes: r.envelopes, Errors: r.errors, close: func() {
		cancel()
		r.leave()
		<-done
	}}
}

func (r *reader) run() {
	delay := firstRetry
	for try := 0; try < mostTries; try++ {
		conn, err := r.connect()
		if err == nil {
			try, delay = 0, firstRetry
			err = r.listen(conn)
		}
		if r.stop.Err() != nil {
			return
		}
		r.report(err)
		var bad *url.Error
		if r.consumer.Once || errors.As(err, &bad) {
			return
		}
		select {
		case <-time.After(delay):
		case <-r.stop.Done():
			return
		}
		delay = min(2*delay, longestRetry)
	}
}

// connect opens one connection; with a fresh token once more if the first was refused.
func (r *reader) connect() (*websocket.Conn, error) {
	refresh := r.consumer.Refresh
	if r.token == "" && refresh != nil {
		if err := r.refresh(); err != nil {
			return nil, err
		}
	}
	conn, err := r.dial()
	var refused *Unauthorized
	if errors.As(err, &refused) && refresh != nil {
		if err := r.refresh(); err != nil {
			return nil, err
		}
		conn, err = r.dial()
	}
	return conn, err
}

func (r *reader) refresh() error {
	token, err := r.consumer.Refresh()
	if err == nil {
		r.token = token
	}
	return err
}

func (r *reader) dial() (*websocket.Conn, error) {
	target := r.consumer.URL + r.path
	if _, err := url.Parse(target); err != nil {
		return nil, err
	}
	dialer := websocket.Dialer{HandshakeTimeout: handshakeTimeout, TLSClientConfig: r.consumer.TLS}
	header := http.Header{"Origin": {r.consumer.URL}, "Authorization": {r.token}}
	if r.consumer.Cookie != "" {
		header.Set("Cookie", r.consumer.Cookie)
	}
	conn, response, err := dialer.DialContext(r.stop, target, header)
	if err == nil {
		return conn, nil
	}
	if response != nil && response.StatusCode == http.StatusUnauthorized {
		body, _ := io.ReadAll(response.Body)
		return nil, &Unauthorized{Body: string(body)}
	}
	return nil, fmt.Errorf("error dialing traffic controller server %s: %w", target, err)
}

func (r *reader) listen(conn *websocket.Conn) error {
	r.lock.Lock()
	r.conn = conn
	r.lock.Unlock()
	defer conn.Close()
	if r.stop.Err() != nil {
		r.leave()
		return r.stop.Err()
	}
	if r.consumer.Connected != nil {
		r.consumer.Connected()
	}
	for {
		if idle := r.consumer.IdleTimeout; idle != 0 {
			_ = conn.SetReadDeadline(time.Now().Add(idle))
		}
		_, data, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		envelope := &events.Envelope{}
		if proto.Unmarshal(data, envelope) != nil {
			continue
		}
		select {
		case r.envelopes <- envelope:
		case <-r.stop.Done():
			return r.stop.Err()
		}
	}
}

func (r *reader) leave() {
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.conn != nil {
		message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = r.conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Second))
		_ = r.conn.Close()
	}
}

func (r *reader) report(err error) {
	select {
	case r.errors <- err:
	default:
	}
}
