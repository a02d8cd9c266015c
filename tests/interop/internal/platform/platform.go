// Package platform starts our programs with the environment that the platform's own tests and jobs give to the Go ones,
// and keeps what is needed to start them again on the same port.
package platform

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"loggregator/interop/internal/pki"
	"loggregator/interop/internal/process"
)

// What the platform's helpers look for in stderr.
var (
	grpcBound  = regexp.MustCompile(`grpc bound to: .*:(\d+)`)
	wsBound    = regexp.MustCompile(`ws bound to: .*:(\d+)`)
	httpBound  = regexp.MustCompile(`http bound to: .*:(\d+)`)
	pprofBound = regexp.MustCompile(`pprof bound to: .*:(\d+)`)
)

// Component is one of our programs, running or not.
type Component struct {
	// Env is what the next start gets.
	Env     process.Env
	program string
	bound   *regexp.Regexp
	setPort func(process.Env, int)
	port    int
	process *process.Process
}

// Start starts it: on a free port the first time, on the same port ever after.
func (c *Component) Start() error {
	started, err := process.Start(c.program, c.Env)
	if err != nil {
		return err
	}
	c.process = started
	for _, line := range []*regexp.Regexp{c.bound, pprofBound} {
		port, err := started.Port(line)
		if err != nil {
			started.Kill()
			return err
		}
		if line == c.bound {
			c.port = port
		}
	}
	c.setPort(c.Env, c.port)
	return nil
}

// Kill ends it with SIGKILL, as the platform's tests do.
func (c *Component) Kill() {
	if c.process != nil {
		c.process.Kill()
	}
}

// Terminate ends it with SIGTERM and waits until it has drained.
func (c *Component) Terminate() error {
	if err := c.process.Terminate(time.Minute); err != nil {
		return fmt.Errorf("%s: %w", c.program, err)
	}
	return nil
}

// Addr is where it listens, by address.
func (c *Component) Addr() string { return fmt.Sprintf("127.0.0.1:%d", c.port) }

// Port is where it listens.
func (c *Component) Port() int { return c.port }

// Stderr is what the running, or last, program wrote.
func (c *Component) Stderr() string { return c.process.Stderr() }

func setter(variable, prefix string) func(process.Env, int) {
	return func(env process.Env, port int) { env[variable] = prefix + strconv.Itoa(port) }
}

// Router is our router with the twelve variables of the platform's tests and nothing else.
func Router(files pki.Files, agent string) *Component {
	return &Component{
		program: "router",
		bound:   grpcBound,
		setPort: setter("ROUTER_PORT", ""),
		Env: process.Env{
			"ROUTER_PORT":                               "0",
			"ROUTER_CERT_FILE":                          files.Cert,
			"ROUTER_KEY_FILE":                           files.Key,
			"ROUTER_CA_FILE":                            files.CA,
			"ROUTER_CIPHER_SUITES":                      "",
			"INGRESS_BUFFER_SIZE":                       "10000",
			"EGRESS_BUFFER_SIZE":                        "1000",
			"USE_RFC339":                                "false",
			"ROUTER_PPROF_PORT":                         "0",
			"AGENT_GRPC_ADDRESS":                        agent,
			"ROUTER_METRIC_SOURCE_ID":                   "",
			"ROUTER_METRIC_BATCH_INTERVAL_MILLISECONDS": "10",
		},
	}
}

// TrafficController is our traffic controller with the variables of the platform's tests and nothing else; access
// control is off as it is there.
func TrafficController(files pki.Files, routers ...string) *Component {
	return &Component{
		program: "trafficcontroller",
		bound:   wsBound,
		setPort: setter("TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT", ""),
		Env: process.Env{
			"USE_RFC339":                                 "false",
			"TRAFFIC_CONTROLLER_SECURITY_EVENT_LOG":      "",
			"TRAFFIC_CONTROLLER_IP":                      "127.0.0.1",
			"TRAFFIC_CONTROLLER_API_HOST":                "http://127.0.0.1:65530",
			"TRAFFIC_CONTROLLER_UAA_HOST":                "http://127.0.0.1:65531",
			"TRAFFIC_CONTROLLER_OUTGOING_DROPSONDE_PORT": "0",
			"TRAFFIC_CONTROLLER_PPROF_PORT":              "0",
			"TRAFFIC_CONTROLLER_OUTGOING_CERT_FILE":      files.Cert,
			"TRAFFIC_CONTROLLER_OUTGOING_KEY_FILE":       files.Key,
			"ROUTER_CERT_FILE":                           files.Cert,
			"ROUTER_KEY_FILE":                            files.Key,
			"CC_CERT_FILE":                               files.Cert,
			"CC_KEY_FILE":                                files.Key,
			"ROUTER_CA_FILE":                             files.CA,
			"CC_CA_FILE":                                 files.CA,
			"TRAFFIC_CONTROLLER_UAA_CA_CERT":             files.CA,
			"CC_SERVER_NAME":                             "cloud-controller",
			"TRAFFIC_CONTROLLER_SYSTEM_DOMAIN":           "vcap.me",
			"TRAFFIC_CONTROLLER_SKIP_CERT_VERIFY":        "true",
			"TRAFFIC_CONTROLLER_DISABLE_ACCESS_CONTROL":  "true",
			"TRAFFIC_CONTROLLER_UAA_CLIENT":              "bob",
			"TRAFFIC_CONTROLLER_UAA_CLIENT_SECRET":       "yourUncle",
			"TRAFFIC_CONTROLLER_METRIC_EMITTER_INTERVAL": "0s",
			"ROUTER_ADDRS":                               strings.Join(routers, ","),
			"AGENT_GRPC_ADDRESS":                         "localhost:37474",
		},
	}
}

// ReverseLogProxy is our rlp with the variables of the platform's job.
func ReverseLogProxy(files pki.Files, routers ...string) *Component {
	return &Component{
		program: "rlp",
		bound:   grpcBound,
		setPort: setter("RLP_PORT", ""),
		Env: process.Env{
			"RLP_PORT":                    "0",
			"RLP_CERT_FILE":               files.Cert,
			"RLP_KEY_FILE":                files.Key,
			"RLP_CA_FILE":                 files.CA,
			"RLP_CIPHER_SUITES":           "",
			"RLP_PPROF_PORT":              "0",
			"RLP_METRIC_EMITTER_INTERVAL": "0s",
			"RLP_METRIC_SOURCE_ID":        "",
			"MAX_EGRESS_STREAMS":          "",
			"AGENT_ADDR":                  "localhost:37474",
			"ROUTER_ADDRS":                strings.Join(routers, ","),
			"USE_RFC339":                  "false",
		},
	}
}

// Gateway is our rlp-gateway with the variables of the platform's job. uaa and capi are base URLs.
func Gateway(files pki.Files, provider, uaa, capi string) *Component {
	return &Component{
		program: "rlp-gateway",
		bound:   httpBound,
		setPort: setter("GATEWAY_ADDR", "127.0.0.1:"),
		Env: process.Env{
			"LOGS_PROVIDER_ADDR":             provider,
			"LOGS_PROVIDER_CA_PATH":          files.CA,
			"LOGS_PROVIDER_CLIENT_CERT_PATH": files.Cert,
			"LOGS_PROVIDER_CLIENT_KEY_PATH":  files.Key,
			"LOGS_PROVIDER_COMMON_NAME":      "reverselogproxy",
			"GATEWAY_ADDR":                   "127.0.0.1:0",
			"HTTP_CERT_PATH":                 files.Cert,
			"HTTP_KEY_PATH":                  files.Key,
			"LOG_ACCESS_ADDR":                capi,
			"LOG_ACCESS_ADDR_EXTERNAL":       capi,
			"LOG_ACCESS_CERT_PATH":           files.Cert,
			"LOG_ACCESS_KEY_PATH":            files.Key,
			"LOG_ACCESS_CA_PATH":             files.CA,
			"LOG_ACCESS_COMMON_NAME":         "cloud-controller",
			"LOG_ADMIN_ADDR":                 uaa,
			"LOG_ADMIN_CLIENT_ID":            "gateway",
			"LOG_ADMIN_CLIENT_SECRET":        "gateway-secret",
			"LOG_ADMIN_CA_PATH":              files.CA,
			"SKIP_CERT_VERIFY":               "false",
			"STREAM_TIMEOUT":                 "",
			"METRICS_PORT":                   "0",
			"METRICS_CA_FILE_PATH":           files.CA,
			"METRICS_CERT_FILE_PATH":         files.Cert,
			"METRICS_KEY_FILE_PATH":          files.Key,
			"PPROF_PORT":                     "0",
			"USE_RFC339":                     "false",
		},
	}
}

// FreePort is a port that nobody listened on a moment ago.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
