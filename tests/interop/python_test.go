package interop

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"loggregator/interop/internal/platform"
)

// Python's stacks: grpcio and websockets.
func TestPython_EmitsAndConsumes(t *testing.T) {
	t.Parallel()
	python := os.Getenv("LOGGREGATOR_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if exec.Command(python, "-c", "import grpc, grpc_tools, websockets").Run() != nil {
		skip(t, "no Python with grpcio, grpcio-tools and websockets")
	}
	router := startRouter(t)
	proxy := running(t, platform.ReverseLogProxy(certificates.reverseLogProxy, router.Addr()))
	controller := running(t, platform.TrafficController(certificates.trafficController, router.Addr()))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	files := certificates.client
	output, err := exec.CommandContext(ctx, python, "python/clients.py", router.Addr(), proxy.Addr(), controller.Addr(),
		files.CA, files.Cert, files.Key, "../../proto").CombinedOutput()
	if err != nil || string(output) != "ok rlp\nok firehose\n" {
		t.Fatalf("%v\n%s", err, output)
	}
}
