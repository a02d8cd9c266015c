package interop

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/fake"
	"loggregator/interop/internal/platform"
)

// Who may read: a UAA and a Cloud Controller on net/http, clients with good and bad tokens.

const otherApp = "11111111-2222-3333-4444-555555555555"

func fakeAccounts(t *testing.T) *fake.Accounts {
	t.Helper()
	accounts, err := fake.NewAccounts(certificates.uaa, certificates.cloudController)
	must(t, err)
	t.Cleanup(accounts.Stop)
	accounts.Grant("admin", []string{"openid", "doppler.firehose"}, []string{})
	accounts.Grant("developer", []string{"openid"}, []string{suiteApp})
	return accounts
}

// withAccounts turns access control on.
func withAccounts(controller *platform.Component, accounts *fake.Accounts) *platform.Component {
	controller.Env = controller.Env.With(map[string]string{
		"TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL": "false",
		"TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY":       "false",
		"TRAFFIC_CONTROLLER_UAA_HOST":               accounts.UAA,
		"TRAFFIC_CONTROLLER_API_HOST":               accounts.CloudController,
		"TRAFFIC_CONTROLLER_UAA_CLIENT":             fake.ClientID,
		"TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET":      fake.ClientSecret,
	})
	return controller
}

type guarded struct {
	accounts   *fake.Accounts
	doppler    *fake.Router
	controller *platform.Component
}

func newGuarded(t *testing.T) guarded {
	t.Helper()
	t.Parallel()
	accounts, doppler := fakeAccounts(t), fakeRouter(t, everyMethod)
	controller := platform.TrafficController(certificates.trafficController, doppler.Addr)
	return guarded{accounts, doppler, running(t, withAccounts(controller, accounts))}
}

func (g guarded) consumer(t *testing.T) *clients.Consumer { return consumerOf(t, g.controller) }

// refusedWith is the error of a client that does not come again.
func (g guarded) refused(t *testing.T, open func(*clients.Consumer) *clients.Stream) error {
	t.Helper()
	consumer := g.consumer(t)
	consumer.Once = true
	return next(t, "an error", closing(t, open(consumer)).Errors, within)
}

func TestAccounts_AFirehoseNeedsItsScope(t *testing.T) {
	g := newGuarded(t)
	stream := closing(t, g.consumer(t).Firehose("allowed", "bearer admin", ""))
	must(t, next(t, "a subscription", g.doppler.V1, within).SendEnvelope(v1Log(suiteApp, "hello")))
	next(t, "a log", stream.Envelopes, within)
	noErrors(t, stream)

	for token, body := range map[string]string{
		"":                  "You are not authorized. authorization not provided",
		"bearer nobody":     "You are not authorized. invalid authorization",
		"bearer developer":  "You are not authorized. invalid authorization",
		"Bearer admin":      "You are not authorized. invalid authorization",
		"bearer admin more": "You are not authorized. invalid authorization",
	} {
		err := g.refused(t, func(consumer *clients.Consumer) *clients.Stream {
			return consumer.Firehose("refused", token, "")
		})
		var refused *clients.Unauthorized
		if !errors.As(err, &refused) || refused.Body != body {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestAccounts_AClientComesOnceMoreWithANewToken(t *testing.T) {
	g := newGuarded(t)
	for _, expired := range []string{"bearer expired", ""} {
		refreshed := 0
		consumer := g.consumer(t)
		consumer.Refresh = func() (string, error) {
			refreshed++
			return "bearer admin", nil
		}
		stream := closing(t, consumer.Firehose("refreshed", expired, ""))
		must(t, next(t, "a subscription", g.doppler.V1, within).SendEnvelope(v1Log(suiteApp, "hello")))
		next(t, "a log", stream.Envelopes, within)
		noErrors(t, stream)
		if refreshed != 1 {
			t.Errorf("%q: %d new tokens", expired, refreshed)
		}
	}
}

func TestAccounts_AnApplicationsStreamIsTheCloudControllersAffair(t *testing.T) {
	g := newGuarded(t)
	// The header goes to the Cloud Controller as it is.
	stream := closing(t, g.consumer(t).App(suiteApp, "bearer developer"))
	subscription := next(t, "a subscription", g.doppler.V1, within)
	if subscription.Request.GetFilter().GetAppID() != suiteApp {
		t.Fatal(subscription.Request)
	}
	must(t, subscription.SendEnvelope(v1Log(suiteApp, "hello")))
	next(t, "a log", stream.Envelopes, within)
	noErrors(t, stream)

	app := func(guid, token string) func(*clients.Consumer) *clients.Stream {
		return func(consumer *clients.Consumer) *clients.Stream { return consumer.App(guid, token) }
	}
	for name, open := range map[string]func(*clients.Consumer) *clients.Stream{
		"no token":        app(suiteApp, ""),
		"unknown token":   app(suiteApp, "bearer nobody"),
		"no guid":         app("not-a-guid", "bearer developer"),
		"a guid and more": app(suiteApp+"0", "bearer developer"),
	} {
		var refused *clients.Unauthorized
		if err := g.refused(t, open); !errors.As(err, &refused) || refused.Body != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Somebody else's application is one that does not exist: no 401, and so no new token.
	err := g.refused(t, app(otherApp, "bearer developer"))
	var refused *clients.Unauthorized
	if errors.As(err, &refused) || !strings.Contains(err.Error(), "bad handshake") {
		t.Error(err)
	}
}

func TestAccounts_EndpointsThatAreGone(t *testing.T) {
	g := newGuarded(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS(t, certificates.client, "trafficcontroller")}}
	for _, path := range []string{"/apps/" + suiteApp + "/containermetrics", "/apps/" + suiteApp + "/recentlogs", "/firehose/"} {
		request, err := http.NewRequest(http.MethodGet, "https://"+g.controller.Addr()+path, nil)
		must(t, err)
		request.Header.Set("Authorization", "bearer admin")
		response, err := client.Do(request)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		must(t, err)
		if response.StatusCode != http.StatusNotFound || string(body) != "404 page not found\n" ||
			response.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: %s %q", path, response.Status, body)
		}
	}
}

// A browser's cookie, set by the traffic controller itself, is as good as a header.
func TestAccounts_ACookieOpensAFirehose(t *testing.T) {
	g := newGuarded(t)
	consumer := g.consumer(t)
	consumer.Cookie = "authorization=bearer+admin"
	stream := closing(t, consumer.Firehose("by-cookie", "", ""))
	must(t, next(t, "a subscription", g.doppler.V1, within).SendEnvelope(v1Log(suiteApp, "hello")))
	next(t, "a log", stream.Envelopes, within)
	noErrors(t, stream)
}
