package fake

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"loggregator/interop/internal/pki"
)

// Accounts is a UAA and a Cloud Controller with the same people: who has which scopes, and who may read which sources.
type Accounts struct {
	// UAA and CloudController are base URLs.
	UAA, CloudController string
	lock                 sync.Mutex
	scopes               map[string][]string
	sources              map[string][]string
	checks               map[string]int
	servers              []*httptest.Server
}

// The client that UAA knows.
const (
	ClientID     = "doppler"
	ClientSecret = "doppler-secret"
)

// NewAccounts starts both: UAA over TLS, the Cloud Controller with mutual TLS.
func NewAccounts(uaa, cloudController pki.Files) (*Accounts, error) {
	accounts := &Accounts{scopes: map[string][]string{}, sources: map[string][]string{}, checks: map[string]int{}}
	checks := http.NewServeMux()
	checks.HandleFunc("POST /check_token", accounts.checkToken)
	access := http.NewServeMux()
	access.HandleFunc("GET /internal/v4/log_access/{id}", accounts.logAccess)
	access.HandleFunc("GET /v3/service_instances/{id}", accounts.logAccess)
	var err error
	if accounts.UAA, err = accounts.serve(uaa, tls.NoClientCert, checks); err != nil {
		return nil, err
	}
	accounts.CloudController, err = accounts.serve(cloudController, tls.RequireAndVerifyClientCert, access)
	return accounts, err
}

func (a *Accounts) serve(files pki.Files, auth tls.ClientAuthType, handler http.Handler) (string, error) {
	config, err := files.Server()
	if err != nil {
		return "", err
	}
	config.ClientAuth = auth
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &httptest.Server{Listener: listener, TLS: config, Config: &http.Server{
		Handler: handler, ErrorLog: log.New(io.Discard, "", 0),
	}}
	server.StartTLS()
	a.servers = append(a.servers, server)
	return server.URL, nil
}

// Stop stops both.
func (a *Accounts) Stop() {
	for _, server := range a.servers {
		server.Close()
	}
}

// Grant gives a token (without prefix) scopes and sources; without either it is revoked.
func (a *Accounts) Grant(token string, scopes, sources []string) {
	a.lock.Lock()
	defer a.lock.Unlock()
	a.scopes[token], a.sources[token] = scopes, sources
}

// Checks is how often UAA was asked about this token.
func (a *Accounts) Checks(token string) int {
	a.lock.Lock()
	defer a.lock.Unlock()
	return a.checks[token]
}

func (a *Accounts) checkToken(answer http.ResponseWriter, request *http.Request) {
	answer.Header().Set("Content-Type", "application/json")
	if id, secret, _ := request.BasicAuth(); id != ClientID || secret != ClientSecret {
		answer.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := request.PostFormValue("token")
	a.lock.Lock()
	scopes := a.scopes[token]
	a.checks[token]++
	a.lock.Unlock()
	if scopes == nil {
		answer.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(answer).Encode(map[string]string{
			"error": "invalid_token", "error_description": "Cannot convert access token to JSON",
		})
		return
	}
	_ = json.NewEncoder(answer).Encode(map[string]any{"scope": scopes, "user_name": "somebody"})
}

func (a *Accounts) logAccess(answer http.ResponseWriter, request *http.Request) {
	token, isBearer := strings.CutPrefix(request.Header.Get("Authorization"), "bearer ")
	a.lock.Lock()
	sources := a.sources[token]
	a.lock.Unlock()
	if !isBearer || sources == nil {
		answer.WriteHeader(http.StatusUnauthorized)
		return
	}
	for _, source := range sources {
		if source == request.PathValue("id") {
			return
		}
	}
	answer.WriteHeader(http.StatusNotFound)
}
