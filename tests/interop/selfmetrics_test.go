package interop

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"loggregator/interop/gen/plumbing"
	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/fake"
	"loggregator/interop/internal/platform"
)

// What our programs tell their agent about themselves, an agent on grpc-go whose certificate is named `metron`.

func fakeAgent(t *testing.T) *fake.Agent {
	t.Helper()
	agent, err := fake.NewAgent(certificates.metron)
	must(t, err)
	t.Cleanup(agent.Stop)
	return agent
}

// A series is a metric with its tags, as one line.
func series(t *testing.T, envelope *v2.Envelope) string {
	t.Helper()
	if envelope.Timestamp == 0 || envelope.InstanceId != "" || len(envelope.Tags) != 0 {
		t.Fatalf("not the layout of a component's own metric: %v", envelope)
	}
	line := ""
	switch message := envelope.Message.(type) {
	case *v2.Envelope_Counter:
		if message.Counter.Total != 0 {
			t.Fatalf("a total: %v", envelope)
		}
		line = "counter " + message.Counter.Name
	case *v2.Envelope_Gauge:
		if len(message.Gauge.Metrics) != 1 {
			t.Fatalf("not one metric: %v", envelope)
		}
		for name, value := range message.Gauge.Metrics {
			line = "gauge " + name + " in " + value.Unit
		}
	default:
		t.Fatalf("neither counter nor gauge: %v", envelope)
	}
	for _, key := range slices.Sorted(maps.Keys(envelope.DeprecatedTags)) {
		text, isText := envelope.DeprecatedTags[key].GetData().(*v2.Value_Text)
		if !isText {
			t.Fatalf("not a text: %v", envelope)
		}
		line += fmt.Sprintf(" %s=%s", key, text.Text)
	}
	return envelope.SourceId + ": " + line
}

// expectSeries collects until each series came and holds the collection against them: nothing else may come.
func expectSeries(t *testing.T, agent *fake.Agent, wanted ...string) {
	t.Helper()
	slices.Sort(wanted)
	found := map[string]bool{}
	for len(found) < len(wanted) {
		found[series(t, next(t, fmt.Sprintf("more than %v", slices.Sorted(maps.Keys(found))), agent.Envelopes, within))] = true
	}
	// One more round.
	for range len(wanted) {
		found[series(t, next(t, "the next round", agent.Envelopes, within))] = true
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, wanted) {
		t.Fatalf("\ngot    %q\nwanted %q", got, wanted)
	}
}

// sum adds up the deltas of a counter and the last value of a gauge, until done.
func sum(t *testing.T, agent *fake.Agent, what string, done func(totals map[string]float64) bool) {
	t.Helper()
	totals := map[string]float64{}
	deadline := time.After(patience)
	for !done(totals) {
		select {
		case envelope := <-agent.Envelopes:
			name := series(t, envelope)
			if gauge := envelope.GetGauge(); gauge != nil {
				for _, value := range gauge.Metrics {
					totals[name] = value.Value
				}
			} else {
				totals[name] += float64(envelope.GetCounter().GetDelta())
			}
		case <-deadline:
			t.Fatalf("%s: %v", what, totals)
		}
	}
}

func TestSelfMetrics_Router(t *testing.T) {
	t.Parallel()
	agent := fakeAgent(t)
	router := running(t, platform.Router(certificates.doppler, agent.Addr))
	const tags = " metric_version=2.0 origin=loggregator.doppler"
	expectSeries(t, agent,
		"doppler: counter dropped direction=egress"+tags,
		"doppler: counter dropped direction=ingress"+tags,
		"doppler: counter egress"+tags,
		"doppler: counter ingress"+tags,
		"doppler: gauge subscriptions in subscriptions"+tags,
	)

	conn := dialRouter(t, router)
	request := &plumbing.SubscriptionRequest{ShardID: "a", Filter: &plumbing.Filter{AppID: "counted"}}
	stream, err := plumbing.NewDopplerClient(conn).BatchSubscribe(cancelled(t), request)
	must(t, err)
	_, err = stream.Header()
	must(t, err)
	emitter, err := clients.NewEmitter(router.Addr(), clientTLS(t, certificates.metron, "doppler"))
	must(t, err)
	defer emitter.Close()
	for range 10 {
		emitter.Emit(v2Log("counted", "hello"))
	}
	sum(t, agent, "10 envelopes in and out", func(totals map[string]float64) bool {
		return totals["doppler: counter ingress"+tags] == 10 && totals["doppler: counter egress"+tags] == 10 &&
			totals["doppler: gauge subscriptions in subscriptions"+tags] == 1
	})
}

func TestSelfMetrics_TrafficController(t *testing.T) {
	t.Parallel()
	agent := fakeAgent(t)
	doppler := fakeRouter(t, everyMethod)
	controller := platform.TrafficController(certificates.trafficController, doppler.Addr)
	controller.Env["AGENT_GRPC_ADDRESS"] = agent.Addr
	controller.Env["TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL"] = "50ms"
	running(t, controller)
	const source, tags = "traffic_controller: ", " metric_version=2.0 origin=loggregator.trafficcontroller"
	const ingress = source + "counter ingress metric_version=2.0 origin=loggregator.trafficcontroller protocol=grpc"
	const firehose, app = source + "counter egress endpoint=firehose" + tags, source + "counter egress endpoint=stream" + tags
	expectSeries(t, agent,
		ingress, firehose, app,
		source+"counter doppler_proxy.slow_consumer"+tags,
		source+"gauge doppler_proxy.app_streams in connections"+tags,
		source+"gauge doppler_proxy.firehoses in connections"+tags,
	)

	everything := closing(t, consumerOf(t, controller).Firehose("counted", suiteToken, ""))
	toFirehose := next(t, "the firehose's subscription", doppler.V1, within)
	ofApp := closing(t, consumerOf(t, controller).App(suiteApp, suiteToken))
	toApp := next(t, "the application's subscription", doppler.V1, within)
	for range 10 {
		must(t, toFirehose.SendEnvelope(v1Log(suiteApp, "hello")))
		next(t, "a log", everything.Envelopes, within)
	}
	for range 5 {
		must(t, toApp.SendEnvelope(v1Log(suiteApp, "hello")))
		next(t, "a log", ofApp.Envelopes, within)
	}
	sum(t, agent, "10 and 5 envelopes", func(totals map[string]float64) bool {
		return totals[ingress] == 15 && totals[firehose] == 10 && totals[app] == 5
	})
}

func TestSelfMetrics_ReverseLogProxy(t *testing.T) {
	t.Parallel()
	agent := fakeAgent(t)
	doppler := fakeRouter(t, everyMethod)
	proxy := platform.ReverseLogProxy(certificates.reverseLogProxy, doppler.Addr)
	proxy.Env["AGENT_ADDR"] = agent.Addr
	proxy.Env["RLP_METRIC_EMITTER_INTERVAL"] = "50ms"
	running(t, proxy)
	const source, tags = "reverse_log_proxy: ", " metric_version=2.0 origin=loggregator.rlp"
	const ingress = source + "counter ingress metric_version=2.0 origin=loggregator.rlp protocol=grpc"
	const egress, subscriptions = source + "counter egress" + tags, source + "gauge subscriptions in total" + tags
	expectSeries(t, agent,
		ingress, egress, subscriptions,
		source+"counter dropped direction=egress"+tags,
		source+"counter rejected_streams"+tags,
		source+"counter log_router_connects origin=loggregator.rlp",
		source+"counter log_router_disconnects origin=loggregator.rlp",
	)

	batches := readProxy(t, proxy, &v2.EgressBatchRequest{Selectors: []*v2.Selector{anyLog("")}})
	subscription := next(t, "a subscription", doppler.V2, within)
	for range 10 {
		must(t, subscription.Send(v2Log("source", "hello")))
		next(t, "a batch", batches, within)
	}
	sum(t, agent, "10 envelopes", func(totals map[string]float64) bool {
		return totals[ingress] == 10 && totals[egress] == 10 && totals[subscriptions] == 1
	})
}
