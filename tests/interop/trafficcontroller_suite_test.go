package interop

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"loggregator/interop/gen/events"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/fake"
	"loggregator/interop/internal/platform"
)

// What the platform's own suite for traffic controllers expects, row by row: one fake doppler, access control off.

const (
	suiteApp   = "efe5c422-e8a7-42c2-a52b-98bffd8d6a07"
	suiteToken = "bearer iAmAnAdmin"
)

var everyMethod = fake.Methods{Subscribe: true, BatchSubscribe: true, BatchedReceiver: true}

func fakeRouter(t *testing.T, methods fake.Methods) *fake.Router {
	t.Helper()
	router, err := fake.NewRouter("127.0.0.1:0", certificates.doppler, methods)
	must(t, err)
	t.Cleanup(router.Stop)
	return router
}

type trafficControllerSuite struct {
	*testing.T
	doppler    *fake.Router
	controller *platform.Component
}

func newTrafficControllerSuite(t *testing.T) trafficControllerSuite {
	t.Parallel()
	doppler := fakeRouter(t, everyMethod)
	controller := running(t, platform.TrafficController(certificates.trafficController, doppler.Addr))
	return trafficControllerSuite{t, doppler, controller}
}

// strangerTLS trusts anybody and presents a certificate that nobody here knows.
func strangerTLS(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certificates.stranger.Cert, certificates.stranger.Key)
	must(t, err)
	return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}
}

// consumerOf is a v1 client of the traffic controller.
func consumerOf(t *testing.T, controller *platform.Component) *clients.Consumer {
	t.Helper()
	return &clients.Consumer{
		URL: "wss://" + controller.Addr(),
		TLS: clientTLS(t, certificates.client, "trafficcontroller"),
	}
}

func closing(t *testing.T, stream *clients.Stream) *clients.Stream {
	t.Helper()
	t.Cleanup(stream.Close)
	return stream
}

func noErrors(t *testing.T, stream *clients.Stream) {
	t.Helper()
	select {
	case err := <-stream.Errors:
		t.Fatalf("an error at the client: %v", err)
	default:
	}
}

func TestTrafficControllerRow1_AnswersHTTP(t *testing.T) {
	s := newTrafficControllerSuite(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: strangerTLS(t)}, Timeout: within}
	response, err := client.Get("https://" + s.controller.Addr())
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	if response.StatusCode != http.StatusNotFound || string(body) != "404 page not found\n" {
		t.Fatalf("%s %q", response.Status, body)
	}
}

func TestTrafficControllerRow2_AppStream(t *testing.T) {
	s := newTrafficControllerSuite(t)
	stream := closing(t, consumerOf(t, s.controller).App(suiteApp, suiteToken))
	subscription := next(t, "a subscription", s.doppler.V1, within)
	if subscription.Method != "BatchSubscribe" {
		t.Fatal(subscription.Method)
	}
	if filter := subscription.Request.GetFilter(); filter == nil || filter.AppID != suiteApp {
		t.Fatal(subscription.Request)
	}
	sent := v1Log(suiteApp, "Hello through NOAA")
	must(t, subscription.SendEnvelope(sent))
	if got := next(t, "the log", stream.Envelopes, within); !proto.Equal(got, sent) {
		t.Fatalf("sent %v, got %v", sent, got)
	}
	noErrors(t, stream)
}

func TestTrafficControllerRow3_AClientThatLeavesEndsItsSubscription(t *testing.T) {
	s := newTrafficControllerSuite(t)
	stream := consumerOf(t, s.controller).App(suiteApp, suiteToken)
	subscription := next(t, "a subscription", s.doppler.V1, within)
	must(t, subscription.SendEnvelope(v1Log(suiteApp, "hello")))
	next(t, "the log", stream.Envelopes, within)
	stream.Close()
	next(t, "the end of the subscription", doneOf(subscription.Context.Done()), within)
}

// doneOf makes one value out of a channel that is closed.
func doneOf(done <-chan struct{}) <-chan bool {
	ended := make(chan bool, 1)
	go func() {
		<-done
		ended <- true
	}()
	return ended
}

func TestTrafficControllerRow4_Firehose(t *testing.T) {
	s := newTrafficControllerSuite(t)
	stream := closing(t, consumerOf(t, s.controller).Firehose("firehose-subscription-1", suiteToken, ""))
	subscription := next(t, "a subscription", s.doppler.V1, within)
	if subscription.Request.ShardID != "firehose-subscription-1" || subscription.Request.Filter != nil {
		t.Fatal(subscription.Request)
	}
	must(t, subscription.SendEnvelope(v1Log(suiteApp, "hello")))
	if kind := next(t, "the log", stream.Envelopes, within).GetEventType(); kind != events.Envelope_LogMessage {
		t.Fatal(kind)
	}
	noErrors(t, stream)
}

func TestTrafficControllerRow5_SetCookie(t *testing.T) {
	s := newTrafficControllerSuite(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: strangerTLS(t)}, Timeout: within}
	form := strings.NewReader("CookieName=authorization&CookieValue=" + url.QueryEscape("bearer+iAmAnAdmin"))
	response, err := client.Post("https://"+s.controller.Addr()+"/set-cookie", "application/x-www-form-urlencoded", form)
	must(t, err)
	defer response.Body.Close()
	cookies := response.Cookies()
	if response.StatusCode != http.StatusOK || len(cookies) != 1 {
		t.Fatalf("%s %v", response.Status, cookies)
	}
	cookie := cookies[0]
	if cookie.Name != "authorization" || cookie.Value != "bearer+iAmAnAdmin" ||
		cookie.Domain != "doppler.vcap.me" || !cookie.Secure {
		t.Fatal(cookie)
	}
}

// handshake tries a TLS handshake and one request.
func (s trafficControllerSuite) handshake(limit func(*tls.Config)) error {
	s.Helper()
	config := strangerTLS(s.T)
	limit(config)
	conn, err := tls.Dial("tcp", s.controller.Addr(), config)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestTrafficControllerRow6_OldTLSIsRefused(t *testing.T) {
	s := newTrafficControllerSuite(t)
	// SSL 3.0 cannot be asked for any more: Go's TLS has forgotten it.
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		err := s.handshake(func(config *tls.Config) { config.MinVersion, config.MaxVersion = version, version })
		if err == nil {
			t.Errorf("%s works", tls.VersionName(version))
		}
	}
}

func TestTrafficControllerRow7_TLS12Works(t *testing.T) {
	s := newTrafficControllerSuite(t)
	must(t, s.handshake(func(config *tls.Config) {
		config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		config.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}))
}

func TestTrafficControllerRow8_TwoSuitesOfTLS12(t *testing.T) {
	s := newTrafficControllerSuite(t)
	allowed := map[uint16]bool{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: true,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: true,
	}
	tried := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if len(suite.SupportedVersions) == 1 && suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		tried++
		err := s.handshake(func(config *tls.Config) {
			config.MaxVersion = tls.VersionTLS12
			config.CipherSuites = []uint16{suite.ID}
		})
		if works := err == nil; works != allowed[suite.ID] {
			t.Errorf("%s: works: %t (%v)", suite.Name, works, err)
		}
	}
	if tried < 20 {
		t.Fatalf("only %d suites", tried)
	}
}

func TestTrafficControllerRow9_AStrangersCertificateDoesNotMatter(t *testing.T) {
	s := newTrafficControllerSuite(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		asked := false
		must(t, s.handshake(func(config *tls.Config) {
			pair := config.Certificates[0]
			config.MinVersion, config.MaxVersion = version, version
			config.Certificates = nil
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return &pair, nil
			}
		}))
		if asked {
			t.Errorf("%s: a client certificate was asked for", tls.VersionName(version))
		}
	}
}

// TestEndToEndRow is router and traffic controller together, as the platform's end-to-end suite runs them.
func TestEndToEndRow_EveryMillisecondALogForAFirehose(t *testing.T) {
	s := newRouterSuite(t)
	addr := s.conn.Target()
	controller := running(t, platform.TrafficController(certificates.trafficController, addr))
	// The token is empty, and its header is sent all the same.
	stream := closing(t, consumerOf(t, controller).Firehose("uniqueId", "", ""))
	send := s.sender()
	every(t, time.Millisecond, func() {
		log := v2Log("custom-app-id", "hello")
		log.InstanceId = "0"
		send(log)
	})
	for {
		envelope := next(t, "a log of the app", stream.Envelopes, within)
		if envelope.GetLogMessage().GetAppId() == "custom-app-id" {
			return
		}
	}
}
