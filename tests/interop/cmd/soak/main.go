// Command soak reads a firehose WebSocket and `GET /v2/read` for a long time while everything around them changes: streams
// reach their timeout, certificates are replaced on disk, and two routers and the programs between are restarted in turn,
// with SIGTERM. Emitters number their logs; at the end every number that a reader did not get must stand in an account, or
// the command fails.
//
//	go run ./cmd/soak -duration 10m
//
// The accounts are the routers' ledgers, of every life of a router: what it says of itself when it has stopped, and its
// admin port for the last one. Over all of them
//
//	sent - accepted       must be what no reader got: it was on its way to a router that went
//	accepted - received   is what came to a restarted router before the reader was back
//	received - delivered  was dropped for the reader, which is told in its stream, or not taken before the router's end
//	delivered             must be what the reader got
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/fake"
	"loggregator/interop/internal/ledger"
	"loggregator/interop/internal/pki"
	"loggregator/interop/internal/platform"
	"loggregator/interop/internal/process"
)

var (
	duration      = flag.Duration("duration", 10*time.Minute, "how long logs are emitted")
	rate          = flag.Int("rate", 1000, "logs per second, over both routers")
	streamTimeout = flag.Duration("stream-timeout", 45*time.Second, "STREAM_TIMEOUT of the gateway")
	restartEvery  = flag.Duration("restart-every", 40*time.Second, "time from one restart to the next")
	between       = flag.Bool("restart-between", true, "after each round of routers, restart one of the programs between")
	rotateEvery   = flag.Duration("rotate-every", 25*time.Second, "time between rotations of all certificates")
)

const (
	firehoseID = "soak-firehose"
	readID     = "soak-read"
	settle     = 30 * time.Second
)

func main() {
	flag.Parse()
	log.SetFlags(log.Ltime)
	dir, err := os.MkdirTemp("", "loggregator-soak-")
	if err != nil {
		log.Fatal(err)
	}
	explained, err := run(dir)
	_ = os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
	if !explained {
		log.Fatal("there are gaps that nothing explains")
	}
}

// account is what a router has said of itself, over all its lives.
type account struct {
	lives    int
	accepted uint64
	rows     map[string]ledger.Subscription
}

func (a *account) add(report ledger.Report) {
	a.lives++
	a.accepted += report.Ingress.Accepted
	for _, row := range report.Subscriptions {
		sum := a.rows[row.ID]
		sum.Received += row.Received
		sum.Delivered += row.Delivered
		sum.Pending += row.Pending
		sum.Dropped = map[string]uint64{"any": sum.Lost() + row.Lost()}
		a.rows[row.ID] = sum
	}
}

// deployment is what is being soaked.
type deployment struct {
	authority *pki.Authority
	files     map[string]pki.Files
	routers   []*platform.Component
	admin     []string
	ledgers   []*account
	others    []*platform.Component
	accounts  *fake.Accounts
}

// names of the certificates in use.
var names = []string{"doppler", "trafficcontroller", "reverselogproxy", "gateway", "client", "uaa", "cloud-controller"}

func (d *deployment) issue() error {
	for _, name := range names {
		files, err := d.authority.Issue(name)
		if err != nil {
			return err
		}
		d.files[name] = files
	}
	return nil
}

// start starts everything; what was started is stopped by stop, also after an error.
func (d *deployment) start(dir string) (controller, gateway string, err error) {
	if d.authority, err = pki.New(dir, "loggregator-ca"); err != nil {
		return "", "", err
	}
	d.files = map[string]pki.Files{}
	if err = d.issue(); err != nil {
		return "", "", err
	}
	var addrs []string
	for range 2 {
		port, err := platform.FreePort()
		if err != nil {
			return "", "", err
		}
		router := platform.Router(d.files["doppler"], "127.0.0.1:0")
		d.admin = append(d.admin, fmt.Sprintf("127.0.0.1:%d", port))
		router.Env["DOPPLER_ADMIN_ADDR"] = d.admin[len(d.admin)-1]
		if err := router.Start(); err != nil {
			return "", "", err
		}
		d.routers = append(d.routers, router)
		d.ledgers = append(d.ledgers, &account{rows: map[string]ledger.Subscription{}})
		addrs = append(addrs, router.Addr())
	}
	if d.accounts, err = fake.NewAccounts(d.files["uaa"], d.files["cloud-controller"]); err != nil {
		return "", "", err
	}
	d.accounts.Grant("admin", []string{"doppler.firehose"}, []string{})
	tc := platform.TrafficController(d.files["trafficcontroller"], addrs...)
	rlp := platform.ReverseLogProxy(d.files["reverselogproxy"], addrs...)
	for _, component := range []*platform.Component{tc, rlp} {
		if err := component.Start(); err != nil {
			return "", "", err
		}
		d.others = append(d.others, component)
	}
	web := platform.Gateway(d.files["gateway"], rlp.Addr(), d.accounts.UAA, d.accounts.CloudController)
	web.Env = web.Env.With(process.Env{
		"STREAM_TIMEOUT":          streamTimeout.String(),
		"LOG_ADMIN_CLIENT_ID":     fake.ClientID,
		"LOG_ADMIN_CLIENT_SECRET": fake.ClientSecret,
	})
	if err := web.Start(); err != nil {
		return "", "", err
	}
	d.others = append(d.others, web)
	return tc.Addr(), web.Addr(), nil
}

func (d *deployment) stop() {
	for _, component := range append(d.others, d.routers...) {
		component.Kill()
	}
	if d.accounts != nil {
		d.accounts.Stop()
	}
}

func run(dir string) (bool, error) {
	d := &deployment{}
	defer d.stop()
	controller, gatewayAddr, err := d.start(dir)
	if err != nil {
		return false, err
	}
	emitters, err := d.emitters()
	if err != nil {
		return false, err
	}

	firehose, read := newReader("firehose", firehoseID, emitters), newReader("read", readID, emitters)
	toController, err := d.files["client"].Client("trafficcontroller")
	if err != nil {
		return false, err
	}
	consumer := &clients.Consumer{URL: "wss://" + controller, TLS: toController}
	stream := consumer.Firehose(firehoseID, "", clients.LogsOnly)
	defer stream.Close()
	go firehose.v1(stream)

	toGateway, err := d.files["client"].Client("gateway")
	if err != nil {
		return false, err
	}
	gateway := &clients.Gateway{Addr: "https://" + gatewayAddr, Client: clients.WithToken{
		Token: "bearer admin", HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: toGateway}},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go read.v2(gateway.Supervised(ctx, &v2.EgressBatchRequest{ShardId: readID, Selectors: []*v2.Selector{
		{Message: &v2.Selector_Log{Log: &v2.LogSelector{}}},
	}}))
	if err := d.subscribed(); err != nil {
		return false, err
	}
	if err := d.soak(emitters, gateway, firehose, read); err != nil {
		return false, err
	}
	return d.conclude(emitters, firehose, read), nil
}

// subscribed waits until both readers stand at both routers.
func (d *deployment) subscribed() error {
	deadline := time.Now().Add(settle)
	for _, admin := range d.admin {
		for open := 0; open < 2; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("the readers do not come to the router of %s", admin)
			}
			report, err := ledger.Read(admin)
			if err != nil {
				return err
			}
			open = 0
			for _, row := range report.Subscriptions {
				if row.Open && (row.ID == firehoseID || row.ID == readID) {
					open++
				}
			}
		}
	}
	return nil
}

// soak lets logs flow and changes things, until the time is over.
func (d *deployment) soak(emitters []*emitter, gateway *clients.Gateway, readers ...*reader) error {
	interrupted, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	for _, emitter := range emitters {
		go emitter.run()
	}
	over, restart, rotate := time.After(*duration), time.NewTicker(*restartEvery), time.NewTicker(*rotateEvery)
	progress := time.NewTicker(10 * time.Second)
	restarts, rotations := 0, 0
	for {
		select {
		case <-over:
			log.Printf("%d restarts, %d rotations, %d stream timeouts", restarts, rotations, gateway.Closings.Load())
			return stopAll(emitters)
		case <-interrupted.Done():
			return stopAll(emitters)
		case <-restart.C:
			if err := d.restartNext(restarts); err != nil {
				return err
			}
			restarts++
		case <-rotate.C:
			rotations++
			if err := d.issue(); err != nil {
				return err
			}
		case <-progress.C:
			line := ""
			for number, emitter := range emitters {
				line += fmt.Sprintf("  router %d: %d sent", number+1, emitter.count())
				for _, reader := range readers {
					line += fmt.Sprintf(", %s at %d", reader.name, reader.trackers[number].Last())
				}
			}
			log.Print(line)
		}
	}
}

// restartNext restarts the routers in turn and, after each round, one of the programs between.
func (d *deployment) restartNext(done int) error {
	round := len(d.routers)
	if *between {
		round++
	}
	if number := done % round; number < len(d.routers) {
		return d.restart(number)
	}
	program := d.others[done/round%len(d.others)]
	if err := program.Terminate(); err != nil {
		return err
	}
	return program.Start()
}

// restart stops a router, takes its last account and starts it again.
func (d *deployment) restart(number int) error {
	router := d.routers[number]
	if err := router.Terminate(); err != nil {
		return err
	}
	report, err := ledger.Last(router.Stderr())
	if err != nil {
		return err
	}
	d.ledgers[number].add(report)
	return router.Start()
}

func stopAll(emitters []*emitter) error {
	for _, emitter := range emitters {
		emitter.stop()
	}
	return nil
}

// conclude waits until nothing more comes, and explains the gaps.
func (d *deployment) conclude(emitters []*emitter, readers ...*reader) bool {
	for deadline := time.Now().Add(settle); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if caughtUp(emitters, readers) {
			break
		}
	}
	explained := true
	for number, emitter := range emitters {
		report, err := ledger.Read(d.admin[number])
		if err != nil {
			log.Print(err)
			return false
		}
		d.ledgers[number].add(report)
		explained = explain(number, emitter, d.ledgers[number], readers) && explained
	}
	return explained
}

func caughtUp(emitters []*emitter, readers []*reader) bool {
	for number, emitter := range emitters {
		for _, reader := range readers {
			if reader.trackers[number].Last() < emitter.count() {
				return false
			}
		}
	}
	return true
}
