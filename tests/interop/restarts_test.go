package interop

import (
	"fmt"
	"slices"
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
		p.v2(name, client.Supervised(cancelled(t), request(name, also)).Batches)
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

// explain holds what every reader got of the numbers after `from` against the router's ledger. They are the same, but for
// readers behind a process that was killed: it takes with it what the router's connection to it had taken.
func (p pipeline) explain(t *testing.T, from int, behind ...string) {
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
		killed := slices.Contains(behind, name)
		if rows == 0 || dropped < tracker.Noticed() || got > delivered || (!killed && got != delivered) {
			t.Errorf("%s got %d of %d (missing %v) and was told of %d; the router (%d rows) delivered %d and dropped %d",
				name, got, p.count()-from, gaps, tracker.Noticed(), rows, delivered, dropped)
		}
		// A reader with a name misses nothing else: the router keeps for it what happens while it is away.
		if named(name) && from == 0 {
			if since := p.count() - tracker.First() + 1; delivered < since || dropped != 0 {
				t.Errorf("%s: of %d since its first the router delivered %d and dropped %d", name, since, delivered, dropped)
			}
		}
		if got != delivered {
			t.Logf("%s: %d were on their way when a process between was killed", name, delivered-got)
		}
	}
}

// named tells whether a reader's subscription has an id, under which it goes on.
func named(reader string) bool { return !strings.Contains(reader, "unnamed") && reader != "app" }

// restarts stops and starts a component twice while logs flow, in both ways. Only the readers behind it may notice: those
// without a name miss what happens while they are away, and those behind a killed one what was on its way to it.
func restarts(t *testing.T, which func(pipeline) *platform.Component, behind ...string) {
	t.Parallel()
	for name, stop := range ways {
		t.Run(name, func(t *testing.T) {
			p := newPipeline(t)
			for range 2 {
				must(t, stop(which(p)))
				must(t, which(p).Start())
				p.caughtUp(t, "after a restart")
			}
			p.finish(t)
			for reader := range p.readers {
				if slices.Contains(behind, reader) && (name == "SIGKILL" || !named(reader)) {
					p.orderly(t, reader)
				} else {
					p.complete(t, reader)
				}
			}
			if name == "SIGKILL" {
				p.explain(t, 0, behind...)
			} else {
				p.explain(t, 0)
			}
		})
	}
}

// ways to stop a component.
var ways = map[string]func(*platform.Component) error{
	"SIGTERM": (*platform.Component).Terminate,
	"SIGKILL": func(component *platform.Component) error { component.Kill(); return nil },
}

func TestRestart_TrafficController(t *testing.T) {
	restarts(t, func(p pipeline) *platform.Component { return p.controller }, "firehose", "app")
}

func TestRestart_ReverseLogProxy(t *testing.T) {
	restarts(t, func(p pipeline) *platform.Component { return p.proxy }, "rlp", "rlp unnamed", "gateway", "gateway unnamed")
}

func TestRestart_Gateway(t *testing.T) {
	restarts(t, func(p pipeline) *platform.Component { return p.gateway }, "gateway", "gateway unnamed")
}

// The emitter waits while the router is away: what it has in hand when a router goes is not the readers' affair.
func TestRestart_Router(t *testing.T) {
	t.Parallel()
	for name, stop := range ways {
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
				p.explain(t, last)
				p.emit(p.emitter)
			}
			p.finish(t)
			for name := range p.readers {
				p.orderly(t, name)
			}
		})
	}
}
