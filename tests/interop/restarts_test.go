package interop

import (
	"fmt"
	"strings"
	"testing"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/ledger"
	"loggregator/interop/internal/platform"
)

// Every kind of client outlives a restart of every one of our processes.

type pipeline struct {
	gatewayPath
	controller *platform.Component
	admin      string
	*watcher
}

// newPipeline is everything we have, an emitter and a reader of each kind, all of them reading.
func newPipeline(t *testing.T) pipeline {
	t.Helper()
	t.Parallel()
	port, err := platform.FreePort()
	must(t, err)
	p := pipeline{watcher: watch(t, suiteApp), admin: fmt.Sprintf("127.0.0.1:%d", port)}
	router := platform.Router(certificates.doppler, "127.0.0.1:0")
	router.Env["DOPPLER_ADMIN_ADDR"] = p.admin
	p.router = running(t, router)
	p.proxy = running(t, platform.ReverseLogProxy(certificates.reverseLogProxy, router.Addr()))
	p.accounts = fakeAccounts(t)
	p.gateway = gatewayTo(t, p.proxy.Addr(), p.accounts, nil)
	p.controller = running(t, platform.TrafficController(certificates.trafficController, router.Addr()))
	p.emitter = emitterTo(t, router)

	p.v1("firehose", closing(t, consumerOf(t, p.controller).Firehose("firehose", "", clients.LogsOnly)))
	p.v1("app", closing(t, consumerOf(t, p.controller).App(suiteApp, "")))
	// Each asks for something of its own, so that its row in the router's ledger can be told from the others'.
	for name, also := range map[string]*v2.Selector{"rlp": timerOf(suiteApp), "rlp unnamed": eventOf(suiteApp)} {
		stream, err := connectorTo(t, p.proxy).Stream(cancelled(t), request(name, also))
		must(t, err)
		p.v2(name, stream.Batches)
	}
	for name, also := range map[string]*v2.Selector{"gateway": timerOf(suiteApp), "gateway unnamed": gaugeOf(suiteApp)} {
		client := gatewayClient(t, p.gateway, "bearer admin", false)
		p.v2(name, client.Stream(cancelled(t), request(name, also)).Batches)
	}
	p.emit(p.emitter)
	p.caughtUp(t, "before any restart")
	return p
}

func request(name string, also *v2.Selector) *v2.EgressBatchRequest {
	wanted := &v2.EgressBatchRequest{UsePreferredTags: true, Selectors: []*v2.Selector{anyLog(suiteApp), also}}
	if !strings.Contains(name, "unnamed") {
		wanted.ShardId = name
	}
	return wanted
}

// rowsOf tells which rows of the router's ledger belong to a reader.
var rowsOf = map[string]func(ledger.Subscription) bool{
	"firehose":        func(row ledger.Subscription) bool { return row.ID == "firehose" },
	"app":             func(row ledger.Subscription) bool { return row.API == "v1" && row.ID == "" },
	"rlp":             func(row ledger.Subscription) bool { return row.ID == "rlp" },
	"gateway":         func(row ledger.Subscription) bool { return row.ID == "gateway" },
	"rlp unnamed":     func(row ledger.Subscription) bool { return row.ID == "" && strings.Contains(row.Selector, "event") },
	"gateway unnamed": func(row ledger.Subscription) bool { return row.ID == "" && strings.Contains(row.Selector, "gauge") },
}

// explain holds what every reader got of the numbers after `from` against the router's ledger. When nothing was killed
// they are the same; a process that was killed takes with it what the router had delivered to it.
func (p pipeline) explain(t *testing.T, from int, killed bool) {
	t.Helper()
	report, err := ledger.Read(p.admin)
	must(t, err)
	for name, tracker := range p.readers {
		var delivered, dropped, rows int
		for _, row := range report.Subscriptions {
			if rowsOf[name](row) {
				rows++
				delivered += int(row.Delivered)
				dropped += int(row.Lost())
				if !row.Balanced() {
					t.Errorf("%s: the router's ledger is out of balance: %+v", name, row)
				}
			}
		}
		got := p.count() - from
		gaps := tracker.Gaps(from+1, p.count())
		for _, gap := range gaps {
			got -= gap.Len()
		}
		if rows == 0 || dropped != tracker.Noticed() || got > delivered || (!killed && got != delivered) {
			t.Errorf("%s got %d of %d (missing %v) and was told of %d; the router (%d rows) delivered %d and dropped %d",
				name, got, p.count()-from, gaps, tracker.Noticed(), rows, delivered, dropped)
		}
		if killed && got != delivered {
			t.Logf("%s: %d were on their way to it when a process was killed", name, delivered-got)
		}
	}
}

// restarts stops and starts a component twice while logs flow, in both ways. These readers must not notice when it is
// stopped in order, and these not even when it is killed.
func restarts(t *testing.T, which func(pipeline) *platform.Component, stopped, killed []string) {
	t.Parallel()
	for name, stop := range map[string]func(*platform.Component) error{
		"SIGTERM": (*platform.Component).Terminate,
		"SIGKILL": func(component *platform.Component) error { component.Kill(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPipeline(t)
			for range 2 {
				must(t, stop(which(p)))
				must(t, which(p).Start())
				p.caughtUp(t, "after a restart")
			}
			p.finish(t)
			complete := stopped
			if name == "SIGKILL" {
				complete = killed
			}
			for name := range p.readers {
				p.orderly(t, name)
			}
			for _, name := range complete {
				p.complete(t, name)
			}
			p.explain(t, 0, name == "SIGKILL")
		})
	}
}

func TestRestart_TrafficController(t *testing.T) {
	others := []string{"rlp", "rlp unnamed", "gateway", "gateway unnamed"}
	restarts(t, func(p pipeline) *platform.Component { return p.controller }, append(others, "firehose"), others)
}

func TestRestart_ReverseLogProxy(t *testing.T) {
	others := []string{"firehose", "app"}
	restarts(t, func(p pipeline) *platform.Component { return p.proxy }, append(others, "rlp", "gateway"), others)
}

func TestRestart_Gateway(t *testing.T) {
	others := []string{"firehose", "app", "rlp", "rlp unnamed"}
	restarts(t, func(p pipeline) *platform.Component { return p.gateway }, append(others, "gateway"), others)
}

// The emitter waits while the router is away: what it has in hand when a router goes is not the readers' affair.
func TestRestart_Router(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*platform.Component) error{
		"SIGTERM": (*platform.Component).Terminate,
		"SIGKILL": func(component *platform.Component) error { component.Kill(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPipeline(t)
			for range 2 {
				// What is on its way arrives: then even a kill costs nothing.
				p.finish(t)
				last := p.count()
				must(t, stop(p.router))
				must(t, p.router.Start())
				p.emit(p.emitter)
				p.caughtUp(t, "after a restart of the router")
				p.finish(t)
				p.explain(t, last, false)
				p.emit(p.emitter)
			}
			p.finish(t)
			for name := range p.readers {
				p.orderly(t, name)
			}
		})
	}
}
