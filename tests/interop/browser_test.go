package interop

import (
	"crypto/tls"
	_ "embed"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	v2 "loggregator/interop/gen/v2"
)

// A browser's own client of Server-Sent Events.

//go:embed browser/page.html
var page []byte

// report is what the page says that its EventSource did.
type report struct {
	Kind, Data string
}

// browserProxy serves the page, takes its reports, and passes /v2/read on with the header that an EventSource cannot
// send.
func browserProxy(t *testing.T, gateway, token string, config *tls.Config) (string, <-chan report) {
	t.Helper()
	target, err := url.Parse("https://" + gateway)
	must(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(target)
			request.Out.Header.Set("Authorization", token)
		},
		Transport: &http.Transport{TLSClientConfig: config},
	}
	reports := make(chan report, 10_000)
	mux := http.NewServeMux()
	mux.Handle("/v2/read", proxy)
	mux.HandleFunc("POST /report", func(_ http.ResponseWriter, request *http.Request) {
		var one report
		body, _ := io.ReadAll(request.Body)
		if json.Unmarshal(body, &one) == nil {
			reports <- one
		}
	})
	mux.HandleFunc("GET /{$}", func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = answer.Write(page)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL, reports
}

func browser() (string, bool) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
	}
	return "", false
}

// browse opens the page in a browser without a window.
func browse(t *testing.T, path, page string) {
	t.Helper()
	profile, err := os.MkdirTemp("", "loggregator-browser-")
	must(t, err)
	command := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+profile, "--remote-debugging-port=0", page)
	command.Env = append(os.Environ(), "HOME="+profile)
	// The browser is several processes, in a group of their own.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, command.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
		_ = command.Wait()
		_ = os.RemoveAll(profile)
	})
}

func TestBrowser_EventSourceReadsAndComesAgain(t *testing.T) {
	t.Parallel()
	path, found := browser()
	if !found {
		skip(t, "no browser (Debian: chromium)")
	}
	// Long enough for a heartbeat, and no longer.
	p := newGatewayPath(t, map[string]string{"STREAM_TIMEOUT": "17s"})
	address, reports := browserProxy(t, p.gateway.Addr(), "bearer admin", clientTLS(t, certificates.client, "gateway"))
	browse(t, path, address+"/?log&source_id=browser&shard_id=browser")

	wait := func(kind string) report {
		t.Helper()
		for {
			if got := next(t, kind, reports, time.Minute); got.Kind == kind {
				return got
			} else if got.Kind != "message" && got.Kind != "error" {
				t.Fatalf("%v instead of %s", got, kind)
			}
		}
	}
	// messages are the logs of events until the last of those wanted.
	messages := func(wanted ...string) {
		t.Helper()
		var got []string
		for !slices.Contains(got, wanted[len(wanted)-1]) {
			event := wait("message")
			batch := &v2.EnvelopeBatch{}
			must(t, protojson.Unmarshal([]byte(event.Data), batch))
			for _, envelope := range batch.Batch {
				if envelope.InstanceId != marker {
					got = append(got, string(envelope.GetLog().GetPayload()))
				}
			}
		}
		if !slices.Equal(got, wanted) {
			t.Fatalf("%q instead of %q", got, wanted)
		}
	}
	emit := func(wanted ...string) {
		for _, message := range wanted {
			p.emitter.Emit(v2Log("browser", message))
		}
		p.emitter.Flush()
	}

	wait("open")
	for primed := false; !primed; {
		mark := v2Log("browser", "")
		mark.InstanceId = marker
		p.emitter.Emit(mark)
		p.emitter.Flush()
		select {
		case got := <-reports:
			primed = got.Kind == "message"
		case <-time.After(50 * time.Millisecond):
		}
	}
	emit("one", "zwei ß <&>", "three")
	messages("one", "zwei ß <&>", "three")
	if beat := wait("heartbeat"); len(beat.Data) != 10 {
		t.Fatal(beat)
	}
	if end := wait("closing"); end.Data != "closing due to stream timeout" {
		t.Fatal(end)
	}
	// A browser waits some seconds before it comes again; what happens meanwhile is kept for it.
	emit("four", "five")
	wait("open")
	messages("four", "five")
	emit("six")
	messages("six")
}
